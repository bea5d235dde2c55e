"""The text bank: unit embeddings of every phrase, and a class score as its best phrase."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from afov.vocabulary import Vocabulary


@dataclass(frozen=True)
class TextBank:
    """Phrases of a vocabulary in CLIP's text space.

    Attributes:
        vocabulary: the classes the phrases belong to.
        embeddings: (P, E) float32, unit rows, in the order of `vocabulary.phrases`.
    """

    vocabulary: Vocabulary
    embeddings: np.ndarray

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or len(self.embeddings) != len(self.vocabulary.phrases):
            raise ValueError(
                f"text bank: {self.embeddings.shape} embeddings for "
                f"{len(self.vocabulary.phrases)} phrases"
            )

    def class_scores(self, embeddings: np.ndarray) -> np.ndarray:
        """Cosine to each labelled class: the maximum over its phrases.

        Args:
            embeddings: (N, E) float32, unit rows.

        Returns:
            (N, K) float32; column k is the class with id k + 1. Absorbers have no column.
        """
        owner = self.vocabulary.phrase_class_id
        labelled = owner > 0
        # Phrases stand class after class, so each class is one run of columns.
        similarity = embeddings @ self.embeddings[labelled].T
        starts = np.flatnonzero(np.diff(owner[labelled], prepend=0))
        return np.maximum.reduceat(similarity, starts, axis=1)
