"""nuScenes through its own devkit: keyframes and sweeps, official splits, truth where it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from afov.cameras import Camera
from afov.errors import InputError
from afov.frames import CameraImage, Frame, Sweep, Truth
from afov.images import decode_compressed
from afov.sources.nuscenes_classes import RAW_TO_16
from afov.sources.nuscenes_splits import with_papers_splits
from afov.transforms import inverse, matrix_from

LIDAR = "LIDAR_TOP"
CAMERAS = (
    "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_FRONT_LEFT",
)  # fmt: skip
FIELDS = ("x", "y", "z", "intensity", "ring")


class NuScenesSource:
    """A nuScenes tree as a source of frames.

    Args:
        root: folder that holds `samples/` and the tables' folder.
        version: "v1.0-mini", "v1.0-trainval".
        split: an official split ("train", "val", "mini_val", ...), or the papers' train600 and
            train100; all scenes when None.
        sweeps: the sweeps between keyframes, too; each takes the nearest image of every camera.
        truth: read lidarseg and panoptic labels; keyframes alone have them.

    Raises:
        InputError: a table or the split is not there.
    """

    def __init__(
        self,
        root: Path | str,
        version: str,
        split: str | None = None,
        *,
        sweeps: bool = False,
        truth: bool = False,
    ) -> None:
        from nuscenes import NuScenes
        from nuscenes.utils.splits import create_splits_scenes

        self.root, self.split = Path(root), split
        self.truth, self.sweeps = truth, sweeps
        self.name = f"nuscenes-{version}" + (f"-{split}" if split else "")
        if not (self.root / version).is_dir():
            raise InputError(f"{self.root / version}: no such folder of nuScenes tables")
        try:
            self.nusc = NuScenes(version, str(self.root), verbose=False)
        except Exception as error:  # the devkit fails in many ways on a broken tree
            raise InputError(f"{self.root / version}: cannot be opened ({error})") from None
        scenes = self.nusc.scene
        if split is not None:
            splits = with_papers_splits(create_splits_scenes())
            if split not in splits:
                raise InputError(f"split {split!r}: expected one of {', '.join(splits)}")
            scenes = [s for s in scenes if s["name"] in splits[split]]
            if not scenes:
                raise InputError(f"{self.root}: {version} has no scene of split {split!r}")
        self.scenes = scenes
        # The devkit's evaluation knows its own splits alone.
        self.official = split in create_splits_scenes()
        self._skipped: Counter[str] = Counter()

    @property
    def key(self) -> str:
        """Tokens are unique among all versions, so that the name says all."""
        return self.name

    def every(self, n: int) -> NuScenesSource:
        """Each n-th scene, beginning with the n-th, as the papers take 1% of the labels.

        Raises:
            InputError: there are fewer scenes.
        """
        if len(self.scenes) < n:
            raise InputError(f"{self.name}: {len(self.scenes)} scenes, so none is the {n}th")
        fewer = copy(self)
        fewer.scenes, fewer.name = self.scenes[n - 1 :: n], f"{self.name}-every-{n}"
        return fewer

    def __len__(self) -> int:
        if not self.sweeps:
            return sum(s["nbr_samples"] for s in self.scenes)
        return sum(1 for scene in self.scenes for _ in self._records(scene, LIDAR))

    @property
    def skipped(self) -> dict[str, int]:
        """What the last pass left out, by reason."""
        return dict(self._skipped)

    def __iter__(self) -> Iterator[Frame]:
        self._skipped = Counter()
        for scene in self.scenes:
            images = {c: list(self._records(scene, c)) for c in CAMERAS}
            for record in self._records(scene, LIDAR):
                if record["is_key_frame"] or self.sweeps:
                    yield self._frame(record, images)

    def _records(self, scene: Any, channel: str) -> Iterator[Any]:
        """A sensor's records of a scene, in time order."""
        sample = self.nusc.get("sample", scene["first_sample_token"])
        token = sample["data"].get(channel, "")
        while token:
            record = self.nusc.get("sample_data", token)
            yield record
            token = record["next"]

    def _frame(self, record: Any, images: dict[str, list[Any]]) -> Frame:
        points = self._points(record)
        stamp = record["timestamp"] * 1000
        world_from_lidar = self._pose(record)
        seen = []
        for channel, records in images.items():
            if record["is_key_frame"]:
                # The sample says which image belongs to it.
                records = [r for r in records if r["is_key_frame"]
                           and r["sample_token"] == record["sample_token"]]  # fmt: skip
            near = min(
                records, key=lambda r: abs(r["timestamp"] - record["timestamp"]), default=None
            )
            image = self._image(channel, near, world_from_lidar) if near else None
            if image is not None:
                seen.append(image)
        truth = self._truth(record, len(points)) if self.truth else None
        sweep = Sweep(points, FIELDS, stamp, LIDAR.lower())
        return Frame(record["token"], sweep, tuple(seen), world_from_lidar, truth)

    def _points(self, record: Any) -> np.ndarray:
        file = self.root / record["filename"]
        try:
            return np.fromfile(file, np.float32).reshape(-1, 5)
        except (OSError, ValueError):
            raise InputError(f"{file}: no sweep of five float32 per point") from None

    def _pose(self, record: Any) -> np.ndarray:
        """(4, 4) global from sensor at the record's own time."""
        mount = self.nusc.get("calibrated_sensor", record["calibrated_sensor_token"])
        ego = self.nusc.get("ego_pose", record["ego_pose_token"])
        return _matrix(ego) @ _matrix(mount)

    def _image(self, channel: str, record: Any, world_from_lidar: np.ndarray) -> CameraImage | None:
        file = self.root / record["filename"]
        try:
            pixels = decode_compressed(file.read_bytes())
        except (OSError, InputError):
            self._skipped[f"{channel.lower()}: no readable image"] += 1
            return None
        mount = self.nusc.get("calibrated_sensor", record["calibrated_sensor_token"])
        camera = Camera(pixels.shape[1], pixels.shape[0], np.array(mount["camera_intrinsic"]))
        pose = inverse(self._pose(record)) @ world_from_lidar
        return CameraImage(channel.lower(), record["timestamp"] * 1000, pixels, camera, pose)

    def _truth(self, record: Any, count: int) -> Truth | None:
        if not record["is_key_frame"] or not hasattr(self.nusc, "lidarseg"):
            return None
        token = record["token"]
        file = self.root / self.nusc.get("lidarseg", token)["filename"]
        raw = np.fromfile(file, np.uint8)
        if len(raw) != count or raw.max(initial=0) > 31:
            raise InputError(f"{file}: {len(raw)} labels for {count} points, expected 0 to 31 each")
        if not hasattr(self.nusc, "panoptic"):
            return Truth(RAW_TO_16[raw], np.zeros(count, np.uint16), raw)
        both = read_panoptic(self.root / self.nusc.get("panoptic", token)["filename"], count)
        # The whole number tells instances apart: the last three digits alone need not, where
        # several categories are one class (adults, children).
        instance = np.where(both % 1000 > 0, both, 0).astype(np.uint16)
        return Truth(RAW_TO_16[raw], instance, raw, RAW_TO_16[both // 1000])


def read_panoptic(file: Path, points: int) -> np.ndarray:
    """(N,) uint16 of a panoptic `.npz`: 1000 x category + instance, 0 = counts for nothing.

    Points of things in no box, or in several, are 0 here, while lidarseg knows their category.

    Raises:
        InputError: not such a file, or not of as many points.
    """
    try:
        with np.load(file, allow_pickle=False) as data:
            both = np.asarray(data["data"])
    except (OSError, ValueError, KeyError, BadZipFile):
        raise InputError(f"{file}: expected an .npz with one array 'data'") from None
    fits = both.shape == (points,) and both.dtype.kind in "ui"
    if not fits or (points and not 0 <= int(both.min()) <= int(both.max()) < 32_000):
        raise InputError(
            f"{file}: {both.dtype} of shape {both.shape}, expected {points} numbers "
            "1000 x category + instance, categories 0 to 31"
        )
    return both.astype(np.uint16)


def _matrix(record: Any) -> np.ndarray:
    """The devkit writes quaternions w first."""
    w, x, y, z = record["rotation"]
    return matrix_from(np.array([x, y, z, w]), np.array(record["translation"]))
