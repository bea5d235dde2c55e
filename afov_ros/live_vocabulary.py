"""The vocabulary of the moment: the student under it, and its change from one sweep to the next."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from afov.errors import InputError
from afov.student import Student
from afov.text_bank import TextBank
from afov.text_tower import TextTower
from afov.vocabulary import Vocabulary

MOST_PHRASES = 2000  # a thousandth of a second a phrase and sweep, on a small processor


@dataclass(frozen=True)
class Language:
    """A student under one vocabulary; a sweep is labelled with one of these and no other.

    Attributes:
        version: 1 for the first since the model was opened; goes up by one with each change.
    """

    student: Student
    version: int


class LiveVocabulary:
    """Changes the vocabulary; sweeps meanwhile go on under the old one.

    Args:
        student: as its model folder was trained.
    """

    def __init__(self, student: Student) -> None:
        self.trained = student
        self.current = Language(student, 1)
        self._tower: TextTower | None = None
        self._closed = False
        self._lock, self._opening = threading.Lock(), threading.Lock()

    def begin_with(self, wanted: str | tuple[str, ...]) -> None:
        """The vocabulary of the parameter, before anyone listens.

        Raises:
            InputError: as `bank`.
        """
        self.current = Language(self.trained.with_text_bank(self.bank(wanted)), 1)

    def bank(self, wanted: str | tuple[str, ...] | Vocabulary) -> TextBank:
        """A vocabulary in CLIP space: a file, a preset, phrases, or "" and () for the trained one.

        Raises:
            InputError: no vocabulary, or the model folder has no text tower to embed it.
        """
        if not wanted:
            return self.trained.text_bank
        if isinstance(wanted, str):
            wanted = Vocabulary.load(wanted)
        elif isinstance(wanted, tuple):
            wanted = Vocabulary.of_phrases(wanted, known=self.trained.vocabulary)
        if wanted == self.trained.vocabulary:
            return self.trained.text_bank
        if len(wanted.phrases) > MOST_PHRASES:
            raise InputError(
                f"vocabulary {wanted.name}: {len(wanted.phrases)} phrases, at most {MOST_PHRASES}"
            )
        tower = self._open_tower()
        for phrase in wanted.phrases:  # one by one: the node may end meanwhile
            if self._closed:
                raise InputError("the node is ending")
            tower.embed([phrase])
        return tower.text_bank(wanted)

    def phrase(self, text: str) -> np.ndarray:
        """(E,) float32: a phrase in CLIP space.

        Raises:
            InputError: no phrase, or no text tower.
        """
        row: np.ndarray = self._open_tower().embed([text])[0]
        return row

    def change(self, bank: TextBank, announce: Callable[[Language], None]) -> Language:
        """From the next sweep on; announced before any cloud has it."""
        with self._lock:
            version = self.current.version % 65535 + 1
            language = Language(self.trained.with_text_bank(bank), version)
            announce(language)
            self.current = language
            return language

    def repeat(self, announce: Callable[[Language], None]) -> None:
        """What is spoken now, once more; never after a change that came meanwhile."""
        with self._lock:
            announce(self.current)

    def close(self) -> None:
        """Embeds no further phrase."""
        self._closed = True

    def _open_tower(self) -> TextTower:
        with self._opening:
            if self._tower is None:
                tower = TextTower.open(self.trained.model.folder, self.trained.runtime.name)
                width = tower.embed(["a"]).shape[1]
                expected = self.trained.text_bank.embeddings.shape[1]
                if width != expected:
                    raise InputError(
                        f"the text tower is {width} wide, the student {expected}: they are not of "
                        "one model; export it again"
                    )
                self._tower = tower
            return self._tower
