"""Rounds: what a student says of the sweeps it learnt from joins what the teacher said of them.

A student sees shape where the teacher sees pixels, and has met every thing many times: its errors
are others. It corrects labels where it is sure and doubts some that it has not taken up; what the
teacher alone knows stays. Then sweeps and things vote as before, and a fresh student learns from
the result (noisy student, 1911.04252; LOSC keeps the labels that several views agree on).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from afov.student import Student
from afov.vocabulary import Vocabulary
from afov_train.progress import track
from afov_train.taught import NO_PHRASE, TaughtSweep, first_phrases

# On the ablation's drive: a student's answers hold where it is this sure; a label to which it gives
# less than the other is more often wrong than right.
SURE, DOUBT = 0.9, 0.05


def join_all(files: Sequence[Path], student: Student, folder: Path) -> list[Path]:
    """The taught sweeps of one recording, before they settle, joined by a student's answers.

    Returns:
        Files of the same names, in a folder of the student's own in `folder`.
    """
    folder = folder / hashlib.sha256(student.model.onnx).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = student.text_bank.vocabulary
    for file in track(files, "answer", len(files)):
        if not (folder / file.name).exists():
            taught = TaughtSweep.load(file)
            joined(taught, answers(student, taught), vocabulary).save(folder / file.name)
    return [folder / file.name for file in files]


def answers(student: Student, taught: TaughtSweep) -> np.ndarray:
    """(N, K + 1) float32: the student's probabilities of each class, after AFI refined."""
    return student.probabilities(student.label(taught.sweep), taught.sweep, "refined")


def joined(taught: TaughtSweep, likely: np.ndarray, vocabulary: Vocabulary) -> TaughtSweep:
    """Where the student is sure its answer stands; what it doubts and cannot mend falls away.

    Args:
        likely: (N, K + 1), of `answers`.
    """
    own, said = taught.class_id(vocabulary), likely.argmax(1)
    certain = likely.max(1)
    sure, same = certain >= SURE, (own == said) & (own > 0)
    mended = sure & ~same
    doubted = ~sure & (own > 0) & (likely[np.arange(len(own)), own] < DOUBT)
    phrase = np.where(mended, first_phrases(vocabulary)[said], taught.phrase)
    score = np.where(mended, certain, np.where(same, certain.clip(taught.score), taught.score))
    return replace(
        taught,
        phrase=np.where(doubted, NO_PHRASE, phrase).astype(np.int32),
        score=score.astype(np.float32),
    )
