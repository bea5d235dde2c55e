"""The compiled network in integers of 16 or 8 bits, twice and three times the rate of float32."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from afov.errors import InputError
from afov.kernel_maps import KernelMaps, kernel_maps
from afov.model_folder import ModelFolder
from afov.native import LANES, PANEL, aligned, call, integers, vnni
from afov.runtimes.native_runtime import Layers, Pairs
from afov.unet import unet

Bits = Literal[8, 16]
FLOATS = 32
# As afov/native/integers_*.cpp have them: the largest activation and weight; channels of a step,
# and those of a word of it.
ACTIVATION = {8: 127, 16: 8191}
WEIGHT = {8: 63, 16: 32767}
STEP, WORD = {8: 8, 16: 2}, {8: 4, 16: 2}
SOURCES = 3


class Rows(NamedTuple):
    """Where rows of features lie: integers times a scale per row.

    Attributes:
        integers: address of (V, P) int16 or uint8, the channels padded to a multiple of 8;
            scale: of (V,) float32. With 32 bits `integers` are (V, channels) float32.
        number, width, bits: V, P and of each number.
        channels: how many are meant.
        layer: the layer that gives them; -1 for the network's input.
        through: the linear layer that they still have to go through.
    """

    integers: int
    scale: int
    number: int
    width: int
    bits: int
    channels: int
    layer: int
    through: str = ""


class Source(NamedTuple):
    """Rows that a layer reads, the weights (`name`) and the pairs that they go through."""

    rows: Rows
    name: str
    pairs: Pairs


@dataclass(frozen=True)
class Weights:
    """One layer's.

    Attributes:
        sources: for each (panels, K, steps, words, 16, a word's channels) int16 or int8.
        rescale: for each but the first (panels * 16,) float32, what brings the sums of the
            sources before it to its scale.
        scale, bias: (P,) float32, the last one's scale per column, padded to a multiple of 8;
            `channels` are meant.
        where: address, steps and rescale of each source; columns: addresses of scale and bias.
    """

    sources: tuple[np.ndarray, ...]
    rescale: tuple[np.ndarray, ...]
    scale: np.ndarray
    bias: np.ndarray
    channels: int

    @cached_property
    def where(self) -> list[tuple[int, int, int]]:
        ratios = [0, *(ratio.ctypes.data for ratio in self.rescale)]
        both = zip(self.sources, ratios, strict=True)
        return [(weight.ctypes.data, weight.shape[2], ratio) for weight, ratio in both]

    @cached_property
    def columns(self) -> tuple[int, int]:
        return self.scale.ctypes.data, self.bias.ctypes.data


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
        self.vnni = vnni()  # the same to the bit, sooner
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
        number, width = floats.shape
        where = Rows(whole.ctypes.data, scale.ctypes.data, number, width, 16, channels, -1)
        return layers.floats(unet(self.model.shape, layers, (where,)))

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
        self.kept: list[np.ndarray] = []  # what the records know only the place of

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.runtime.model.weights

    def linear(self, x: tuple[Rows, ...], name: str) -> tuple[Rows, ...]:
        """Goes into the layer that it is added to."""
        return tuple(half._replace(through=name) for half in x)

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
        records = np.array(self.records, np.int64)
        call("integer_network", records, len(records), int(self.runtime.vnni))
        return self.kept[-1][: out.number * out.channels].reshape(out.number, out.channels)

    def _through(self, x: tuple[Rows, ...]) -> list[Source]:
        return [Source(half, half.through, self.same[half.number]) for half in x]

    def _write(self, sources: list[Source], plus: Rows | None, bits: int) -> Rows:
        weights, (_, _, pairs) = self.runtime.weights_of(sources), sources[0]
        rows, width, channels = pairs.rows, len(weights.bias), weights.channels
        numbers = rows * width * bits // FLOATS
        memory = np.empty(numbers + rows, np.float32)
        begin = memory.ctypes.data
        out = Rows(begin, begin + 4 * numbers, rows, width, bits, channels, len(self.records))
        record: list[int] = []
        for (x, _, read), (weight, steps, ratio) in zip(sources, weights.where, strict=True):
            row = x.width * x.bits // 8
            record += [x.integers, x.scale, row, steps, *read.where, weight, ratio, x.layer, x.bits]
        record += [0] * (len(record) // len(sources) * (SOURCES - len(sources)))
        record += [*weights.columns, plus.integers if plus else 0, plus.scale if plus else 0]
        record += [out.integers, out.scale, rows, width, channels, pairs.block, bits]
        self.records.append(record)
        self.kept.append(memory)
        return out


def _quantized(model: ModelFolder, sources: list[Source], bits: Bits) -> Weights:
    """A layer's weights as integers, a scale for each source and column."""
    parts: list[np.ndarray] = []
    scales: list[np.ndarray] = []
    biases: dict[str, np.ndarray] = {}
    taken: dict[str, int] = {}  # channels of a weight that sources before had
    for name, channels in ((source.name, source.rows.channels) for source in sources):
        weight, first = model.weights[f"{name}.weight"], taken.get(name, 0)
        taken[name] = first + channels
        part = weight.reshape(-1, *weight.shape[-2:])[:, first : first + channels]
        part = np.pad(part, ((0, 0), (0, -channels % STEP[bits]), (0, 0)))
        scale = _scale(part, bits)
        parts.append(_panels(np.rint(part / scale), bits))
        scales.append(np.pad(scale, (0, -len(scale) % PANEL), constant_values=1).astype(np.float32))
        biases[name] = model.weights[f"{name}.bias"]
    bias = np.sum(list(biases.values()), 0)
    rescale = tuple(before / scale for before, scale in pairwise(scales))
    padded = np.pad(bias, (0, -len(bias) % LANES))
    return Weights(tuple(parts), rescale, scales[-1], padded, len(bias))


def _scale(weight: np.ndarray, bits: Bits) -> np.ndarray:
    """(Cout,): a column's step, so that its integers are as large as they may be."""
    # Rounding may add half a step per channel to the sum of a column.
    room = (2**31 - 1) / ACTIVATION[bits] - weight.shape[1]
    largest = np.abs(weight).max((0, 1)) / WEIGHT[bits]
    return np.maximum(np.maximum(largest, np.abs(weight).sum(1).max(0) / room), 1e-12)


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
