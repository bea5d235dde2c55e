"""Sparse convolutions on the CPU: spconv's weights and values, on the compiled kernels.

A pair (to, from) of a kernel offset moves a row through that offset's weights. The gradient of
the input moves the other way: over the pairs of the opposite map, through transposed weights. The
gradient of the weights adds up outer products over the same pairs (afov/native/training.cpp).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from afov.kernel_maps import kernel_maps
from afov.native import LANES, PANEL, call, library
from afov.runtimes.native_runtime import Pairs
from afov.voxels import pack

# The coarsest voxel: a sweep's place in the batch is a multiple of it, so that floor(c / 2) stays
# what it is.
COARSEST = 16


@dataclass(frozen=True)
class Map:
    """Pairs of one kernel map, and those of the way back.

    Attributes:
        mirrored: the way back has the offsets in the opposite order, as a submanifold's.
    """

    pairs: Pairs
    back: Pairs
    mirrored: bool

    @property
    def inverse(self) -> Map:
        """The same, from `back` to `pairs`."""
        return Map(self.back, self.pairs, self.mirrored)


@dataclass(frozen=True)
class Rows:
    """Features of the voxels of one level, in place of spconv's tensor.

    Attributes:
        features: (V, C) float32.
        maps: kernel maps of all levels, by spconv's `indice_key`.
    """

    features: torch.Tensor
    maps: dict[str, Map]

    def replace_feature(self, features: torch.Tensor) -> Rows:
        """Other features of the same voxels."""
        return replace(self, features=features)


def compiled(features: torch.Tensor) -> bool:
    """Whether the compiled kernels take these features; spconv does where they do not."""
    return library() is not None and features.device.type == "cpu"


def rows(features: torch.Tensor, coords: torch.Tensor, stem: int) -> Rows:
    """A batch with its kernel maps.

    Args:
        features: (V, C) float32.
        coords: (V, 4) int32: sweep in the batch, then the voxel; in lexicographic order.
        stem: kernel of the first convolution.
    """
    call("use_threads", torch.get_num_threads())
    call("keep_memory")
    maps = kernel_maps(side_by_side(coords.numpy()), stem)
    levels = [Pairs(table, len(table)) for table in maps.subm]
    found = {f"subm{level}": Map(pairs, pairs, True) for level, pairs in enumerate(levels)}
    if stem != 3:
        pairs = Pairs(maps.stem, len(maps.stem))
        found[f"stem{stem}"] = Map(pairs, pairs, True)
    for level, (down, up) in enumerate(zip(maps.down, maps.up, strict=True)):
        found[f"down{level}"] = Map(Pairs(down, len(up)), Pairs(up), False)
    return Rows(features, found)


def side_by_side(coords: np.ndarray) -> np.ndarray:
    """(V, 4) with the sweep in front to (V, 3): sweeps so far apart that none meets another.

    Raises:
        ValueError: the voxels are not in lexicographic order, none twice.
    """
    batch, voxels = coords[:, 0], coords[:, 1:].astype(np.int64)
    ends = np.searchsorted(batch, np.arange(batch.max(initial=-1) + 1), side="right")
    start, at = 0, 0
    for end in ends:
        if end > at:
            sweep = voxels[at:end]
            sweep[:, 0] += start - sweep[:, 0].min() // COARSEST * COARSEST
            start = (sweep[:, 0].max() // COARSEST + 2) * COARSEST
        at = end
    if (np.diff(batch) < 0).any() or (np.diff(pack(voxels)) <= 0).any():
        raise ValueError("voxels of a batch: expected sweep by sweep, each in lexicographic order")
    return voxels.astype(np.int32)


def convolved(conv: Any, x: Rows) -> Rows:
    """What an spconv convolution without bias makes of the rows."""
    weight = conv.weight.flatten(1, 3)
    found = x.maps[conv.indice_key]
    return x.replace_feature(convolve(x.features, weight, found.inverse if conv.inverse else found))


def convolve(x: torch.Tensor, weight: torch.Tensor, over: Map) -> torch.Tensor:
    """out[to] = the sum over offsets k and pairs (to, from) of W_k x[from].

    Args:
        x: (V, Cin) float32. weight: (Cout, K, Cin) float32.
    """
    cout, _, cin = weight.shape
    if cin % LANES or cout % LANES:
        weight = pad(weight, (0, -cin % LANES, 0, 0, 0, -cout % LANES))
        x = pad(x, (0, -cin % LANES))
    out: torch.Tensor = _Convolution.apply(x, weight, over)
    return out[:, :cout] if cout % LANES else out


class _Convolution(torch.autograd.Function):
    """Channels are multiples of LANES here."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, over: Map) -> torch.Tensor:
        x, weight = x.detach().contiguous(), weight.detach().contiguous()
        ctx.save_for_backward(x, weight)
        ctx.over = over
        return _layer(x, weight.permute(1, 2, 0), over.pairs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        over, gradient = ctx.over, gradient.contiguous()
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            to_x = _layer(gradient, weight.permute(1, 0, 2), over.back, flip=over.mirrored)
        if ctx.needs_input_grad[1]:
            to_weight = torch.empty_like(weight)
            pairs = over.pairs
            call(
                "weight_gradient", x.numpy(), x.shape[1], gradient.numpy(), gradient.shape[1],
                pairs.pairs, pairs.starts, pairs.offsets, len(pairs.starts), to_weight.numpy(),
            )  # fmt: skip
        return to_x, to_weight, None


def _layer(
    x: torch.Tensor, weight: torch.Tensor, pairs: Pairs, *, flip: bool = False
) -> torch.Tensor:
    """The product over the pairs; weight (K, C, D), anyhow strided; flip: the last offset first."""
    offsets, cin, cout = weight.shape
    steps = weight.stride()
    panels = torch.empty(offsets, -(-cout // PANEL), cin, PANEL)
    # A negative step from the last offset on, where torch has no such view.
    first = weight[-1] if flip else weight[0]
    call(
        "weight_panels", first.numpy(), -steps[0] if flip else steps[0], *steps[1:],
        offsets, cin, cout, panels.numpy(),
    )  # fmt: skip
    out = torch.empty(pairs.rows, cout)
    call(
        "sparse_layer", x.numpy(), *x.shape[1:], cin, None, 0, 0,
        pairs.pairs, pairs.starts, pairs.offsets, pairs.block,
        panels.numpy(), np.zeros(cout, np.float32), None, 0, out.numpy(), *out.shape,
    )  # fmt: skip
    return out
