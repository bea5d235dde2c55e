"""The compiled network: for CPUs, with nothing to install and no compiler at run time."""

from __future__ import annotations

import numpy as np

from afov.errors import InputError
from afov.kernel_maps import KernelMaps
from afov.model_folder import ModelFolder
from afov.native import LANES, aligned, call, library, panels
from afov.unet import unet

BLOCK = 256  # output rows that stay in the cache

# Rows of features, (V, C) float32; after a join the two halves of their channels.
Rows = tuple[np.ndarray, ...]
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
        return np.ascontiguousarray(unet(self.shape, _Sweep(self.weights, maps), rows)[0])


class _Pairs:
    """Pairs of rows that exist, (to, from), by block of output rows and then by offset."""

    def __init__(self, table: np.ndarray, missing: int) -> None:
        self.rows, self.offsets = table.shape
        self.pairs = np.empty((table.size + 1, 2), np.int32)
        self.starts = np.empty(-(-self.rows // BLOCK) * self.offsets + 1, np.int64)
        call("pairs_of", table, *table.shape, missing, BLOCK, self.pairs, self.starts)


class _Sweep:
    """The operations over one sweep's kernel maps."""

    def __init__(self, weights: Weights, maps: KernelMaps) -> None:
        self.weights = weights
        counts = [len(table) for table in maps.subm]
        self.levels = [_Pairs(table, len(table)) for table in maps.subm]
        small = maps.stem is maps.subm[0]
        self.stem = self.levels[0] if small else _Pairs(maps.stem, counts[0])
        self.children = [_Pairs(t, n) for t, n in zip(maps.down, counts, strict=False)]
        self.parents = [_Pairs(_by_child(t), -1) for t in maps.up]

    def has(self, name: str) -> bool:
        return name in self.weights

    def subm(self, x: Rows, name: str, level: int, plus: Rows | None = None) -> Rows:
        return self._layer(x, name, self.stem if level < 0 else self.levels[level], plus)

    def down(self, x: Rows, name: str, level: int) -> Rows:
        return self._layer(x, name, self.children[level])

    def up(self, x: Rows, name: str, level: int) -> Rows:
        return self._layer(x, name, self.parents[level])

    def linear(self, x: Rows, name: str) -> Rows:
        every = np.arange(len(x[0]), dtype=np.int32)[:, None]
        return self._layer(x, name, _Pairs(every, -1), relu=False)

    def join(self, x: Rows, skip: Rows) -> Rows:
        return (*x, *skip)

    def _layer(
        self, x: Rows, name: str, pairs: _Pairs, plus: Rows | None = None, *, relu: bool = True
    ) -> Rows:
        weight, bias, channels = self.weights[name]
        out = aligned(pairs.rows, len(bias))
        halves = [(h, h.strides[0] // 4, h.shape[1]) for h in x] + [(None, 0, 0)]
        call(
            "sparse_layer", *halves[0], *halves[1],
            pairs.pairs, pairs.starts, pairs.offsets, BLOCK,
            weight, bias, plus[0] if plus else None, int(relu), out, *out.shape,
        )  # fmt: skip
        return (out[:, :channels],)


def _folded(model: ModelFolder, name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Weights in panels, the bias with as many lanes, and how many channels are meant."""
    weight, bias = model.weights[f"{name}.weight"], model.weights[f"{name}.bias"]
    weight = weight.reshape(-1, *weight.shape[-2:])
    return panels(weight), np.pad(bias, (0, -len(bias) % LANES)), len(bias)


def _by_child(up: np.ndarray) -> np.ndarray:
    """(V, 8) int32: the parent, in the column of the child that a voxel is; -1 elsewhere."""
    table = np.full((len(up), 8), -1, np.int32)
    table[np.arange(len(up)), up % 8] = up // 8
    return table
