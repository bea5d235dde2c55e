"""A nuScenes tree, with lidarseg and panoptic labels, that nuscenes-devkit opens and evaluates."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from afov.errors import InputError
from afov.frames import CameraImage, Frame
from afov.sources.nuscenes_classes import RAW_NAMES
from afov.transforms import quaternion_from
from afov_train.simulation.rig import RIG
from afov_train.simulation.write_mcap import jpeg, world_from_base

VERSION = "v1.0-mini"
LIDAR = "LIDAR_TOP"
KEYFRAME_RATE = 2.0  # per second, as nuScenes annotates

Record = dict[str, Any]


def write_nuscenes(frames: Iterable[Frame], root: Path, *, per_scene: int, rate: float) -> None:
    """Writes frames as they come, then the tables.

    The first two scenes bear the names of the official split mini_val, the next eight those of
    mini_train; so the devkit's own evaluation takes a tree of two scenes or more. There are no
    boxes: `instance` and `sample_annotation` are empty.

    Args:
        per_scene: sweeps of each scene. rate: sweeps per second; two per second are keyframes.

    Raises:
        InputError: the folder holds something already; old labels would not fit new tables.
    """
    if root.exists() and any(root.iterdir()):
        raise InputError(f"{root}: not empty; name a new folder for the nuScenes tree")
    tree = _Tree(root)
    stream = iter(frames)
    while scene := list(islice(stream, per_scene)):
        tree.scene(scene, every=max(1, round(rate / KEYFRAME_RATE)))
    tree.finish()


def scene_names() -> Iterable[str]:
    """Of the official mini splits first, validation before training; then numbers of our own."""
    from nuscenes.utils.splits import create_splits_scenes

    splits = create_splits_scenes()
    yield from (*splits["mini_val"], *splits["mini_train"])
    number = 2000  # nuScenes ends at 1110
    while True:
        yield f"scene-{number}"
        number += 1


def token(*parts: object) -> str:
    """32 hexadecimal digits, as nuScenes names its records; the same parts give the same."""
    return hashlib.md5(repr(parts).encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class _Keyframe:
    """Which sample a frame belongs to, and whether it is the sample's own."""

    sample: str
    own: bool

    @property
    def folder(self) -> str:
        return "samples" if self.own else "sweeps"


