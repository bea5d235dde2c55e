"""The student's network in torch as a GPU likes it: a gather and one product per layer.

All offsets are multiplied, also those where no neighbour is, as in the exported graph: on a GPU
that costs less than finding out which exist.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from afov.kernel_maps import KernelMaps
from afov.model_folder import ModelFolder
from afov.runtimes.profile import Profile, profile_of
from afov.unet import unet

LARGEST = float(np.finfo(np.float16).max)


class TorchNetwork:
    """The folded weights on a device, in the precisions of `afov.runtimes.precision`.

    Args:
        half: half floats between the stem and the head; by default on a GPU, where all weights
            are within their range.
    """

    name = "torch"

    def __init__(
        self, model: ModelFolder, device: torch.device | str, half: bool | None = None
    ) -> None:
        self.shape, self.device = model.shape, torch.device(device)
        self.profile: Profile = profile_of(model.voxels)
        self.width = len(model.weights["head.bias"])
        if half is None:
            fits = all(np.abs(w).max(initial=0) <= LARGEST for w in model.weights.values())
            half = self.device.type == "cuda" and fits
        self.kind = torch.float16 if half else torch.float32
        # Sums of half floats in float32, all the way, as TensorRT and ONNX Runtime have them.
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        self.weights = {
            name: torch.from_numpy(_wide(name, value)).to(self.device, self._kind_of(name))
            for name, value in model.weights.items()
        }

    def sizes(self, counts: tuple[int, ...]) -> tuple[int, ...]:
        """Rows per level for a sweep with so many voxels, padding included."""
        return self.profile.padded(counts)

    def prepared(self) -> Callable[[torch.Tensor, KernelMaps[torch.Tensor]], torch.Tensor]:
        """The network as a function of features and maps, for the shapes of one CUDA graph."""
        return lambda features, maps: unet(self.shape, _Layers(self, maps), features)

    def _kind_of(self, name: str) -> torch.dtype:
        ends = name.startswith(("stem.", "head."))
        return torch.float32 if ends else self.kind


class _Layers:
    """The operations over one sweep's kernel maps."""

    def __init__(self, network: TorchNetwork, maps: KernelMaps[torch.Tensor]) -> None:
        self.weights, self.kind, self.maps = network.weights, network.kind, maps

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.weights

    def subm(
        self, x: torch.Tensor, name: str, level: int, plus: torch.Tensor | None = None
    ) -> torch.Tensor:
        if level < 0:
            return self._gathered(x, name, self.maps.stem).relu_().to(self.kind)
        out = self._gathered(x, name, self.maps.subm[level])
        return (out if plus is None else out.add_(plus)).relu_()

    def down(self, x: torch.Tensor, name: str, level: int) -> torch.Tensor:
        return self._gathered(x, name, self.maps.down[level]).relu_()

    def up(self, x: torch.Tensor, name: str, level: int) -> torch.Tensor:
        # All eight children of every parent in one product; those that exist are taken.
        bias = self.weights[f"{name}.bias"]
        every = (x @ self.weights[f"{name}.weight"]).view(-1, len(bias))
        return every.index_select(0, self.maps.up[level]).add_(bias).relu_()

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight = self.weights[f"{name}.weight"]
        return torch.addmm(self.weights[f"{name}.bias"], x.to(weight.dtype), weight)

    def join(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return torch.cat((x, skip), 1)

    def _gathered(self, x: torch.Tensor, name: str, table: torch.Tensor) -> torch.Tensor:
        """Rows of the neighbours side by side, a row of zeros where there is none; times W."""
        padded = torch.cat((x, x.new_zeros(1, x.shape[1])))
        rows = padded.index_select(0, table.flatten()).view(len(table), -1)
        return torch.addmm(self.weights[f"{name}.bias"], rows, self.weights[f"{name}.weight"])


def _wide(name: str, weight: np.ndarray) -> np.ndarray:
    """(K, Cin, Cout) as the one matrix that a layer multiplies with; others as they are."""
    if weight.ndim < 3:
        return weight
    if name.startswith("up."):
        return np.ascontiguousarray(weight.transpose(1, 0, 2)).reshape(weight.shape[1], -1)
    return weight.reshape(-1, weight.shape[2])
