"""Taught sweeps as training samples: augmented, voxelised, collated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from afov.inputs import inputs
from afov.vocabulary import Vocabulary
from afov.voxels import VoxelGrid
from afov_train.teach import TaughtSweep

Sample = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def augmented(xyz: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turned about z, mirrored in x and y, scaled by up to 5%.

    Args:
        xyz: (N, 3) float32, metres, LiDAR frame.
    """
    angle = rng.uniform(0, 2 * np.pi)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    mirror = np.diag([*rng.choice([-1.0, 1.0], 2), 1.0])
    return (xyz @ (turn @ mirror * rng.uniform(0.95, 1.05)).T).astype(np.float32)


@dataclass(frozen=True)
class TaughtSweeps(Dataset[Sample]):
    """Samples (features (V, C) float32, coords (V, 3) int32, class_id (V,) int64)."""

    files: Sequence[Path]
    vocabulary: Vocabulary
    grid: VoxelGrid
    names: tuple[str, ...]
    augment: bool
    seed: int
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        # Every visit has its own random stream, whatever worker makes it. Files are taken in
        # shuffled rounds, so that each is seen before any is seen twice.
        rng = np.random.default_rng((self.seed, index))
        turn, place = divmod(index, len(self.files))
        order = np.random.default_rng((self.seed, turn, 1)).permutation(len(self.files))
        taught = TaughtSweep.load(self.files[order[place]])
        sweep = taught.sweep
        if self.augment:
            points = sweep.points.copy()
            points[:, :3] = augmented(points[:, :3], rng)
            sweep = replace(sweep, points=points)
        voxels = self.grid.voxelize(sweep.xyz)
        # A voxel's label is that of its representative point (2405.15286, official code).
        class_id = taught.class_id(self.vocabulary)[voxels.representative]
        return (
            torch.from_numpy(inputs(sweep, voxels, self.names)),
            torch.from_numpy(voxels.coords),
            torch.from_numpy(class_id.astype(np.int64)),
        )


def collate(samples: Sequence[Sample]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Joins sweeps; coords get the batch index as their first column."""
    coords = [
        torch.cat((torch.full((len(c), 1), i, dtype=torch.int32), c), 1)
        for i, (_, c, _) in enumerate(samples)
    ]
    features, labels = [s[0] for s in samples], [s[2] for s in samples]
    return torch.cat(features), torch.cat(coords), torch.cat(labels)


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
