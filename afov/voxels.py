"""Voxels: cylindrical (the paper's) and Cartesian, with the way back to every point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from afov.errors import InputError
from afov.native import call, library

# Beyond this a coordinate is a fault, not a return; it also keeps the packed keys in 63 bits.
REACH = 1000.0  # metres


@dataclass(frozen=True)
class Voxels:
    """The occupied voxels of one sweep.

    Attributes:
        coords: (V, 3) int32, in lexicographic order.
        representative: (V,) int64, the first point of the sweep in each voxel.
        inverse: (N,) int64, each point's voxel; -1 for points that are not finite or too far.
    """

    coords: np.ndarray
    representative: np.ndarray
    inverse: np.ndarray

    def __len__(self) -> int:
        return len(self.coords)


@dataclass(frozen=True)
class VoxelGrid:
    """How space is cut; by default twice as coarsely as in the paper (0.1 m, 1 degree, 0.1 m),
    for two thirds of the time (docs/performance.md).

    Attributes:
        kind: "cylindrical": rho, azimuth, z; "cartesian": x, y, z.
        size: metres, degrees, metres; or metres three times.
    """

    kind: Literal["cylindrical", "cartesian"] = "cylindrical"
    size: tuple[float, float, float] = (0.2, 2.0, 0.2)

    def __post_init__(self) -> None:
        if self.kind not in ("cylindrical", "cartesian"):
            raise InputError(f"voxel grid: kind {self.kind!r}, expected cylindrical or cartesian")
        if len(self.size) != 3 or not all(s >= 0.001 for s in self.size):
            raise InputError(f"voxel grid: size {self.size}, expected three, each at least 0.001")

    def coordinates(self, xyz: np.ndarray) -> np.ndarray:
        """Continuous coordinates in units of a voxel, float32 as the official code has them.

        Args:
            xyz: (N, 3) float32, metres, LiDAR frame.

        Returns:
            (N, 3) float32. Azimuth runs from -180 to 180 degrees and does not wrap.
        """
        xyz = np.asarray(xyz, np.float32)
        if self.kind == "cylindrical":
            x, y, z = xyz.T
            rho = np.sqrt(x * x + y * y)
            # In this order, the float32 rounding is the official code's.
            phi = np.arctan2(y, x) * np.float32(180) / np.float32(np.pi)
            xyz = np.stack((rho, phi, z), 1)
        return xyz / np.asarray(self.size, np.float32)

    def voxelize(self, xyz: np.ndarray) -> Voxels:
        """Cuts a sweep.

        Args:
            xyz: (N, 3) float32, metres, LiDAR frame; may hold NaN and infinity.
        """
        xyz = np.asarray(xyz, np.float32)
        return self._voxelize(xyz) if library() is None else self._compiled(xyz)

    def _voxelize(self, xyz: np.ndarray) -> Voxels:
        with np.errstate(invalid="ignore"):
            near = np.abs(xyz) < REACH
        kept = np.flatnonzero(near[:, 0] & near[:, 1] & near[:, 2])  # .all(1) takes 1 ms longer
        coords = np.floor(self.coordinates(xyz[kept])).astype(np.int64)
        key = pack(coords)
        order = np.argsort(key, kind="stable")
        first = np.flatnonzero(np.diff(key[order], prepend=-1))
        inverse = np.full(len(xyz), -1, np.int64)
        rank = np.zeros(len(kept), np.int64)
        rank[first] = 1
        inverse[kept[order]] = np.cumsum(rank) - 1
        # The sort is stable, so the first of each run is the first point in the sweep's order.
        leaders = order[first]
        return Voxels(coords[leaders].astype(np.int32), kept[leaders], inverse)

    def _compiled(self, xyz: np.ndarray) -> Voxels:
        if xyz.strides[1] != 4 or xyz.strides[0] % 4:
            xyz = np.ascontiguousarray(xyz)
        count = len(xyz)
        # NumPy's own arctan2, because those of C libraries differ in the last bit.
        azimuth = np.arctan2(xyz[:, 1], xyz[:, 0]) if self.kind == "cylindrical" else None
        coords, size = np.empty((count, 3), np.int32), np.array(self.size, np.float32)
        representative, inverse = np.empty((2, count), np.int64)
        found = call(
            "voxelize", xyz, count, xyz.strides[0] // 4, azimuth, size, REACH,
            coords, representative, inverse,
        )  # fmt: skip
        return Voxels(coords[:found], representative[:found], inverse)


def pack(coords: np.ndarray) -> np.ndarray:
    """(N, 3) integer coordinates within +-2^20 to (N,) int64 keys of the same order."""
    shifted = coords.astype(np.int64) + (1 << 20)
    return (shifted[:, 0] << 42) | (shifted[:, 1] << 21) | shifted[:, 2]
