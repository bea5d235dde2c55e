"""Export: BatchNorm folded, an ONNX graph of standard operators, compared before it is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from afov.errors import InputError
from afov.frames import Sweep
from afov.inputs import inputs
from afov.kernel_maps import kernel_maps
from afov.model_folder import ModelFolder, Sample, write_model_folder
from afov.model_parts import PanopticFiles, TowerFiles
from afov.runtimes.onnx_runtime import OnnxRuntime
from afov.text_bank import TextBank
from afov.text_tower import TextTower
from afov.unet import Shape, unet
from afov.voxels import VoxelGrid
from afov_train.network.config import NetworkConfig
from afov_train.network.unet import UNet

TOLERANCE = 1e-4


def export_student(
    network: nn.Module,
    *,
    config: NetworkConfig,
    grid: VoxelGrid,
    text_bank: TextBank,
    temperature: float,
    provenance: dict[str, Any],
    sweep: Sweep,
    folder: Path,
    text_tower: TowerFiles | None = None,
    panoptic: PanopticFiles | None = None,
    others: Iterable[Sweep] = (),
) -> Path:
    """Writes the model folder.

    Args:
        network: trained `UNet`.
        sweep: a real one, on which ONNX Runtime must agree with spconv.
        text_tower: of the teacher, with which the vocabulary can change on the vehicle.
        panoptic: mask decoder and image tower, already compared.
        others: more of the training data; an engine is made for sweeps as large as these.

    Raises:
        InputError: a weight is left over, or the two disagree by more than 1e-4 relative, or the
            text tower does not make the text bank.
    """
    assert isinstance(network, UNet)
    network = network.eval().cpu()
    weights = folded(network)
    model = ModelFolder(
        folder,
        graph(network.shape, weights, len(config.inputs)).SerializeToString(),
        weights,
        network.shape,
        grid,
        config.inputs,
        text_bank,
        temperature,
        provenance,
    )
    check(network, model, sweep)
    if text_tower is not None:
        check_tower(text_tower, text_bank)
    voxels = grid.voxelize(sweep.xyz)
    sample = Sample(inputs(sweep, voxels, config.inputs), voxels.coords)
    counted = voxel_counts(grid, chain([sweep], others))
    whole = replace(model, voxels=counted, sample=sample)
    return write_model_folder(whole, text_tower, panoptic)


def voxel_counts(grid: VoxelGrid, sweeps: Iterable[Sweep]) -> tuple[tuple[int, int, int], ...]:
    """Least, median and most voxels per level."""
    maps = (kernel_maps(grid.voxelize(sweep.xyz).coords) for sweep in sweeps)
    counts = np.array([[len(table) for table in m.subm] for m in maps])
    ranges = np.stack((counts.min(0), np.median(counts, 0), counts.max(0)), 1).astype(int)
    return tuple((max(1, least), max(1, mid), max(1, most)) for least, mid, most in ranges.tolist())


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


class _Graph:
    """The operations of `afov.unet` as ONNX nodes; values are their names."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights, self.count = weights, 0
        self.nodes: list[Any] = []
        self.widths: dict[str, int] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.padded: dict[str, str] = {}

    def node(self, kind: str, *into: str, width: int = 0, **attributes: Any) -> str:
        self.count += 1
        out = f"v{self.count}"
        self.nodes.append(helper.make_node(kind, into, [out], **attributes))
        self.widths[out] = width
        return out

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = value
        return name

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.weights

    def _product(self, x: str, name: str, weight: np.ndarray) -> str:
        w = self.constant(f"{name}.weight", weight)
        b = self.constant(f"{name}.bias", self.weights[f"{name}.bias"])
        return self.node(
            "Add", self.node("MatMul", x, w), b, width=len(self.weights[f"{name}.bias"])
        )

    def _gathered(self, x: str, name: str, table: str) -> str:
        """Rows of the neighbours side by side, a row of zeros where there is none; times W."""
        weight = self.weights[f"{name}.weight"]
        kernel, cin, cout = weight.shape
        if x not in self.padded:
            zero = self.constant(f"zero{cin}", np.zeros((1, cin), np.float32))
            self.padded[x] = self.node("Concat", x, zero, axis=0)
        rows = self.node("Gather", self.padded[x], table, axis=0)
        flat = self.constant(f"flat{kernel * cin}", np.array([-1, kernel * cin], np.int64))
        wide = self.node("Reshape", rows, flat)
        return self._product(wide, name, weight.reshape(kernel * cin, cout))

    def subm(self, x: str, name: str, level: int, plus: str | None = None) -> str:
        out = self._gathered(x, name, "stem" if level < 0 else f"subm{level}")
        width = self.widths[out]
        if plus is not None:
            out = self.node("Add", out, plus)
        return self.node("Relu", out, width=width)

    def down(self, x: str, name: str, level: int) -> str:
        out = self._gathered(x, name, f"down{level}")
        return self.node("Relu", out, width=self.widths[out])

    def up(self, x: str, name: str, level: int) -> str:
        """Each parent's eight children in one product; the table takes those that exist."""
        weight = self.weights[f"{name}.weight"]
        cin, cout = weight.shape[1:]
        w = self.constant(f"{name}.weight", weight.transpose(1, 0, 2).reshape(cin, 8 * cout))
        every = self.node("MatMul", x, w)
        flat = self.constant(f"flat{cout}", np.array([-1, cout], np.int64))
        rows = self.node("Gather", self.node("Reshape", every, flat), f"up{level}", axis=0)
        bias = self.constant(f"{name}.bias", self.weights[f"{name}.bias"])
        return self.node("Relu", self.node("Add", rows, bias), width=cout)

    def linear(self, x: str, name: str) -> str:
        return self._product(x, name, self.weights[f"{name}.weight"])

    def join(self, x: str, skip: str) -> str:
        return self.node("Concat", x, skip, axis=1, width=self.widths[x] + self.widths[skip])


