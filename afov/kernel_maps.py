"""Kernel maps: for every voxel of every level of the U-Net, where its neighbours lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from afov.native import addresses, call, library
from afov.voxels import pack

LEVELS = 5
Table = TypeVar("Table")


@dataclass(frozen=True)
class KernelMaps(Generic[Table]):
    """Neighbour tables of a sparse U-Net with four strides of 2: NumPy's arrays or torch's.

    Level l has V_l voxels; in its tables V_l (one past the last row) means "no neighbour".

    Attributes:
        subm: per level, (V_l, 27) int32, neighbours at offsets (-1..1)^3, last axis fastest.
        stem: (V_0, k^3) int32 for a stem kernel k > 3, else `subm[0]`.
        down: per stride, (V_{l+1}, 8) int32, children in level l; V_l means none.
        up: per stride, (V_l,) int32, 8 * parent + which child.
    """

    subm: tuple[Table, ...]
    stem: Table
    down: tuple[Table, ...]
    up: tuple[Table, ...]


def kernel_maps(coords: np.ndarray, stem: int = 3) -> KernelMaps[np.ndarray]:
    """Maps for one sweep.

    Args:
        coords: (V, 3) int32 in lexicographic order, none twice, as `VoxelGrid` gives them.
        stem: kernel of the first convolution, odd.
    """
    built = library() is not None
    neighbours, stride = (
        (_compiled_neighbours, _compiled_stride) if built else (_neighbours, _stride)
    )
    levels, down, up = [np.ascontiguousarray(coords, np.int32)], [], []
    for _ in range(LEVELS - 1):
        coarse, to_child, to_parent = stride(levels[-1])
        levels.append(coarse)
        down.append(to_child)
        up.append(to_parent)
    subm = neighbours(levels, 3)
    first = subm[0] if stem == 3 else neighbours(levels[:1], stem)[0]
    return KernelMaps(subm, first, tuple(down), tuple(up))


def _neighbours(levels: list[np.ndarray], kernel: int) -> tuple[np.ndarray, ...]:
    return tuple(_table(coords, kernel) for coords in levels)


def _table(coords: np.ndarray, kernel: int) -> np.ndarray:
    """(V, kernel^3) neighbours; each pair is found once and entered both ways."""
    keys = pack(coords)
    count, half = len(keys), kernel**3 // 2
    table = np.full((count, kernel**3), count, np.int32)
    table[:, half] = np.arange(count)
    reach = np.arange(kernel) - kernel // 2
    offsets = np.stack(np.meshgrid(reach, reach, reach, indexing="ij"), -1).reshape(-1, 3)
    # Keys are linear in the coordinates, so an offset is a difference of keys.
    deltas = (offsets[:, 0] << 42) + (offsets[:, 1] << 21) + offsets[:, 2]
    for k in range(half + 1, kernel**3):
        wanted = keys + deltas[k]
        place = np.searchsorted(keys, wanted)
        place[place == count] = 0
        found = np.flatnonzero(keys[place] == wanted) if count else place
        table[found, k] = place[found]
        table[place[found], kernel**3 - 1 - k] = found
    return table


def _stride(fine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The next level: its coordinates, its children, and each fine voxel's parent."""
    parents = fine >> 1  # floor, also below zero
    child = (fine & 1) @ np.array([4, 2, 1])
    keys, first, parent = np.unique(pack(parents), return_index=True, return_inverse=True)
    table = np.full((len(keys), 8), len(fine), np.int32)
    table[parent, child] = np.arange(len(fine))
    return parents[first], table, (8 * parent + child).astype(np.int32)


def _compiled_neighbours(levels: list[np.ndarray], kernel: int) -> tuple[np.ndarray, ...]:
    tables = tuple(np.empty((len(coords), kernel**3), np.int32) for coords in levels)
    where, counts = addresses(*levels), np.array([len(coords) for coords in levels], np.int64)
    call("neighbours", where, counts, len(levels), kernel, addresses(*tables))
    return tables


def _compiled_stride(fine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count = len(fine)
    coarse, up = np.empty((count, 3), np.int32), np.empty(count, np.int32)
    table = np.empty((count, 8), np.int32)
    found = call("stride", fine, count, coarse, table, up)
    return coarse[:found], table[:found], up
