"""Which network: the small default, or the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class NetworkConfig:
    """The student.

    `small` has about 2 million weights and fits a laptop; `minkunet34c` is the paper's
    Res16UNet34C.
    """

    name: Literal["small", "minkunet34c"] = "small"
    inputs: tuple[str, ...] = ("intensity", "rho", "z")
    """A voxel's features, of its representative point: intensity, rho, z, x, y (the paper: intensity)."""


@dataclass(frozen=True)
class Shape:
    """Res16UNet's numbers.

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


SHAPES = {
    "small": Shape(3, 24, (24, 48, 96, 128, 96, 64, 48, 48), (1, 1, 1, 1, 1, 1, 1, 1)),
    "minkunet34c": Shape(
        5, 32, (32, 64, 128, 256, 256, 128, 96, 96), (2, 3, 4, 6, 2, 2, 2, 2)
    ),
}
