"""Prepare: sweeps with panoptic labels and what the frozen image tower sees of them, as files;
and these as training samples."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from afov.errors import InputError
from afov.frames import Source, Sweep
from afov.image_tower import ImageTower, Seen
from afov.inputs import inputs
from afov.voxels import VoxelGrid
from afov_train.config import AugmentConfig
from afov_train.panoptic.targets import PanopticTarget
from afov_train.progress import track
from afov_train.sweeps import moved, visited


@dataclass(frozen=True)
class PanopticSweep:
    """A sweep, its labels, and what cameras see of it."""

    sweep: Sweep
    target: PanopticTarget
    seen: Seen

    def save(self, file: Path) -> None:
        """Writes the file in one step; features in half precision, those that no point hits not."""
        hit, place = np.unique(self.seen.place, return_inverse=True)
        partial = file.with_suffix(".part")
        with partial.open("wb") as stream:
            np.savez(
                stream,
                points=self.sweep.points,
                fields=np.array(self.sweep.fields),
                class_id=self.target.class_id,
                instance_id=self.target.instance_id,
                point=self.seen.point.astype(np.int32),
                place=place.astype(np.int32),
                feature=self.seen.feature[hit].astype(np.float16),
            )
        partial.replace(file)

    @classmethod
    def load(cls, file: Path) -> PanopticSweep:
        """Reads what `save` wrote."""
        with np.load(file, allow_pickle=False) as data:
            fields = tuple(str(name) for name in data["fields"])
            return cls(
                Sweep(data["points"], fields, 0, "lidar"),
                PanopticTarget(data["class_id"], data["instance_id"]),
                Seen(data["point"], data["place"], data["feature"].astype(np.float32)),
            )


def prepare(
    source: Source, tower: ImageTower, ids: np.ndarray, labels: Path | None, folder: Path
) -> list[Path]:
    """A file for every frame with labels; what an earlier run wrote from the same tower, labels and
    classes is kept.

    Args:
        source: opened with truth, unless `labels` is a folder.
        ids: of the base classes; other labels are left out.

    Raises:
        InputError: no frame has labels of these classes.
    """
    common = hashlib.sha256(source.key.encode() + tower.files.onnx)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for frame in track(source, "prepare", len(source)):
        found = PanopticTarget.of_frame(frame, labels)
        target = None if found is None else found.of_classes(ids)
        if target is None or not target.class_id.any():
            continue
        key = common.copy()
        key.update(target.class_id.tobytes() + target.instance_id.tobytes())
        file = folder / f"{frame.token}-{key.hexdigest()[:16]}.npz"
        if not file.exists():
            PanopticSweep(frame.sweep, target, tower.look(frame.sweep.xyz, frame.images)).save(file)
        files.append(file)
    if not files:
        raise InputError(
            f"{source.name}: no frame has panoptic labels of the base classes; name a folder of "
            "them with --labels, or a recording with truth"
        )
    return files


class PanopticBatch(NamedTuple):
    """One or several sweeps, voxel by voxel.

    Attributes:
        features: (V, C) float32. coords: (V, 3) int32, or (V, 4) with the sweep in front.
        xyz: (V, 3) float32, metres, LiDAR frame, of each voxel's representative point.
        class_id, instance_id: (V,) int64, of the same point; 0 = not labelled.
        image: (V, E) float32, unit rows, zero where no camera sees a voxel.
        dropped: (V,) bool, whether the network must do without image features.
    """

    features: torch.Tensor
    coords: torch.Tensor
    xyz: torch.Tensor
    class_id: torch.Tensor
    instance_id: torch.Tensor
    image: torch.Tensor
    dropped: torch.Tensor


@dataclass(frozen=True)
class PanopticSweeps(Dataset[PanopticBatch]):
    """A sample per visit: every visit has its own random stream, whatever worker makes it.

    Attributes:
        names: inputs of a voxel. drop: share of the visits without image features.
        length: visits in all; first: the one to begin with.
    """

    files: Sequence[Path]
    grid: VoxelGrid
    names: tuple[str, ...]
    augment: AugmentConfig | None
    drop: float
    seed: int
    length: int = 0
    first: int = 0

    def __len__(self) -> int:
        return self.length - self.first

    def __getitem__(self, index: int) -> PanopticBatch:
        file, rng = visited(self.files, self.seed, self.first + index)
        return self.sample(PanopticSweep.load(file), rng)

    def sample(self, labelled: PanopticSweep, rng: np.random.Generator) -> PanopticBatch:
        """One sweep, augmented and cut into voxels."""
        sweep, target = labelled.sweep, labelled.target
        if self.augment:
            points = sweep.points.copy()
            points[:, :3] = moved(points[:, :3], self.augment, rng)
            sweep = replace(sweep, points=points)
        voxels = self.grid.voxelize(sweep.xyz)
        first = voxels.representative
        return PanopticBatch(
            torch.from_numpy(inputs(sweep, voxels, self.names)),
            torch.from_numpy(voxels.coords),
            torch.from_numpy(np.ascontiguousarray(sweep.xyz[first])),
            torch.from_numpy(target.class_id[first].astype(np.int64)),
            torch.from_numpy(target.instance_id[first].astype(np.int64)),
            torch.from_numpy(labelled.seen.of_voxels(voxels.inverse, len(voxels))),
            torch.full((len(voxels),), bool(rng.uniform() < self.drop)),
        )


def collate(samples: Sequence[PanopticBatch]) -> PanopticBatch:
    """Joins sweeps; coords get the sweep's place as their first column."""
    coords = [
        torch.cat((torch.full((len(s.coords), 1), place, dtype=torch.int32), s.coords), 1)
        for place, s in enumerate(samples)
    ]
    joined = (torch.cat(parts) for parts in zip(*samples, strict=True))
    return PanopticBatch(*joined)._replace(coords=torch.cat(coords))
