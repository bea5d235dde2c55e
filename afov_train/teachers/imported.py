"""Segments that another program wrote: FC-CLIP, CAT-Seg, SAN, or anything else.

The folder's form is told in docs/teacher-folder.md.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from afov.errors import InputError
from afov.text_bank import TextBank
from afov.vocabulary import Vocabulary
from afov_train.teachers.config import TeacherConfig
from afov_train.teachers.segments import Segments


class ImportedTeacher:
    """Reads `<folder>/<camera>/<token>.png` and `.npz`, and `<folder>/text_bank.npz`."""

    def __init__(self, config: TeacherConfig, vocabulary: Vocabulary) -> None:
        assert config.imported is not None
        self.folder = config.imported
        bank = _load(self.folder / "text_bank.npz", ("phrases", "embeddings"))
        rows = {str(p): e for p, e in zip(bank["phrases"], bank["embeddings"], strict=True)}
        lost = [p for p in vocabulary.phrases if p not in rows]
        if lost:
            raise InputError(
                f"{self.folder / 'text_bank.npz'}: no embedding for {len(lost)} phrases of the "
                f"vocabulary, {lost[0]!r} first; embed all phrases of {vocabulary.name}"
            )
        embeddings = np.stack([rows[p] for p in vocabulary.phrases]).astype(np.float32)
        norm = np.linalg.norm(embeddings, axis=1, keepdims=True)
        self.text_bank = TextBank(vocabulary, embeddings / np.maximum(norm, 1e-9))
        self.index = {p: i for i, p in enumerate(vocabulary.phrases)}
        content = (self.folder / "text_bank.npz").read_bytes()
        self.key = hashlib.sha256(str(self.folder).encode() + content).hexdigest()[:16]

    def segments(self, image: np.ndarray, *, token: str, camera: str) -> Segments:
        """The segments of one image."""
        file = self.folder / camera / f"{token}.png"
        try:
            with Image.open(file) as picture:
                ids = np.asarray(picture).astype(np.uint16)
        except OSError:
            raise InputError(f"{file}: no readable PNG of segment ids") from None
        if ids.shape != image.shape[:2]:
            raise InputError(f"{file}: {ids.shape}, the image has {image.shape[:2]}")
        parts = _load(file.with_suffix(".npz"), ("phrases", "scores", "features"))
        unknown = [str(p) for p in parts["phrases"] if str(p) not in self.index]
        if unknown:
            raise InputError(f"{file.with_suffix('.npz')}: phrase {unknown[0]!r} is in no class")
        if ids.max(initial=0) > len(parts["phrases"]):
            raise InputError(f"{file}: segment {ids.max()} of {len(parts['phrases'])} described")
        feature = np.asarray(parts["features"], np.float32)
        norm = np.linalg.norm(feature, axis=1, keepdims=True)
        return Segments(
            ids,
            np.array([self.index[str(p)] for p in parts["phrases"]], np.int64),
            np.asarray(parts["scores"], np.float32),
            feature / np.maximum(norm, 1e-9),
        )


def _load(file: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as data:
            return {name: data[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError):
        raise InputError(f"{file}: expected an npz with {', '.join(names)}") from None
