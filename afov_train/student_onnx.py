"""The student as an ONNX graph of standard operators, BatchNorm folded into the weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto
from torch import nn

from afov.errors import InputError
from afov.unet import STRIDES, Shape, unet
from afov_train.onnx_graph import FLOAT, Graph


def folded(network: Any) -> dict[str, np.ndarray]:
    """Weights by the names of `afov.unet`: (K, Cin, Cout) per convolution, bias (Cout,).

    Raises:
        InputError: a parameter of the network found no place.
    """
    used: set[int] = set()
    result: dict[str, np.ndarray] = {}

    def put(name: str, layer: Any, norm: Any) -> None:
        weight = layer.weight.detach().double()
        bias = torch.zeros(len(weight)).double()
        used.add(id(layer.weight))
        if layer.bias is not None:
            bias = layer.bias.detach().double()
            used.add(id(layer.bias))
        if norm is not None:
            scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
            weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
            bias = (bias - norm.running_mean.double()) * scale + norm.bias.detach().double()
            used.update((id(norm.weight), id(norm.bias)))
        # Convolutions lie as (Cout, k, k, k, Cin), linear layers as (Cout, Cin).
        weight = weight.flatten(1, 3).permute(1, 2, 0) if weight.dim() == 5 else weight.T
        result[f"{name}.weight"] = weight.float().contiguous().numpy()
        result[f"{name}.bias"] = bias.float().numpy()

    put("stem", network.stem[0], network.stem[1])
    for kind, strided in (("down", network.down), ("up", network.up)):
        for i, layer in enumerate(strided):
            put(f"{kind}.{i}", layer[0], layer[1])
    for kind, levels in (("encode", network.encode), ("decode", network.decode)):
        for i, level in enumerate(levels):
            for j, block in enumerate(level):
                name = f"{kind}.{i}.{j}"
                put(f"{name}.first", block.first[0], block.first[1])
                put(f"{name}.second", block.second, block.norm)
                if isinstance(block.shortcut, nn.Sequential):
                    put(f"{name}.shortcut", block.shortcut[0], block.shortcut[1])
    put("head", network.head, None)
    left = [name for name, p in network.named_parameters() if id(p) not in used]
    if left:
        raise InputError(f"export: weights without a place in the graph: {', '.join(left)}")
    return result


def graph(shape: Shape, weights: dict[str, np.ndarray], channels: int) -> onnx.ModelProto:
    """The ONNX model: dynamic in every level's voxels.

    Args:
        weights: as `folded` gives them. channels: features of a voxel.
    """
    student = _Student(weights)
    student.output(unet(shape, student, "features"), "embedding")
    sizes: dict[str, list[str | int]] = {"stem": ["voxels0", shape.stem**3]}
    sizes |= {f"subm{i}": [f"voxels{i}", 27] for i in range(STRIDES + 1)}
    sizes |= {f"down{i}": [f"voxels{i + 1}", 8] for i in range(STRIDES)}
    sizes |= {f"up{i}": [f"voxels{i}"] for i in range(STRIDES)}
    used = {name for node in student.nodes for name in node.input}
    tables: dict[str, tuple[int, list[str | int]]] = {
        name: (TensorProto.INT32, size) for name, size in sizes.items() if name in used
    }
    return student.model(
        "student",
        {"features": (FLOAT, ["voxels0", channels]), **tables},
        {"embedding": ["voxels0", len(weights["head.bias"])]},
    )


class _Student(Graph):
    """The operations of `afov.unet`; inputs are the features and the kernel maps."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.weights = weights
        self.padded: dict[str, str] = {}

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.weights

    def subm(self, x: str, name: str, level: int, plus: str | None = None) -> str:
        out = self._gathered(x, name, "stem" if level < 0 else f"subm{level}")
        return self.node("Relu", out if plus is None else self.node("Add", out, plus))

    def down(self, x: str, name: str, level: int) -> str:
        return self.node("Relu", self._gathered(x, name, f"down{level}"))

    def up(self, x: str, name: str, level: int) -> str:
        """Each parent's eight children in one product; the table takes those that exist."""
        weight = self.weights[f"{name}.weight"]
        cin, cout = weight.shape[1:]
        wide = weight.transpose(1, 0, 2).reshape(cin, 8 * cout)
        every = self.node("MatMul", x, self._named(f"{name}.weight", wide))
        rows = self.node("Reshape", every, self.integers(-1, cout))
        return self.node(
            "Relu", self._biased(self.node("Gather", rows, f"up{level}", axis=0), name)
        )

    def linear(self, x: str, name: str) -> str:
        return self._product(x, name, self.weights[f"{name}.weight"])

    def join(self, x: str, skip: str) -> str:
        return self.node("Concat", x, skip, axis=1)

    def _gathered(self, x: str, name: str, table: str) -> str:
        """Rows of the neighbours side by side, a row of zeros where there is none; times W."""
        weight = self.weights[f"{name}.weight"]
        kernel, cin, cout = weight.shape
        if x not in self.padded:
            self.padded[x] = self.node("Concat", x, self.constant(np.zeros((1, cin))), axis=0)
        rows = self.node("Gather", self.padded[x], table, axis=0)
        wide = self.node("Reshape", rows, self.integers(-1, kernel * cin))
        return self._product(wide, name, weight.reshape(kernel * cin, cout))

    def _product(self, x: str, name: str, weight: np.ndarray) -> str:
        return self._biased(self.node("MatMul", x, self._named(f"{name}.weight", weight)), name)

    def _biased(self, x: str, name: str) -> str:
        return self.node("Add", x, self._named(f"{name}.bias", self.weights[f"{name}.bias"]))

    def _named(self, name: str, value: np.ndarray) -> str:
        """A weight under its own name: `afov.runtimes.precision` finds the head by it."""
        self.constants[name] = value
        return name