def graph(shape: Shape, weights: dict[str, np.ndarray], channels: int) -> onnx.ModelProto:
    """The ONNX model: standard operators, dynamic in every level's voxels."""
    ops = _Graph(weights)
    ops.widths["features"] = channels
    out = unet(shape, ops, "features")
    ops.nodes.append(helper.make_node("Identity", [out], ["embedding"]))
    kernel = shape.stem**3
    tables = {"stem": ("voxels0", kernel)}
    tables |= {f"subm{i}": (f"voxels{i}", 27) for i in range(5)}
    tables |= {f"down{i}": (f"voxels{i + 1}", 8) for i in range(4)}
    used = {name for node in ops.nodes for name in node.input}
    declared = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["voxels0", channels]),
        *(
            helper.make_tensor_value_info(name, TensorProto.INT32, list(size))
            for name, size in tables.items()
            if name in used
        ),
        *(
            helper.make_tensor_value_info(f"up{i}", TensorProto.INT32, [f"voxels{i}"])
            for i in range(4)
        ),
    ]
    width = len(weights["head.bias"])
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["voxels0", width])
    stored = [numpy_helper.from_array(v, name) for name, v in ops.constants.items()]
    body = helper.make_graph(ops.nodes, "student", declared, [output], stored)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def check(network: UNet, model: ModelFolder, sweep: Sweep) -> float:
    """The largest difference between ONNX Runtime and spconv on a sweep, relative.

    Raises:
        InputError: it is above 1e-4.
    """
    voxels = model.grid.voxelize(sweep.xyz)
    features = inputs(sweep, voxels, model.inputs)
    coords = torch.from_numpy(np.pad(voxels.coords, ((0, 0), (1, 0))))
    with torch.inference_mode():
        expected = network(torch.from_numpy(features), coords, 1).numpy()
    got = OnnxRuntime(model).run(features, kernel_maps(voxels.coords, model.shape.stem))
    difference = float(np.abs(got - expected).max() / np.abs(expected).max())
    if not difference <= TOLERANCE:
        raise InputError(
            f"export: ONNX Runtime and spconv differ by {difference:.1e} relative on a sweep of "
            f"{len(voxels)} voxels, at most {TOLERANCE:.0e} is allowed; nothing was written"
        )
    return difference


def check_tower(tower: TowerFiles, text_bank: TextBank) -> float:
    """The largest difference between the bank, which torch made, and what the tower makes of it.

    Raises:
        InputError: it is above 1e-4.
    """
    made = TextTower(tower).embed(text_bank.vocabulary.phrases)
    if made.shape != text_bank.embeddings.shape:
        raise InputError(
            f"export: the text tower is {made.shape[1]} wide, the text bank "
            f"{text_bank.embeddings.shape[1]}; export without it"
        )
    difference = float(np.abs(made - text_bank.embeddings).max())
    if not difference <= TOLERANCE:
        raise InputError(
            f"export: ONNX Runtime and torch embed a phrase {difference:.1e} apart, at most "
            f"{TOLERANCE:.0e} is allowed; nothing was written"
        )
    return difference
