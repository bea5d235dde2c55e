"""The text tower of a model folder: phrases to CLIP space with ONNX Runtime and NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from afov.errors import InputError
from afov.model_parts import TowerFiles, read_text_tower
from afov.text_bank import TextBank
from afov.tokenizer import Tokenizer, read_merges
from afov.vocabulary import Vocabulary

LONGEST = 200  # characters of a phrase; no noun phrase is longer


class TextTower:
    """Phrases to unit vectors, as the teacher embeds them (afov_train/teachers/text.py).

    Raises:
        InputError: the files are no text tower.
    """

    def __init__(self, files: TowerFiles) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # A new vocabulary must leave the processor to the sweeps.
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                files.onnx, options, providers=["CPUExecutionProvider"]
            )
            self._tokenizer = Tokenizer(read_merges(files.merges), files.context_length)
        except Exception as error:  # onnxruntime has types of its own
            line = " ".join(f"{error}".split())[:200]
            raise InputError(
                f"text tower: cannot be opened ({line}); export the model again"
            ) from None
        self._templates = files.templates
        self._row = lru_cache(4096)(self._embed_one)

    @classmethod
    def open(cls, folder: Path | str) -> TextTower:
        """The tower of a model folder.

        Raises:
            InputError: the folder has none, or a file is damaged.
        """
        return cls(read_text_tower(folder))

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
        tokens = self._tokenizer([t.replace("{}", phrase) for t in self._templates])
        tokens = tokens[:, : int(tokens.argmax(1).max()) + 1]  # the end has the highest id
        each = _unit(self._session.run(None, {"tokens": tokens})[0])
        return _unit(each.mean(0)).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
