"""A teacher's answers, kept on disk: a run that was interrupted goes on where it stopped."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np

from afov_train.teachers.segments import Segments, Teacher


class CachedTeacher:
    """A teacher that looks at no image twice.

    An answer's file is named by the teacher's key and the image's own bytes, so nothing stale is
    ever taken; a file that cannot be read is made anew.
    """

    def __init__(self, teacher: Teacher, folder: Path) -> None:
        self.teacher, self.folder = teacher, folder
        self.key, self.text_bank = teacher.key, teacher.text_bank
        folder.mkdir(parents=True, exist_ok=True)

    def segments(self, image: np.ndarray, *, token: str, camera: str) -> Segments:
        """The kept answer, or a new one."""
        pixels = hashlib.sha256(image.tobytes()).hexdigest()[:24]
        file = self.folder / f"{self.key}-{pixels}.npz"
        found = _read(file)
        if found is None:
            found = self.teacher.segments(image, token=token, camera=camera)
            _write(file, found)
        return found


def _read(file: Path) -> Segments | None:
    try:
        with np.load(file, allow_pickle=False) as data:
            return Segments(data["ids"], data["phrase"], data["score"], data["feature"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(file: Path, found: Segments) -> None:
    partial = file.with_suffix(".part")
    with partial.open("wb") as stream:
        np.savez_compressed(
            stream, ids=found.ids, phrase=found.phrase, score=found.score, feature=found.feature
        )
    partial.replace(file)
