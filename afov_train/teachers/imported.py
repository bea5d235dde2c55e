"""Segments that another program wrote: FC-CLIP, CAT-Seg, SAN, or anything else.

The folder's form is told in docs/teacher-folder.md.
"""

from __future__ import annotations

import hashlib
import zipfile
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from afov.errors import InputError
from afov.text_bank import TextBank
from afov.vocabulary import Vocabulary
from afov_train.teachers.config import TeacherConfig
from afov_train.teachers.detectron2 import PANOPTIC, SEMANTIC, Predictions
from afov_train.teachers.ensemble import geometric_ensemble
from afov_train.teachers.segments import Segments, class_scores


class ImportedTeacher:
    """Reads a folder of our own form, or of detectron2's; both with `<folder>/text_bank.npz`."""

    def __init__(self, config: TeacherConfig, vocabulary: Vocabulary) -> None:
        assert config.imported is not None
        self.folder = config.imported
        file = self.folder / "text_bank.npz"
        bank = _load(file, ("phrases", "embeddings"))
        embeddings = _unit_rows(bank["embeddings"], len(bank["phrases"]), f"{file}: embeddings")
        rows = {str(p): e for p, e in zip(bank["phrases"], embeddings, strict=True)}
        lost = [p for p in vocabulary.phrases if p not in rows]
        if lost:
            raise InputError(
                f"{file}: no embedding for {len(lost)} phrases of the vocabulary, {lost[0]!r} "
                f"first; embed all phrases of {vocabulary.name}"
            )
        self.text_bank = TextBank(vocabulary, np.stack([rows[p] for p in vocabulary.phrases]))
        self.index = {p: i for i, p in enumerate(vocabulary.phrases)}
        owners = [i for i, c in enumerate(vocabulary.classes) for _ in c.phrases]
        self.owner = np.array(owners, np.int64)
        written = any((self.folder / name).exists() for name in (PANOPTIC, SEMANTIC))
        self.predictions = Predictions(self.folder, self.index) if written else None

    @cached_property
    def key(self) -> str:
        """Hash of the text bank and of every file's name, size and time."""
        digest = hashlib.sha256((self.folder / "text_bank.npz").read_bytes())
        for file in sorted(self.folder.rglob("*")):
            state = file.stat()
            digest.update(f"{file} {state.st_size} {state.st_mtime_ns}".encode())
        return digest.hexdigest()[:16]

    def segments(self, image: np.ndarray, *, token: str, camera: str) -> Segments:
        """The segments of one image.

        Raises:
            InputError: a file is missing or does not fit the image, the other or the vocabulary.
        """
        if self.predictions:
            return self._predicted(self.predictions, image, camera, token)
        file = self.folder / camera / f"{token}.png"
        described = file.with_suffix(".npz")
        try:
            with Image.open(file, formats=("PNG",)) as picture:
                ids = np.asarray(picture).astype(np.int64)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            raise InputError(f"{file}: no readable PNG of segment ids") from None
        if ids.shape != image.shape[:2]:
            raise InputError(f"{file}: {ids.shape}, the image has {image.shape[:2]}")
        parts = _load(described, ("phrases", "scores", "features"), ("trained", "clip", "seen"))
        if {"trained", "clip", "seen"} <= set(parts):
            parts |= self._ensemble(parts, described)
        count = len(parts["phrases"])
        unknown = [str(p) for p in parts["phrases"] if str(p) not in self.index]
        if unknown:
            raise InputError(f"{described}: phrase {unknown[0]!r} is in no class")
        if ids.max(initial=0) > count:
            raise InputError(f"{file}: segment {ids.max()}, but {count} are described")
        scores = np.asarray(parts["scores"], np.float32)
        if scores.shape != (count,):
            raise InputError(f"{described}: scores {scores.shape}, expected ({count},)")
        return Segments(
            ids.astype(np.uint16),
            np.array([self.index[str(p)] for p in parts["phrases"]], np.int64),
            scores,
            _unit_rows(parts["features"], count, f"{described}: features"),
        )

    def _predicted(
        self, predictions: Predictions, image: np.ndarray, camera: str, token: str
    ) -> Segments:
        """detectron2's files hold no features: a segment's is its phrase's, in the same space."""
        height, width = image.shape[:2]
        ids, phrase, score = predictions.segments(camera, token, (height, width))
        feature = self.text_bank.embeddings[phrase]
        return Segments(ids.astype(np.uint16), phrase, score, feature)

    def _ensemble(self, parts: dict[str, np.ndarray], file: Path) -> dict[str, np.ndarray]:
        """Phrases and scores from two classifiers' probabilities over the text bank's phrases."""
        count, phrases = len(parts["phrases"]), self.text_bank.vocabulary.phrases
        each = (count, len(phrases))
        for name, shape in (("trained", each), ("clip", each), ("seen", each[1:])):
            if parts[name].shape != shape or not np.isfinite(parts[name].astype(float)).all():
                raise InputError(f"{file}: {name} {parts[name].shape}, expected {shape}, finite")
        share = geometric_ensemble(parts["trained"], parts["clip"], parts["seen"].astype(bool))
        best = share.argmax(1)
        scores = class_scores(share, best, self.owner)
        return {"phrases": np.array(phrases)[best], "scores": scores}


def _unit_rows(rows: np.ndarray, count: int, where: str) -> np.ndarray:
    """(count, E) float32, each of length 1 (or 0)."""
    rows = np.asarray(rows, np.float32)
    if rows.ndim != 2 or len(rows) != count or not np.isfinite(rows).all():
        raise InputError(f"{where}: {rows.shape}, expected {count} finite rows, one per phrase")
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def _load(
    file: Path, names: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as data:
            held = [name for name in optional if name in data]
            return {name: data[name] for name in (*names, *held)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise InputError(f"{file}: expected an npz with {', '.join(names)}") from None
