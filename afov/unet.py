"""The student's flow, written once; runtimes and the exporter give it their operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

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
