"""The compiled network in 16-bit integers: nearly twice as fast where float32 is at its limit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from afov.errors import InputError
from afov.kernel_maps import KernelMaps, kernel_maps
from afov.model_folder import ModelFolder
from afov.native import LANES, PANEL, aligned, call, integers
from afov.runtimes.native_runtime import BLOCK, Layers, Pairs
from afov.unet import unet

ACTIVATION = 8191  # the largest, as afov/native/network16.cpp has it


@dataclass(frozen=True)
class Rows:
    """Rows of features: in float32, and as integers times a scale per row where they go on.

    Attributes:
        floats: (V, P) float32, the channels padded to a multiple of 8.
        integers: (V, P) int16; scale: (V,) float32.
        channels: how many are meant.
    """

    floats: np.ndarray
    integers: np.ndarray
    scale: np.ndarray
    channels: int

    def __len__(self) -> int:
        return len(self.floats)


@dataclass(frozen=True)
class Weights:
    """One layer's: (K, panels, Cin / 2, 16, 2) int16, a scale and a bias per column."""

    integers: np.ndarray
    scale: np.ndarray
    bias: np.ndarray


class IntegerRuntime:
    """The student's flow on afov/native/network16.cpp, on all cores.

    Raises:
        InputError: the library was not built, or the processor lacks AVX2.
    """

    name = "native16"

    def __init__(self, model: ModelFolder) -> None:
        if not integers():
            raise InputError(
                "runtime 'native16': needs the compiled library and a processor with AVX2; use "
                "runtime 'native', 'torch' or 'onnxruntime'"
            )
        call("keep_memory")
        self.model = model
        self.weights: dict[str, Weights] = {}
        # One voxel goes through, and every layer's weights are laid out.
        channels = model.weights["stem.weight"].shape[1]
        self.run(
            np.zeros((1, channels), np.float32),
            kernel_maps(np.zeros((1, 3), np.int32), model.shape.stem),
        )

    def run(self, features: np.ndarray, maps: KernelMaps) -> np.ndarray:
        """(V, C) float32 features to (V, E) float32 embeddings."""
        channels = features.shape[1]
        floats = np.pad(features, ((0, 0), (0, -channels % LANES)))
        rows = _empty(len(floats), floats.shape[1], channels)
        call("quantize_rows", floats, *floats.shape, rows.integers, rows.scale)
        (out,) = unet(self.model.shape, _Integers(self.model, self.weights, maps), (rows,))
        return np.ascontiguousarray(out.floats[:, : out.channels])


class _Integers(Layers[Rows]):
    """Products in integers, everything between them in float32."""

    def __init__(self, model: ModelFolder, weights: dict[str, Weights], maps: KernelMaps) -> None:
        super().__init__(maps)
        self.model, self.weights = model, weights

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.model.weights

    def layer(
        self, x: tuple[Rows, ...], name: str, pairs: Pairs, plus: Rows | None, relu: bool
    ) -> Rows:
        channels = self.model.weights[f"{name}.bias"].shape[0]
        if name not in self.weights:
            self.weights[name] = _quantized(self.model, name, [half.channels for half in x])
        weights = self.weights[name]
        out = _empty(pairs.rows, len(weights.bias), channels)
        halves = [
            (half.integers, half.scale, half.integers.shape[1], half.channels + half.channels % 2)
            for half in x
        ] + [(None, None, 0, 0)]  # fmt: skip
        call(
            "sparse_layer16", *halves[0], *halves[1],
            pairs.pairs, pairs.starts, pairs.offsets, BLOCK,
            weights.integers, weights.scale, weights.bias,
            None if plus is None else plus.floats, int(relu),
            out.floats, out.integers, out.scale, *out.floats.shape,
        )  # fmt: skip
        return out


def _empty(rows: int, width: int, channels: int) -> Rows:
    integers = aligned(rows, width // 2).view(np.int16).reshape(rows, width)
    return Rows(aligned(rows, width), integers, np.empty(rows, np.float32), channels)


def _quantized(model: ModelFolder, name: str, halves: list[int]) -> Weights:
    """A layer's weights as integers, as large as sums in 32 bits allow.

    Args:
        halves: channels of each half of the input; each is padded to an even number.
    """
    weight, bias = model.weights[f"{name}.weight"], model.weights[f"{name}.bias"]
    weight = weight.reshape(-1, *weight.shape[-2:])
    parts = np.split(weight, np.cumsum(halves)[:-1], axis=1)
    even = np.concatenate([np.pad(p, ((0, 0), (0, p.shape[1] % 2), (0, 0))) for p in parts], 1)
    # Rounding may add half a step per channel to the sum of a column.
    room = (2**31 - 1) / ACTIVATION - even.shape[1]
    sums = np.abs(even).sum(1).max(0)
    scale = np.maximum(np.maximum(sums / room, np.abs(even).max((0, 1)) / 32767), 1e-30)
    whole = np.rint(even / scale).astype(np.int16)
    offsets, channels, width = whole.shape
    wide = np.pad(whole, ((0, 0), (0, 0), (0, -width % PANEL)))
    split = wide.reshape(offsets, channels // 2, 2, -1, PANEL).transpose(0, 3, 1, 4, 2)
    lanes = (0, -width % LANES)
    return Weights(
        np.ascontiguousarray(split),
        np.pad(scale, lanes).astype(np.float32),
        np.pad(bias, lanes).astype(np.float32),
    )
