"""What a teacher says of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from afov.text_bank import TextBank


@dataclass(frozen=True)
class Segments:
    """Segments of one image.

    Attributes:
        ids: (H, W) uint16; 0 = none, k = the k-th segment, from 1.
        phrase: (S,) int64, index into the text bank's phrases.
        score: (S,) float32, mean probability of the phrase's class.
        feature: (S, E) float32, unit rows in CLIP space.
    """

    ids: np.ndarray
    phrase: np.ndarray
    score: np.ndarray
    feature: np.ndarray


def class_scores(share: np.ndarray, phrase: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """(S,) the probability of each segment's class: synonyms do not compete.

    Args:
        share: (S, P) probabilities. phrase: (S,) the chosen ones. owner: (P,) class per phrase.
    """
    return np.where(owner[phrase][:, None] == owner, share, 0).sum(1)


class Teacher(Protocol):
    """A frozen 2D model."""

    @property
    def key(self) -> str:
        """Changes with everything that its answers depend on."""
        ...

    @property
    def text_bank(self) -> TextBank:
        """The vocabulary in the model's CLIP space."""
        ...

    def segments(self, image: np.ndarray, *, token: str, camera: str) -> Segments:
        """Segments of an image (H, W, 3) uint8; token and camera name it."""
        ...
