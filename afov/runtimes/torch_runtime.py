"""Torch on the folded weights: a product per kernel offset, over the neighbours that exist."""

from __future__ import annotations

import numpy as np
import torch

from afov.kernel_maps import KernelMaps
from afov.model_folder import ModelFolder
from afov.unet import unet

Pairs = tuple[torch.Tensor, torch.Tensor, list[int]]


class TorchRuntime:
    """The student's flow in torch on the CPU; `afov.runtimes.torch_dense` is for a GPU."""

    name = "torch"

    def __init__(self, model: ModelFolder) -> None:
        self.shape = model.shape
        self.weights = {name: torch.from_numpy(value) for name, value in model.weights.items()}

    @torch.inference_mode()
    def run(self, features: np.ndarray, maps: KernelMaps) -> np.ndarray:
        """(V, C) float32 features to (V, E) float32 embeddings."""
        return unet(self.shape, _Sweep(self.weights, maps), torch.from_numpy(features)).numpy()


class _Sweep:
    """The operations over one sweep's kernel maps."""

    def __init__(self, weights: dict[str, torch.Tensor], maps: KernelMaps) -> None:
        self.weights = weights
        self.counts = [len(t) for t in maps.subm]
        self.levels = [_pairs(t, len(t), own=False) for t in maps.subm]
        small = maps.stem is maps.subm[0]
        count = self.counts[0]
        self.stem = self.levels[0] if small else _pairs(maps.stem, count, own=False)
        self.children = [
            _pairs(t, count, own=True) for t, count in zip(maps.down, self.counts, strict=False)
        ]
        self.parents = [torch.from_numpy(t).long() for t in maps.up]

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.weights

    def subm(
        self, x: torch.Tensor, name: str, level: int, plus: torch.Tensor | None = None
    ) -> torch.Tensor:
        weight = self.weights[f"{name}.weight"]
        # Every voxel is its own neighbour: the middle offset needs no gathering.
        out = torch.addmm(self.weights[f"{name}.bias"], x, weight[len(weight) // 2])
        if plus is not None:
            out += plus
        return self._add(out, x, weight, self.stem if level < 0 else self.levels[level]).relu_()

    def down(self, x: torch.Tensor, name: str, level: int) -> torch.Tensor:
        out = self.weights[f"{name}.bias"].repeat(self.counts[level + 1], 1)
        return self._add(out, x, self.weights[f"{name}.weight"], self.children[level]).relu_()

    def up(self, x: torch.Tensor, name: str, level: int) -> torch.Tensor:
        weight = self.weights[f"{name}.weight"]
        # All eight children of every parent in one product; those that exist are taken.
        every = x @ weight.permute(1, 0, 2).reshape(x.shape[1], 8 * weight.shape[2])
        taken = every.reshape(len(x) * 8, weight.shape[2])[self.parents[level]]
        return (taken + self.weights[f"{name}.bias"]).relu_()

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.addmm(self.weights[f"{name}.bias"], x, self.weights[f"{name}.weight"])

    def join(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return torch.cat((x, skip), 1)

    @staticmethod
    def _add(
        out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, pairs: Pairs
    ) -> torch.Tensor:
        """out[o] += x[i] @ weight[k] over all pairs (k, o, i), which lie sorted by k."""
        to, source, ends = pairs
        gathered = x[source]
        moved = gathered.new_empty(len(gathered), weight.shape[2])
        start = 0
        for k, end in enumerate(ends):
            if end > start:
                torch.mm(gathered[start:end], weight[k], out=moved[start:end])
            start = end
        return out.index_add_(0, to, moved)


def _pairs(table: np.ndarray, missing: int, *, own: bool) -> Pairs:
    """Pairs (to, from) that exist, offset by offset, and where each offset's end.

    Args:
        missing: the table's mark for "none".
        own: keep the middle offset, a voxel's pair with itself.
    """
    columns = np.ascontiguousarray(table.T)
    exists = columns != missing
    if not own:
        exists[len(columns) // 2] = False
    k, to = np.nonzero(exists)
    ends = np.searchsorted(k, np.arange(len(columns)), side="right").tolist()
    source = columns[k, to].astype(np.int64)
    return torch.from_numpy(to), torch.from_numpy(source), ends
