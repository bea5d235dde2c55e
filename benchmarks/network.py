"""The network alone: compiled, torch, spconv on the CPU; and its share of the machine's rate."""

from __future__ import annotations

from functools import partial
from unittest import mock

import numpy as np
import torch
from compare import PAPER, Row, Work, by_turns, real_sweep, run

from afov.frames import Sweep
from afov.inputs import inputs
from afov.kernel_maps import KernelMaps, kernel_maps
from afov.model_folder import ModelFolder
from afov.native import integers, vnni
from afov.runtimes import Runtime
from afov.runtimes.integer_runtime import Bits, IntegerRuntime
from afov.runtimes.native_runtime import NativeRuntime
from afov.runtimes.torch_runtime import TorchRuntime
from afov.text_bank import TextBank
from afov.unet import unet
from afov.vocabulary import Vocabulary
from afov.voxels import VoxelGrid
from afov_train.network import unet as unet_module
from afov_train.network.config import SHAPES, NetworkConfig
from afov_train.network.unet import UNet, build_network
from afov_train.student_onnx import folded


class Products:
    """The operations of the network, counted: a value is its rows and channels."""

    def __init__(self, weights: dict[str, np.ndarray], maps: KernelMaps) -> None:
        self.weights, self.maps, self.flop = weights, maps, 0.0

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.weights

    def _layer(self, name: str, pairs: int) -> None:
        cin, cout = self.weights[f"{name}.weight"].shape[-2:]
        self.flop += 2.0 * pairs * cin * cout

    def subm(self, x: int, name: str, level: int, plus: int | None = None) -> int:
        table = self.maps.stem if level < 0 else self.maps.subm[level]
        self._layer(name, int((table != len(table)).sum()))
        return x

    def down(self, x: int, name: str, level: int) -> int:
        self._layer(name, len(self.maps.up[level]))
        return len(self.maps.subm[level + 1])

    def up(self, x: int, name: str, level: int) -> int:
        self._layer(name, len(self.maps.up[level]))
        return len(self.maps.subm[level])

    def linear(self, x: int, name: str) -> int:
        self._layer(name, x)
        return x

    def join(self, x: int, skip: int) -> int:
        return x


def untrained(config: NetworkConfig, width: int) -> tuple[UNet, ModelFolder]:
    """A network with fresh weights, as spconv modules and as a model; time asks for no more."""
    torch.manual_seed(0)
    network = build_network(config, width).eval()
    vocabulary = Vocabulary.load("nuscenes16")
    text = np.random.default_rng(0).normal(size=(len(vocabulary.phrases), width))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    bank = TextBank(vocabulary, text.astype(np.float32))
    model = ModelFolder(  # type: ignore[arg-type]
        None, b"", folded(network), SHAPES[config.name], VoxelGrid(), config.inputs, bank, 0.05, {}
    )
    return network, model


def by_spconv(network: UNet, features: torch.Tensor, coords: torch.Tensor) -> torch.Tensor:
    """spconv's own modules, which the network has and on a CPU does not use."""
    with mock.patch.object(unet_module, "compiled", lambda _: False):
        return network(features, coords, 1)


def by_avx2(model: ModelFolder, bits: Bits) -> IntegerRuntime:
    """In the form for processors without VNNI."""
    runtime = IntegerRuntime(model, bits)
    runtime.vnni = False
    return runtime


@torch.inference_mode()
def rows(repeat: int) -> list[Row]:
    """Small and 34C, both over the paper's voxels."""
    raw = real_sweep()
    sweep = Sweep(raw, ("x", "y", "z", "intensity"), 0, "lidar")
    voxels = PAPER.voxelize(sweep.xyz)
    coords = torch.from_numpy(np.pad(voxels.coords, ((0, 0), (1, 0))))
    square = torch.randn(2048, 2048)
    result = []
    for config, width in ((NetworkConfig(), 128), (NetworkConfig("minkunet34c"), 512)):
        network, model = untrained(config, width)
        features = inputs(sweep, voxels, config.inputs)
        maps = kernel_maps(voxels.coords, model.shape.stem)
        count = Products(model.weights, maps)
        unet(model.shape, count, len(voxels))
        runtimes: dict[str, Runtime] = {
            "native": NativeRuntime(model),
            "torch": TorchRuntime(model),
        }
        if integers():
            runtimes |= {f"native{bits}": IntegerRuntime(model, bits) for bits in (16, 8)}
        if vnni():
            runtimes |= {f"native{bits}, AVX2": by_avx2(model, bits) for bits in (16, 8)}
        works: dict[str, Work] = {
            name: partial(runtime.run, features, maps) for name, runtime in runtimes.items()
        }
        works["spconv"] = partial(by_spconv, network, torch.from_numpy(features), coords)
        works["product"] = partial(torch.mm, square, square)
        times = by_turns(repeat, **works)
        machine = 2 * 2048**3 / np.median(times["product"])
        for name in runtimes:
            share = count.flop / np.median(times[name]) / machine
            facts = {"GFLOP": count.flop / 1e9, "share of the machine's rate": share}
            target = 0 if name == "torch" else 3
            label = f"{config.name}, {name}"
            result.append(Row(label, "spconv", times[name], times["spconv"], target, facts))
    return result


if __name__ == "__main__":
    run(rows, 9)
