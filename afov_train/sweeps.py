"""Taught sweeps as training samples: augmented, voxelised, collated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from afov.inputs import inputs
from afov.vocabulary import Vocabulary
from afov.voxels import VoxelGrid
from afov_train.config import AugmentConfig
from afov_train.taught import TaughtSweep

CUBOID = 0.2  # largest side of the box that is left out, as a share of the sweep's extent
CROP = (0.3, 1.0)  # area of the window that is kept, as a share of the image
RATIO = (14 / 9, 17 / 9)  # its width over its height
ENOUGH = 0.5  # of a sweep's pairs, which an augmentation must leave


class Batch(NamedTuple):
    """One or several sweeps.

    Attributes:
        features: (V, C) float32. coords: (V, 3) int32, or (V, 4) with the sweep in front.
        class_id: (V,) int64, of each voxel's representative point; 0 = unlabelled.
        voxel, segment: (M,) int64, pairs of a voxel and a superpoint.
        feature: (S, E) float32, image feature of each superpoint. phrase: (S,) int64.
    """

    features: torch.Tensor
    coords: torch.Tensor
    class_id: torch.Tensor
    voxel: torch.Tensor
    segment: torch.Tensor
    feature: torch.Tensor
    phrase: torch.Tensor


def moved(xyz: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Turned about z, mirrored, scaled.

    Args:
        xyz: (N, 3) float32, metres, LiDAR frame.
    """
    angle = rng.uniform(0, 2 * np.pi) if config.rotate else 0.0
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    if config.flip:
        turn = turn @ np.diag([*rng.choice([-1.0, 1.0], 2), 1.0])
    return (xyz @ (turn * rng.uniform(1 - config.scale, 1 + config.scale)).T).astype(np.float32)


def without_cuboid(xyz: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) bool: the points outside a random box around one of them."""
    finite = np.flatnonzero(np.isfinite(xyz).all(1))
    if not len(finite):
        return np.ones(len(xyz), bool)
    extent = np.ptp(xyz[finite], axis=0)
    half = extent * rng.uniform(0, CUBOID) / 2
    center = xyz[rng.choice(finite)]
    return ~(np.abs(xyz - center) < half).all(1)


def in_window(
    row: np.ndarray, col: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """(M,) bool: pixels inside a random window of an image of (height, width).

    This is the published resized crop. Nothing looks at the image any more, so neither its new
    size nor a mirror image would change a pair: each keeps the segment of its own pixel.
    """
    height, width = size
    area = rng.uniform(*CROP) * height * width
    ratio = rng.uniform(*RATIO)
    w, h = min(np.sqrt(area * ratio), width), min(np.sqrt(area / ratio), height)
    top, left = rng.uniform(0, height - h), rng.uniform(0, width - w)
    return (row >= top) & (row < top + h) & (col >= left) & (col < left + w)


def visited(files: Sequence[Path], seed: int, visit: int) -> tuple[Path, np.random.Generator]:
    """The file of a visit, and the visit's own random stream.

    Files are taken in shuffled rounds, so that each is seen before any is seen twice.
    """
    turn, place = divmod(visit, len(files))
    order = np.random.default_rng((seed, turn, 1)).permutation(len(files))
    return files[order[place]], np.random.default_rng((seed, visit))


@dataclass(frozen=True)
class TaughtSweeps(Dataset[Batch]):
    """A sample per visit: every visit has its own random stream, whatever worker makes it.

    Attributes:
        names: inputs of a voxel. length: visits in all; first: the one to begin with.
    """

    files: Sequence[Path]
    vocabulary: Vocabulary
    grid: VoxelGrid
    names: tuple[str, ...]
    augment: AugmentConfig | None
    seed: int
    length: int = 0
    first: int = 0

    def __len__(self) -> int:
        return self.length - self.first

    def __getitem__(self, index: int) -> Batch:
        file, rng = visited(self.files, self.seed, self.first + index)
        taught = TaughtSweep.load(file)
        pairs = taught.pairs
        points = taught.sweep.points
        if self.augment:
            kept = without_cuboid(points[:, :3], rng) if self.augment.cuboid else None
            points = points.copy()
            points[:, :3] = moved(points[:, :3], self.augment, rng)
            if kept is not None and kept[pairs[:, 0]].sum() > ENOUGH * len(pairs):
                points[~kept] = np.nan  # no voxel, no label, no pair; every index stays
            if self.augment.crop:
                pairs = _cropped(taught, rng)
        return self._sample(taught, points, pairs)

    def _sample(self, taught: TaughtSweep, points: np.ndarray, pairs: np.ndarray) -> Batch:
        sweep = replace(taught.sweep, points=points)
        voxels = self.grid.voxelize(sweep.xyz)
        # A voxel's label is that of its representative point (2405.15286, official code).
        class_id = taught.class_id(self.vocabulary)[voxels.representative]
        voxel = voxels.inverse[pairs[:, 0]]
        pairs, voxel = pairs[voxel >= 0], voxel[voxel >= 0]
        met, segment = np.unique(pairs[:, 4], return_inverse=True)
        return Batch(
            torch.from_numpy(inputs(sweep, voxels, self.names)),
            torch.from_numpy(voxels.coords),
            torch.from_numpy(class_id.astype(np.int64)),
            torch.from_numpy(voxel),
            torch.from_numpy(segment.astype(np.int64)),
            torch.from_numpy(taught.segment_feature[met]),
            torch.from_numpy(taught.segment_phrase[met].astype(np.int64)),
        )


def _cropped(taught: TaughtSweep, rng: np.random.Generator) -> np.ndarray:
    """The pairs inside a window of each image; all of an image where a window leaves too few."""
    pairs = taught.pairs
    inside = np.ones(len(pairs), bool)
    for camera, size in enumerate(taught.image_sizes):
        here = np.flatnonzero(pairs[:, 1] == camera)
        kept = in_window(pairs[here, 2], pairs[here, 3], (int(size[0]), int(size[1])), rng)
        if kept.sum() > ENOUGH * len(here) / 2:
            inside[here] = kept
    return pairs[inside]


def collate(samples: Sequence[Batch]) -> Batch:
    """Joins sweeps; coords get the sweep's place as their first column, indices move on."""
    coords, voxels, segments = [], [], []
    before = met = 0
    for place, sample in enumerate(samples):
        column = torch.full((len(sample.coords), 1), place, dtype=torch.int32)
        coords.append(torch.cat((column, sample.coords), 1))
        voxels.append(sample.voxel + before)
        segments.append(sample.segment + met)
        before, met = before + len(sample.coords), met + len(sample.phrase)
    return Batch(
        torch.cat([s.features for s in samples]),
        torch.cat(coords),
        torch.cat([s.class_id for s in samples]),
        torch.cat(voxels),
        torch.cat(segments),
        torch.cat([s.feature for s in samples]),
        torch.cat([s.phrase for s in samples]),
    )


def class_weights(files: Sequence[Path], vocabulary: Vocabulary) -> torch.Tensor:
    """(K + 1,) float32: 1 / sqrt(share of the labelled points), mean 1 over the classes met."""
    counts = np.zeros(len(vocabulary.labelled) + 1)
    for file in files:
        counts += np.bincount(TaughtSweep.load(file).class_id(vocabulary), minlength=len(counts))
    counts[0] = 0
    met = counts > 0
    weights = np.ones(len(counts))
    # A class with fewer than a thousandth of the points is not weighted up any further.
    weights[met] = 1 / np.sqrt(np.maximum(counts[met] / counts.sum(), 1e-3))
    weights[met] /= weights[met].mean()
    return torch.from_numpy(weights).float()
