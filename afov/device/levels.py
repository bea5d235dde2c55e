"""Voxels and strides in torch, in arrays as long as the sweep: the device never waits for a count.

The twins of `afov.voxels` and of the strides of `afov.kernel_maps`, with the same order and the
same representatives. What is beyond a level's last voxel is padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from afov.kernel_maps import LEVELS
from afov.voxels import REACH, VoxelGrid

BIAS, BITS = 1 << 20, 21  # as `afov.voxels.pack` has them
# The key of padding: above every voxel's, by more than any offset, and below 2^63.
NOWHERE = 2_090_000 << 2 * BITS


@dataclass(frozen=True)
class Levels:
    """Voxels of a sweep and of its strides; V_l rows of level l count, the rest is padding.

    Attributes:
        keys: per level, (R,) int64, packed coordinates in lexicographic order, then `NOWHERE`.
        up: per stride, (R,) int32, 8 * parent + which child; 0 in the padding.
        counts: (5,) int64, V_l.
    """

    keys: tuple[torch.Tensor, ...]
    up: tuple[torch.Tensor, ...]
    counts: torch.Tensor

    def padded(self, sizes: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        """Keys of every level, then `up` of every stride, as many rows as the levels' sizes say."""
        keys = (fit(k, size, NOWHERE) for k, size in zip(self.keys, sizes, strict=True))
        up = (fit(u, size, 0) for u, size in zip(self.up, sizes, strict=False))
        return *keys, *up


def fit(rows: torch.Tensor, size: int, fill: int) -> torch.Tensor:
    """The first rows, or all and more of them."""
    if len(rows) >= size:
        return rows[:size]
    return torch.cat((rows, rows.new_full((size - len(rows), *rows.shape[1:]), fill)))


class Cells:
    """A `VoxelGrid` on a device.

    Args:
        grid: the grid.
    """

    def __init__(self, grid: VoxelGrid, device: torch.device) -> None:
        self.cylindrical = grid.kind == "cylindrical"
        # Tensors, not numbers: CUDA divides by a number by multiplying with its inverse.
        self.size = torch.tensor(grid.size, dtype=torch.float32, device=device)
        self.pi = torch.tensor(torch.pi, dtype=torch.float32, device=device)

    def keys(self, xyz: torch.Tensor) -> torch.Tensor:
        """Each point's voxel, packed; `NOWHERE` for points that are not finite or too far.

        Args:
            xyz: (R, 3) float32, metres, LiDAR frame.
        """
        near = (xyz.abs() < REACH).all(1)
        return pack(self.coordinates(xyz).floor().long()).masked_fill(~near, NOWHERE)

    def coordinates(self, xyz: torch.Tensor) -> torch.Tensor:
        """(R, 3) float32, as `VoxelGrid.coordinates` but for the last bit of the azimuth."""
        if self.cylindrical:
            x, y, z = xyz.unbind(1)
            azimuth = torch.atan2(y, x) * 180 / self.pi
            xyz = torch.stack((torch.sqrt(x * x + y * y), azimuth, z), 1)
        return xyz / self.size


def distinct(
    keys: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """np.unique, first index and inverse, in arrays as long as the keys.

    Args:
        keys: (R,) int64; `NOWHERE` counts as no key.

    Returns:
        (R,) sorted keys, each once, then `NOWHERE`; (R,) int64, where each first stood; (R,) int64,
        each key's place, -1 for `NOWHERE`; () int64, how many there are.
    """
    ordered, order = torch.sort(keys, stable=True)
    begins = ordered != NOWHERE
    begins[1:].logical_and_(ordered[1:] != ordered[:-1])
    rank = begins.cumsum(0) - 1
    place = torch.empty_like(rank)
    place.scatter_(0, order, rank.masked_fill(ordered == NOWHERE, -1))
    # Each run's first goes to its rank; the others to a row beyond the end, which is cut off.
    to = rank.masked_fill(~begins, len(keys))
    once = keys.new_full((len(keys) + 1,), NOWHERE).scatter_(0, to, ordered)
    first = order.new_zeros(len(keys) + 1).scatter_(0, to, order)
    return once[:-1], first[:-1], place, begins.sum()


def levels(finest: torch.Tensor, count: torch.Tensor) -> Levels:
    """The strides over a sweep's voxels.

    Args:
        finest: (R,) int64, keys as `distinct` gives them. count: () int64, how many are voxels.
    """
    keys, up, counts = [finest], [], [count]
    for _ in range(LEVELS - 1):
        coords = unpack(keys[-1])
        parents = pack(coords >> 1).masked_fill(keys[-1] == NOWHERE, NOWHERE)
        coarse, _, parent, count = distinct(parents)
        x, y, z = (coords & 1).unbind(1)
        child = 4 * x + 2 * y + z
        up.append((8 * parent + child).masked_fill(parent < 0, 0).int())
        keys.append(coarse)
        counts.append(count)
    return Levels(tuple(keys), tuple(up), torch.stack(counts))


def pack(coords: torch.Tensor) -> torch.Tensor:
    """(R, 3) int64 coordinates to (R,) int64 keys of the same order (`afov.voxels.pack`)."""
    x, y, z = (coords + BIAS).unbind(1)
    return (x << 2 * BITS) | (y << BITS) | z


def unpack(keys: torch.Tensor) -> torch.Tensor:
    """(R,) int64 keys to (R, 3) int64 coordinates."""
    fields = torch.stack((keys >> 2 * BITS, keys >> BITS, keys), 1)
    return (fields & ((1 << BITS) - 1)) - BIAS