class _Tree:
    """Files as they come, records in memory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tables: dict[str, list[Record]] = defaultdict(list)
        self.names = iter(scene_names())
        self.latest: dict[str, Record] = {}
        self.mounted: dict[str, str] = {}

    def scene(self, frames: list[Frame], every: int) -> None:
        name = next(self.names)
        samples: list[Record] = []
        self.latest.clear()
        for i, frame in enumerate(frames):
            if i % every == 0:
                samples.append(self._sample(name, frame, samples))
            keyframe = _Keyframe(samples[-1]["token"], i % every == 0)
            self._sweep(frame, keyframe)
            for image in frame.images:
                self._image(frame, image, keyframe)
        self.tables["scene"].append(
            {
                "token": token("scene", name), "log_token": token("log"), "name": name,
                "nbr_samples": len(samples), "first_sample_token": samples[0]["token"],
                "last_sample_token": samples[-1]["token"], "description": "A simulated street",
            }
        )  # fmt: skip

    def _sample(self, scene: str, frame: Frame, before: list[Record]) -> Record:
        record: Record = {
            "token": token("sample", frame.sweep.stamp), "timestamp": frame.sweep.stamp // 1000,
            "prev": "", "next": "", "scene_token": token("scene", scene),
        }  # fmt: skip
        _link(before[-1] if before else None, record)
        self.tables["sample"].append(record)
        return record

    def _sweep(self, frame: Frame, keyframe: _Keyframe) -> None:
        sweep = frame.sweep
        columns = [sweep.fields.index(n) for n in ("x", "y", "z", "intensity", "ring")]
        file = self._data(
            LIDAR, sweep.stamp, ".pcd.bin", keyframe, world_from_base(frame), RIG.base_from_lidar
        )
        file.write_bytes(np.ascontiguousarray(sweep.points[:, columns]).tobytes())
        if keyframe.own and frame.truth is not None:
            truth, label = frame.truth, token(LIDAR, sweep.stamp)
            panoptic = truth.raw.astype(np.uint16) * np.uint16(1000) + truth.instance_id
            kept = self._label("lidarseg", label, ".bin")
            kept.write_bytes(truth.raw.astype(np.uint8).tobytes())
            np.savez_compressed(self._label("panoptic", label, ".npz"), data=panoptic)

    def _image(self, frame: Frame, image: CameraImage, keyframe: _Keyframe) -> None:
        camera = image.camera
        size = {"height": camera.height, "width": camera.width}
        file = self._data(
            image.name.upper(), image.stamp, ".jpg", keyframe, world_from_base(frame, image),
            RIG.base_from_camera[image.name], camera.K.tolist(), size,
        )  # fmt: skip
        file.write_bytes(jpeg(image.image))

    def _data(
        self, channel: str, stamp: int, suffix: str, keyframe: _Keyframe,
        world_from_base: np.ndarray, base_from_sensor: np.ndarray,
        intrinsic: list[list[float]] | None = None, size: dict[str, int] | None = None,
    ) -> Path:  # fmt: skip
        """Enters one sensor's record; returns where its file goes."""
        this = token(channel, stamp)
        filename = f"{keyframe.folder}/{channel}/afov-sim__{channel}__{stamp // 1000}{suffix}"
        if channel not in self.mounted:
            self.mounted[channel] = self._mount(channel, base_from_sensor, intrinsic or [])
        self.tables["ego_pose"].append(
            {"token": this, "timestamp": stamp // 1000, **_pose(world_from_base)}
        )
        record: Record = {
            "token": this, "sample_token": keyframe.sample, "ego_pose_token": this,
            "calibrated_sensor_token": self.mounted[channel], "timestamp": stamp // 1000,
            "fileformat": suffix.split(".")[1], "is_key_frame": keyframe.own,
            "height": 0, "width": 0, **(size or {}),
            "filename": filename, "prev": "", "next": "",
        }  # fmt: skip
        _link(self.latest.get(channel), record)
        self.latest[channel] = record
        self.tables["sample_data"].append(record)
        return _made(self.root / filename)

    def _mount(self, channel: str, base_from_sensor: np.ndarray, intrinsic: Any) -> str:
        modality = "lidar" if channel == LIDAR else "camera"
        this = token("sensor", channel)
        self.tables["sensor"].append({"token": this, "channel": channel, "modality": modality})
        self.tables["calibrated_sensor"].append(
            {
                "token": this, "sensor_token": this, **_pose(base_from_sensor),
                "camera_intrinsic": intrinsic,
            }
        )  # fmt: skip
        return this

    def _label(self, kind: str, data: str, suffix: str) -> Path:
        filename = f"{kind}/{VERSION}/{data}_{kind}{suffix}"
        self.tables[kind].append({"token": data, "sample_data_token": data, "filename": filename})
        return _made(self.root / filename)

    def finish(self) -> None:
        """The tables."""
        log, mask = token("log"), f"maps/{token('map')}.png"
        self.tables["log"].append(
            {
                "token": log, "logfile": "afov-sim", "vehicle": "afov", "location": "nowhere",
                "date_captured": "2023-11-14",
            }
        )  # fmt: skip
        # The devkit asks for a map before it opens anything; this one says nothing.
        self.tables["map"].append(
            {
                "token": token("map"), "category": "semantic_prior", "filename": mask,
                "log_tokens": [log],
            }
        )  # fmt: skip
        Image.new("L", (8, 8)).save(_made(self.root / mask))
        for index, name in enumerate(RAW_NAMES):
            self.tables["category"].append(
                {"token": token("category", name), "name": name, "index": index, "description": ""}
            )
        empty = ("attribute", "visibility", "instance", "sample_annotation")
        for name in (*self.tables, *empty):
            file = _made(self.root / VERSION / f"{name}.json")
            file.write_text(json.dumps(self.tables.get(name, [])))


def _link(before: Record | None, record: Record) -> None:
    """Chains two records of one sensor (or two samples)."""
    if before is not None:
        before["next"], record["prev"] = record["token"], before["token"]


def _pose(matrix: np.ndarray) -> Record:
    """The devkit's translation and rotation, w first."""
    x, y, z, w = map(float, quaternion_from(matrix))
    return {"translation": matrix[:3, 3].tolist(), "rotation": [w, x, y, z]}


def _made(file: Path) -> Path:
    """The file, its folder made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return file
