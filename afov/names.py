"""What masks may be called: the classes asked for, and their rivals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from afov.text_bank import TextBank, softmax
from afov.vocabulary import Category


@dataclass(frozen=True)
class Names:
    """What masks may be called: K classes that are asked for, and R rivals.

    The rivals are the model's own classes that are none of those asked for. They take masks and
    voxels from the others and label nothing: else a vocabulary of one class would be true of
    everything. An own class is asked for where a phrase of it is, or one that is nearer to it than
    any other own class: what the model knows as a car may be called an automobile.

    Attributes:
        text_bank: of the classes asked for. own: of those that the model learned among.
        temperature: of the softmax over all.
    """

    text_bank: TextBank
    own: TextBank
    temperature: float

    @cached_property
    def rival(self) -> np.ndarray:
        """(own classes,) bool."""
        asked = set(self.text_bank.vocabulary.phrases)
        other = np.array([asked.isdisjoint(c.phrases) for c in self.own.vocabulary.labelled])
        own = self.own.vocabulary.phrase_class_id
        between = self.own.class_scores(self.own.labelled)  # of each phrase and each class
        between[np.arange(len(between)), own[own > 0] - 1] = -1
        near = self.own.class_scores(self.text_bank.labelled).max(0)
        return other & (near <= between.max(0))

    @cached_property
    def classes(self) -> tuple[Category, ...]:
        """K + R, in this order."""
        own = self.own.vocabulary.labelled
        rivals = (own[i] for i in np.flatnonzero(self.rival))
        return (*self.text_bank.vocabulary.labelled, *rivals)

    @cached_property
    def thing(self) -> np.ndarray:
        """(K + R,) bool."""
        return np.array([c.thing for c in self.classes])

    def learned(self, base: Sequence[str]) -> np.ndarray:
        """(K + R,) bool: what shares a phrase with a class of the model's own of these names."""
        own = self.own.vocabulary.labelled
        phrases = {p for c in own if c.name in base for p in c.phrases}
        return np.array([not phrases.isdisjoint(c.phrases) for c in self.classes])

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """(N, E) unit rows to (N, K + R) float32: cosine to each class, by its best phrase."""
        asked, own = (bank.class_scores(rows) for bank in (self.text_bank, self.own))
        return np.hstack((asked, own[:, self.rival]))

    def probabilities(self, rows: np.ndarray) -> np.ndarray:
        """(N, E) unit rows to (N, K + R) float32: softmax over the classes."""
        return softmax(self.scores(rows), self.temperature)
