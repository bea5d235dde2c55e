"""The 2D teachers: what frozen open-vocabulary models see in an image."""

from __future__ import annotations

from pathlib import Path

from afov.vocabulary import Vocabulary
from afov_train.teachers.config import TeacherConfig
from afov_train.teachers.segments import Teacher


def build_teacher(config: TeacherConfig, vocabulary: Vocabulary, cache: Path) -> Teacher:
    """The teacher of the settings, its answers kept in `cache`."""
    from afov_train.teachers.cache import CachedTeacher
    from afov_train.teachers.open_clip_teacher import OpenClipTeacher

    if config.imported is not None:
        from afov_train.teachers.imported import ImportedTeacher

        return ImportedTeacher(config, vocabulary)
    return CachedTeacher(OpenClipTeacher(config, vocabulary), cache)
