"""Which network: the small default, or the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from afov.unet import Shape


@dataclass(frozen=True)
class NetworkConfig:
    """The student.

    `small` has about 2 million weights and fits a laptop; `minkunet34c` is the paper's
    Res16UNet34C.
    """

    name: Literal["small", "minkunet34c"] = "small"
    inputs: tuple[str, ...] = ("intensity", "rho", "z")
    """A voxel's features: intensity (the paper's only one), rho, x, y, z."""
    norm_momentum: float = 0.1
    """Of the batch statistics (the paper: 0.05)."""


SHAPES = {
    "small": Shape(3, 24, (24, 48, 80, 112, 80, 64, 48, 48), (1, 1, 1, 1, 1, 1, 1, 1)),
    "minkunet34c": Shape(5, 32, (32, 64, 128, 256, 256, 128, 96, 96), (2, 3, 4, 6, 2, 2, 2, 2)),
}
