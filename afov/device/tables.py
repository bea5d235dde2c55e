"""Kernel maps in torch: the twin of `afov.kernel_maps`, of sizes known beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from afov.device.levels import BITS, NOWHERE
from afov.kernel_maps import LEVELS, KernelMaps


def tables(padded: Sequence[torch.Tensor], stem: int) -> KernelMaps[torch.Tensor]:
    """The maps of a sweep whose levels are padded to P_l rows each; P_l means "no neighbour".

    Rows of padding have no neighbours, and no voxel has one of them for a neighbour.

    Args:
        padded: keys and `up`, as `Levels.padded` gives them.
        stem: kernel of the first convolution, odd.
    """
    keys, up = tuple(padded[:LEVELS]), tuple(padded[LEVELS:])
    subm = tuple(_neighbours(level, 3) for level in keys)
    first = subm[0] if stem == 3 else _neighbours(keys[0], stem)
    down = tuple(
        _children(fine, parent, len(coarse))
        for fine, parent, coarse in zip(keys, up, keys[1:], strict=False)
    )
    return KernelMaps(subm, first, down, up)


def _neighbours(keys: torch.Tensor, kernel: int) -> torch.Tensor:
    """(P, kernel^3) int32: all neighbours in one search."""
    reach = torch.arange(kernel, device=keys.device) - kernel // 2
    # Keys are linear in the coordinates, so an offset is a difference of keys.
    plane = reach[:, None] * (1 << BITS) + reach
    offsets = (reach[:, None, None] * (1 << 2 * BITS) + plane).flatten()
    wanted = keys[:, None] + offsets
    place = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
    found = (keys[place] == wanted) & (wanted != NOWHERE)
    return place.masked_fill(~found, len(keys)).int()


def _children(fine: torch.Tensor, up: torch.Tensor, coarse: int) -> torch.Tensor:
    """(coarse, 8) int32: each parent's children; the padding writes beyond the end."""
    to = up.long().masked_fill(fine == NOWHERE, 8 * coarse)
    none = len(fine)
    table = fine.new_full((8 * coarse + 1,), none)
    table.scatter_(0, to, torch.arange(none, device=fine.device))
    return table[:-1].view(coarse, 8).int()
