"""The compiled network: for CPUs, with nothing to install and no compiler at run time."""

from __future__ import annotations

from collections.abc import Sized
from typing import Generic, TypeVar

import numpy as np

from afov.errors import InputError
from afov.kernel_maps import KernelMaps
from afov.model_folder import ModelFolder
from afov.native import LANES, aligned, call, library, panels
from afov.unet import unet

BLOCK = 128  # output rows that stay in the cache

Half = TypeVar("Half", bound=Sized)
Weights = dict[str, tuple[np.ndarray, np.ndarray, int]]


class NativeRuntime:
    """The student's flow on afov/native/network.cpp, on all cores.

    Raises:
        InputError: the library was not built.
    """

    name = "native"

    def __init__(self, model: ModelFolder) -> None:
        if library() is None:
            raise InputError(
                "runtime 'native': the compiled library was not built; install afov where a C++ "
                "compiler is, or use runtime 'torch' or 'onnxruntime'"
            )
        call("keep_memory")
        self.shape = model.shape
        names = [name.removesuffix(".weight") for name in model.weights if name.endswith(".weight")]
        self.weights: Weights = {name: _folded(model, name) for name in names}

    def run(self, features: np.ndarray, maps: KernelMaps) -> np.ndarray:
        """(V, C) float32 features to (V, E) float32 embeddings."""
        rows = (np.ascontiguousarray(features, np.float32),)
        return np.ascontiguousarray(unet(self.shape, _Floats(self.weights, maps), rows)[0])


class Pairs:
    """Pairs of rows that exist, (to, from), by block of output rows and then by offset.

    Args:
        table: (V, K) int32, `missing` where there is none; or `KernelMaps.up`, (V,).
    """

    def __init__(self, table: np.ndarray, missing: int = -1) -> None:
        self.rows, self.offsets = table.shape if table.ndim == 2 else (len(table), 8)
        # Few rows in smaller blocks, or threads would wait for the last one.
        self.block = min(max(self.rows // 16, 32), BLOCK)
        blocks = -(-self.rows // self.block)
        self.pairs = np.empty((self.rows * self.offsets, 2), np.int32)
        self.starts = np.empty((blocks, self.offsets + 1), np.int64)
        self.reach = np.empty((blocks, 2), np.int32)  # first and last row that a block reads
        arrays = self.pairs, self.starts, self.reach
        if table.ndim == 2:
            call("pairs_of", table, *table.shape, missing, self.block, *arrays)
        else:
            call("pairs_of_parents", table, len(table), self.block, *arrays)
        self.where = (*(array.ctypes.data for array in arrays), self.offsets)


class Layers(Generic[Half]):
    """The operations over one sweep's kernel maps; a value is the halves of its channels."""

    def __init__(self, maps: KernelMaps) -> None:
        counts = [len(table) for table in maps.subm]
        self.levels = [Pairs(table, len(table)) for table in maps.subm]
        small = maps.stem is maps.subm[0]
        self.stem = self.levels[0] if small else Pairs(maps.stem, counts[0])
        self.children = [Pairs(t, n) for t, n in zip(maps.down, counts, strict=False)]
        self.parents = [Pairs(t) for t in maps.up]
        self.same = {n: Pairs(np.arange(n, dtype=np.int32)[:, None]) for n in counts}

    def layer(
        self,
        x: tuple[Half, ...],
        name: str,
        pairs: Pairs,
        plus: tuple[Half, ...] | None,
        relu: bool,
    ) -> Half:
        """relu(bias + plus + a product per offset)."""
        raise NotImplementedError

    def subm(
        self, x: tuple[Half, ...], name: str, level: int, plus: tuple[Half, ...] | None = None
    ) -> tuple[Half, ...]:
        pairs = self.stem if level < 0 else self.levels[level]
        return (self.layer(x, name, pairs, plus, True),)

    def down(self, x: tuple[Half, ...], name: str, level: int) -> tuple[Half, ...]:
        return (self.layer(x, name, self.children[level], None, True),)

    def up(self, x: tuple[Half, ...], name: str, level: int) -> tuple[Half, ...]:
        return (self.layer(x, name, self.parents[level], None, True),)

    def linear(self, x: tuple[Half, ...], name: str) -> tuple[Half, ...]:
        return (self.layer(x, name, self.same[len(x[0])], None, False),)

    def join(self, x: tuple[Half, ...], skip: tuple[Half, ...]) -> tuple[Half, ...]:
        return (*x, *skip)

    def has(self, name: str) -> bool:
        raise NotImplementedError


class _Floats(Layers[np.ndarray]):
    """In float32; a half is (V, C), its rows padded to a multiple of 8."""

    def __init__(self, weights: Weights, maps: KernelMaps) -> None:
        super().__init__(maps)
        self.weights = weights

    def has(self, name: str) -> bool:
        return name in self.weights

    def layer(
        self,
        x: tuple[np.ndarray, ...],
        name: str,
        pairs: Pairs,
        plus: tuple[np.ndarray, ...] | None,
        relu: bool,
    ) -> np.ndarray:
        weight, bias, channels = self.weights[name]
        out = aligned(pairs.rows, len(bias))
        halves = [(h, h.strides[0] // 4, h.shape[1]) for h in x] + [(None, 0, 0)]
        call(
            "sparse_layer", *halves[0], *halves[1],
            pairs.pairs, pairs.starts, pairs.offsets, pairs.block,
            weight, bias, plus[0] if plus else None, int(relu), out, *out.shape,
        )  # fmt: skip
        return out[:, :channels]


def _folded(model: ModelFolder, name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Weights in panels, the bias with as many lanes, and how many channels are meant."""
    weight, bias = model.weights[f"{name}.weight"], model.weights[f"{name}.bias"]
    weight = weight.reshape(-1, *weight.shape[-2:])
    return panels(weight), np.pad(bias, (0, -len(bias) % LANES)), len(bias)
