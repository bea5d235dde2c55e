"""The text bank: unit embeddings of every phrase, and a class score as its best phrase."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from afov.native import call, library
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
        # Phrases stand class after class, so each class is one run of columns.
        starts = np.append(0, self.ends[:-1])
        return np.maximum.reduceat(embeddings @ self.labelled.T, starts, axis=1)

    def rivals(self, phrase: str) -> np.ndarray:
        """(R, E) float32: the phrases of all classes but those that are called so themselves."""
        other = [phrase not in c.phrases for c in self.vocabulary.classes for _ in c.phrases]
        return self.embeddings[np.array(other, bool)]

    def probabilities(self, embeddings: np.ndarray, temperature: float) -> np.ndarray:
        """(N, E) unit rows to (N, K + 1) float32: softmax over the classes; column 0 is zero."""
        scores = self.class_scores(embeddings)
        result = np.zeros((len(scores), scores.shape[1] + 1), np.float32)
        result[:, 1:] = softmax(scores, temperature)
        return result

    def classify(self, rows: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest class of each embedding; the rows become unit rows in place.

        Args:
            rows: (N, E) float32, contiguous.

        Returns:
            (N,) uint8 class ids; (N,) float32 probabilities.
        """
        class_id, score = np.zeros(len(rows), np.uint8), np.zeros(len(rows), np.float32)
        if library() is None:
            rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
            likely = self.probabilities(rows, temperature)
            return likely.argmax(1).astype(np.uint8), likely.max(1, initial=0)
        ends = self.ends
        call(
            "classify", rows, *rows.shape, self.labelled, ends, len(ends), temperature,
            class_id, score,
        )  # fmt: skip
        return class_id, score

    @cached_property
    def labelled(self) -> np.ndarray:
        """(L, E) float32: the phrases that belong to a class, class after class; no absorbers."""
        chosen = self.embeddings[self.vocabulary.phrase_class_id > 0]
        return np.ascontiguousarray(chosen, np.float32)

    @cached_property
    def ends(self) -> np.ndarray:
        """(K,) int64: where each class's run of phrases ends."""
        owner = self.vocabulary.phrase_class_id
        return np.flatnonzero(np.diff(owner[owner > 0], append=0)) + 1


def softmax(scores: np.ndarray, temperature: float) -> np.ndarray:
    """(N, K) cosines to (N, K) probabilities."""
    logits = scores / temperature
    likely = np.exp(logits - logits.max(1, keepdims=True, initial=-np.inf))
    share: np.ndarray = likely / likely.sum(1, keepdims=True)
    return share
