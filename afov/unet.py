"""The student's flow, written once; runtimes and the exporter give it their operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

T = TypeVar("T")
STRIDES = 4


@dataclass(frozen=True)
class Shape:
    """Res16UNet's numbers (Choy et al. 2019).

    Attributes:
        stem: kernel of the first convolution.
        stem_planes: its channels.
        planes: channels of the four encoder and the four decoder levels.
        layers: residual blocks in each.
    """

    stem: int
    stem_planes: int
    planes: tuple[int, ...]
    layers: tuple[int, ...]


class Operations(Protocol[T]):
    """What the network is made of, BatchNorm folded into the weights called `name`."""

    def subm(self, x: T, name: str, level: int, plus: T | None = None) -> T:
        """relu(submanifold convolution (+ plus)); level -1 is the stem's own map."""
        ...

    def down(self, x: T, name: str, level: int) -> T:
        """relu(convolution with stride 2 from `level` to `level + 1`)."""
        ...

    def up(self, x: T, name: str, level: int) -> T:
        """relu(inverse convolution back to `level`)."""
        ...

    def linear(self, x: T, name: str) -> T:
        """x W + b."""
        ...

    def join(self, x: T, skip: T) -> T:
        """Channels side by side."""
        ...

    def has(self, name: str) -> bool:
        """Whether there are weights of that name."""
        ...


def unet(shape: Shape, ops: Operations[T], x: T) -> T:
    """Voxel features to embeddings."""
    x = ops.subm(x, "stem", -1)
    skips = []
    for level in range(STRIDES):
        skips.append(x)
        x = ops.down(x, f"down.{level}", level)
        for block in range(shape.layers[level]):
            x = _residual(ops, x, f"encode.{level}.{block}", level + 1)
    for i in range(STRIDES):
        level = STRIDES - 1 - i
        x = ops.join(ops.up(x, f"up.{i}", level), skips.pop())
        for block in range(shape.layers[STRIDES + i]):
            x = _residual(ops, x, f"decode.{i}.{block}", level)
    return ops.linear(x, "head")


def _residual(ops: Operations[T], x: T, name: str, level: int) -> T:
    shortcut = ops.linear(x, f"{name}.shortcut") if ops.has(f"{name}.shortcut") else x
    return ops.subm(ops.subm(x, f"{name}.first", level), f"{name}.second", level, shortcut)


def check_weights(
    shape: Shape, weights: dict[str, np.ndarray], channels: int, embedding: int
) -> None:
    """Sends widths through the network in place of features.

    Raises:
        ValueError: a weight is missing, does not fit, or has no place.
    """
    if len(shape.planes) != 2 * STRIDES or len(shape.layers) != 2 * STRIDES or shape.stem % 2 != 1:
        raise ValueError(f"{shape}, expected an odd stem, {2 * STRIDES} planes and layers")
    ops = _Widths(shape, weights)
    width = unet(shape, ops, channels)
    if width != embedding:
        raise ValueError(f"the head is {width} wide, the text bank {embedding}")
    left = sorted(set(weights) - ops.used)
    if left:
        raise ValueError(f"weight {left[0]} has no place in the network")


class _Widths:
    """The operations on numbers of channels."""

    def __init__(self, shape: Shape, weights: dict[str, np.ndarray]) -> None:
        self.shape, self.weights = shape, weights
        self.used: set[str] = set()

    def _width(self, name: str, *into: int) -> int:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        self.used |= {f"{name}.weight", f"{name}.bias"}
        if weight.shape != (*into, len(bias)) or bias.ndim != 1:
            expected = " x ".join(map(str, into))
            raise ValueError(f"weight {name} is {weight.shape}, expected {expected} x {bias.shape}")
        if weight.dtype != np.float32 or bias.dtype != np.float32:
            raise ValueError(f"weight {name} is {weight.dtype}, expected float32")
        return len(bias)

    def subm(self, x: int, name: str, level: int, plus: int | None = None) -> int:
        width = self._width(name, self.shape.stem**3 if level < 0 else 27, x)
        if plus not in (None, width):
            raise ValueError(f"weight {name} gives {width} channels, its shortcut {plus}")
        return width

    def down(self, x: int, name: str, level: int) -> int:
        return self._width(name, 8, x)

    up = down

    def linear(self, x: int, name: str) -> int:
        return self._width(name, x)

    def join(self, x: int, skip: int) -> int:
        return x + skip

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.weights
