"""What the student says of a sweep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np


class Fetched:
    """A field that is given as an array, or as what fetches it when somebody asks."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, labels: Any, owner: type) -> np.ndarray:
        if labels is None:
            raise AttributeError(self.name)  # no default
        value = labels.__dict__[self.name]
        if not isinstance(value, np.ndarray):
            value = labels.__dict__[self.name] = value()
        return value

    def __set__(self, labels: Any, value: np.ndarray | Callable[[], np.ndarray]) -> None:
        labels.__dict__[self.name] = value


@dataclass(frozen=True)
class Labels:
    """What the student says of a sweep, in the order of its points.

    Attributes:
        class_id: (N,) uint8; 0 where a point is not finite.
        score: (N,) float32, probability of that class among the vocabulary's.
        rows: (V, R) float32, unit rows, the voxels' embeddings, or what `basis` makes these of;
            inverse: (N,) int64, -1 = none. A GPU keeps both until they are asked for.
        seconds: time by part.
        instance_id: (N,) uint16, 0 = none, else counted from 1 within this sweep; None where the
            model knows no instances.
        basis: (E, R) float32, orthonormal columns, or None (afov/short_head.py).
    """

    class_id: np.ndarray
    score: np.ndarray
    rows: Fetched = Fetched()
    inverse: Fetched = Fetched()
    seconds: dict[str, float] = field(default_factory=dict)
    instance_id: np.ndarray | None = None
    basis: np.ndarray | None = None

    @cached_property
    def voxel_embedding(self) -> np.ndarray:
        """(V, E) float32, unit rows; made when somebody asks."""
        return self.rows if self.basis is None else self.rows @ self.basis.T

    @property
    def embedding(self) -> np.ndarray:
        """(N, E) float32, unit rows; zero for points that are not finite."""
        return at_points(self.voxel_embedding, self.inverse)


def at_points(rows: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Each point's row; zero (the id of unlabelled) for points without a voxel, inverse -1.

    Args:
        rows: (V, ...), one per voxel. inverse: (N,) int64.
    """
    return np.concatenate((rows, np.zeros((1, *rows.shape[1:]), rows.dtype)))[inverse]
