"""The compiled network in integers of 16 or 8 bits, twice and three times the rate of float32."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from afov.errors import InputError
from afov.kernel_maps import KernelMaps, kernel_maps
from afov.model_folder import ModelFolder
from afov.native import LANES, PANEL, aligned, call, integers
from afov.runtimes.native_runtime import Layers, Pairs
from afov.unet import unet

Bits = Literal[8, 16]
FLOATS = 32
# As afov/native/integers.cpp has them: the largest activation and weight; channels of a step, and
# those of a word of it.
ACTIVATION = {8: 127, 16: 8191}
WEIGHT = {8: 63, 16: 32767}
STEP, WORD = {8: 8, 16: 2}, {8: 4, 16: 2}
SOURCES = 3
DTYPE = {8: np.uint8, 16: np.int16, FLOATS: np.float32}


@dataclass(frozen=True)
class Rows:
    """Rows of features as integers times a scale per row.

    Attributes:
        integers: (V, P) int16 or uint8, the channels padded to a multiple of 8; scale: (V,)
            float32.
        channels: how many are meant.
        layer: the layer that gives them; -1 for the network's input.
        through: the linear layer that they still have to go through.
    """

    integers: np.ndarray
    scale: np.ndarray
    channels: int
    layer: int
    through: str = ""

    def __len__(self) -> int:
        return len(self.integers)

    @property
    def bits(self) -> int:
        """Of a number."""
        return 8 * self.integers.itemsize


@dataclass(frozen=True)
class Source:
    """Rows that a layer reads, the weights (`name`) and the pairs that they go through."""

    rows: Rows
    name: str
    pairs: Pairs


@dataclass(frozen=True)
class Weights:
    """One layer's.

    Attributes:
        sources: for each (panels, K, steps, words, 16, a word's channels) int16 or int8.
        scale, bias: (P,) float32, per column, padded to a multiple of 8; `channels` are meant.
    """

    sources: tuple[np.ndarray, ...]
    scale: np.ndarray
    bias: np.ndarray
    channels: int


class IntegerRuntime:
    """The student's flow on afov/native/integers.cpp, on all cores.

    Args:
        bits: of activations and weights; the first layer's are always 16.

    Raises:
        InputError: the library was not built, or the processor lacks AVX2.
    """

    def __init__(self, model: ModelFolder, bits: Bits = 16) -> None:
        self.name = f"native{bits}"
        if not integers():
            raise InputError(
                f"runtime {self.name!r}: needs the compiled library and a processor with AVX2; use "
                "runtime 'native', 'torch' or 'onnxruntime'"
            )
        call("keep_memory")
        self.model, self.bits = model, bits
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
        whole, scale = np.empty(floats.shape, np.int16), np.empty(len(floats), np.float32)
        call("quantize_rows", floats, *floats.shape, whole, scale)
        layers = _Integers(self, maps)
        return layers.floats(unet(self.model.shape, layers, (Rows(whole, scale, channels, -1),)))

    def weights_of(self, sources: list[Source]) -> Weights:
        """A layer's weights, laid out the first time that they are asked for."""
        name, bits = sources[0].name, sources[0].rows.bits
        if name not in self.weights:
            self.weights[name] = _quantized(self.model, sources, 8 if bits == 8 else 16)
        return self.weights[name]


class _Integers(Layers[Rows]):
    """Layers are written down one after the other, and worked off in one call."""

    def __init__(self, runtime: IntegerRuntime, maps: KernelMaps) -> None:
        super().__init__(maps)
        self.runtime = runtime
        self.records: list[list[int]] = []  # integers.cpp's Layer
        self.kept: list[Rows] = []

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.runtime.model.weights

    def linear(self, x: tuple[Rows, ...], name: str) -> tuple[Rows, ...]:
        """Goes into the layer that it is added to."""
        return tuple(replace(half, through=name) for half in x)

    def layer(
        self,
        x: tuple[Rows, ...],
        name: str,
        pairs: Pairs,
        plus: tuple[Rows, ...] | None,
        relu: bool,
    ) -> Rows:
        sources = [Source(half, name, pairs) for half in x]
        if plus and plus[0].through:
            return self._write(sources + self._through(plus), None, self.runtime.bits)
        return self._write(sources, plus[0] if plus else None, self.runtime.bits)

    def floats(self, x: tuple[Rows, ...]) -> np.ndarray:
        """(V, E) float32: all layers worked off, down to the linear one that x goes through."""
        out = self._write(self._through(x), None, FLOATS)
        call("integer_network", np.array(self.records, np.int64), len(self.records))
        return out.integers

    def _through(self, x: tuple[Rows, ...]) -> list[Source]:
        return [Source(half, half.through, self.same[len(half)]) for half in x]

    def _write(self, sources: list[Source], plus: Rows | None, bits: int) -> Rows:
        weights, pairs = self.runtime.weights_of(sources), sources[0].pairs
        channels, width = weights.channels, len(weights.bias)
        columns = channels if bits == FLOATS else width
        out = Rows(
            np.empty((pairs.rows, columns), DTYPE[bits]),
            np.empty(pairs.rows, np.float32),
            channels,
            len(self.records),
        )
        record = []
        for source, weight in zip(sources, weights.sources, strict=True):
            rows, read = source.rows, source.pairs
            record += [
                *_addresses(rows.integers, rows.scale), rows.integers.strides[0], weight.shape[2],
                *_addresses(read.pairs, read.starts, read.reach), read.offsets,
                *_addresses(weight), rows.layer, rows.bits,
            ]  # fmt: skip
        record += [0] * (SOURCES * len(record) // len(sources) - len(record))
        record += _addresses(weights.scale, weights.bias)
        record += _addresses(plus.integers, plus.scale) if plus else [0, 0]
        record += _addresses(out.integers, out.scale)
        record += [pairs.rows, width, channels, pairs.block, bits]
        self.records.append(record)
        self.kept.append(out)  # the records know only where it lies
        return out


def _addresses(*arrays: np.ndarray) -> list[int]:
    return [array.ctypes.data for array in arrays]


def _quantized(model: ModelFolder, sources: list[Source], bits: Bits) -> Weights:
    """A layer's weights as integers, as large as exact sums allow, on a scale that all its sources
    share."""
    parts: list[np.ndarray] = []
    biases: dict[str, np.ndarray] = {}
    taken: dict[str, int] = {}  # channels of a weight that sources before had
    for name, channels in ((source.name, source.rows.channels) for source in sources):
        weight, first = model.weights[f"{name}.weight"], taken.get(name, 0)
        taken[name] = first + channels
        part = weight.reshape(-1, *weight.shape[-2:])[:, first : first + channels]
        parts.append(np.pad(part, ((0, 0), (0, -channels % STEP[bits]), (0, 0))))
        biases[name] = model.weights[f"{name}.bias"]
    scale = np.full(parts[0].shape[2], 1e-30)
    for part in parts:
        # Rounding may add half a step per channel to the sum of a column.
        room = (2**31 - 1) / ACTIVATION[bits] - part.shape[1]
        scale = np.maximum(scale, np.abs(part).sum(1).max(0) / room)
        scale = np.maximum(scale, np.abs(part).max((0, 1)) / WEIGHT[bits])
    lanes = (0, -len(scale) % LANES)
    return Weights(
        tuple(_panels(np.rint(part / scale), bits) for part in parts),
        np.pad(scale, lanes).astype(np.float32),
        np.pad(np.sum(list(biases.values()), 0), lanes),
        len(scale),
    )


def _panels(whole: np.ndarray, bits: Bits) -> np.ndarray:
    """(K, Cin, Cout) whole numbers to (panels, K, steps, words, 16, a word's channels)."""
    offsets, channels, width = whole.shape
    wide = np.pad(whole, ((0, 0), (0, 0), (0, -width % PANEL)))
    word, words = WORD[bits], STEP[bits] // WORD[bits]
    split = wide.reshape(offsets, channels // STEP[bits], words, word, -1, PANEL)
    split = split.transpose(4, 0, 1, 2, 5, 3)
    result = aligned(split.size * bits // 8 // 4, 1).view(f"i{bits // 8}").reshape(split.shape)
    result[:] = split
    return result
