"""The text tower of a model folder: phrases to CLIP space, without torch or a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from afov.errors import InputError
from afov.model_parts import TowerFiles, read_text_tower
from afov.text_bank import TextBank
from afov.tokenizer import Tokenizer, read_merges
from afov.towers import OnnxTower, Run, beside
from afov.vocabulary import Vocabulary

LONGEST = 200  # characters of a phrase; no noun phrase is longer


class Prompts:
    """A phrase in all the prompts, as tokens.

    Raises:
        InputError: the merges are none.
    """

    def __init__(self, files: TowerFiles) -> None:
        try:
            self._tokenizer = Tokenizer(read_merges(files.merges), files.context_length)
        except ValueError as error:
            raise InputError(
                f"text tower: cannot be opened ({error}); export the model again"
            ) from None
        self._templates = files.templates

    def __call__(self, phrase: str) -> np.ndarray:
        """(T, L) int64, cut where the longest of them ends."""
        tokens = self._tokenizer([t.replace("{}", phrase) for t in self._templates])
        return tokens[:, : int(tokens.argmax(1).max()) + 1]  # the end has the highest id


class TextTower:
    """Phrases to unit vectors, as the teacher embeds them (afov_train/teachers/text.py).

    Args:
        run: what runs it; None = ONNX Runtime.

    Raises:
        InputError: the files are no text tower.
    """

    def __init__(self, files: TowerFiles, run: Run | None = None) -> None:
        # A new vocabulary must leave the processor to the sweeps.
        self._run = run or OnnxTower(files.onnx, "text tower", threads=1, gpu=False)
        self._prompts = Prompts(files)
        self._row = lru_cache(4096)(self._embed_one)

    @classmethod
    def open(cls, folder: Path | str, runtime: str = "onnxruntime") -> TextTower:
        """The tower of a model folder.

        Args:
            runtime: the student's; the tower runs on TensorRT where that does.

        Raises:
            InputError: the folder has none, or a file is damaged.
        """
        files = read_text_tower(folder)
        return cls(files, beside(runtime, files, Path(folder)))

    def embed(self, phrases: Sequence[str]) -> np.ndarray:
        """(P, E) float32, unit rows; a phrase that was asked for before costs nothing.

        Raises:
            InputError: no phrase at all, or an empty or endless one.
        """
        if not phrases:
            raise InputError("no phrase to embed")
        for phrase in phrases:
            if not phrase.strip() or len(phrase) > LONGEST:
                raise InputError(f"phrase {phrase[:40]!r}: expected 1 to {LONGEST} characters")
        return np.stack([self._row(phrase) for phrase in phrases])

    def text_bank(self, vocabulary: Vocabulary) -> TextBank:
        """The vocabulary in CLIP space."""
        return TextBank(vocabulary, self.embed(vocabulary.phrases))

    def _embed_one(self, phrase: str) -> np.ndarray:
        each = _unit(self._run(self._prompts(phrase)))
        return _unit(each.mean(0)).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
