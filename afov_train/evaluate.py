"""Evaluate: one confusion matrix per question, over all sweeps; classes by name."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from afov.errors import InputError
from afov.frames import Source
from afov.metrics import accuracy, confusion
from afov.pairing import pair_images
from afov.panoptic_quality import (
    NUSCENES_MIN_POINTS,
    SEMANTICKITTI_MIN_POINTS,
    no_sweeps,
    panoptic_quality,
)
from afov.sources.semantickitti import SemanticKittiSource
from afov.splits import Split
from afov.student import Student
from afov_train.config import TeachConfig
from afov_train.evaluation import Evaluation, Judged
from afov_train.nuscenes_eval import Submission
from afov_train.progress import track
from afov_train.taught import class_of_phrase
from afov_train.teach import look, project
from afov_train.teachers.segments import Teacher
from afov_train.truth import check_truth

DISTANCES = (0.0, 10.0, 20.0, 40.0, np.inf)  # metres
WORST = 3  # sweeps kept for a look


def evaluate(
    sources: Sequence[Source],
    student: Student,
    teacher: Teacher | None = None,
    config: TeachConfig | None = None,
    submission: Submission | None = None,
    split: Split | None = None,
) -> Evaluation:
    """The student on all points, on those cameras see and on those they do not; AFI; its teacher.

    Args:
        sources: opened with truth.
        teacher: judged on the points that cameras see, with `config`, where there is one.
        submission: where the predictions go, one per sweep with truth.
        split: which classes were novel to the student.

    Raises:
        InputError: no frame has truth, or it is in other classes.
    """
    vocabulary = student.vocabulary
    size = len(vocabulary.labelled)
    tally, rings = _Tally(size), _Tally(size)
    worst: list[Judged] = []
    sweeps, segments = 0, no_sweeps(size)
    frames = ((source, frame) for source in sources for frame in source)
    for source, frame in track(frames, "evaluate", sum(map(len, sources))):
        if frame.truth is None:
            continue
        check_truth(source, vocabulary)
        sweeps += 1
        truth = frame.truth.class_id
        labels = student.label(frame.sweep, frame.images)
        predicted = labels.class_id
        if submission is not None:
            submission.write(frame.token, labels, student.text_bank)
        if labels.instance_id is not None and frame.truth.panoptic_class_id is not None:
            segments += panoptic_quality(
                frame.truth.panoptic_class_id, frame.truth.instance_id,
                predicted, labels.instance_id, size, least_points(source),
            )  # fmt: skip
        if teacher is None:
            seen = pair_images(frame.sweep.xyz, frame.images)[1]
        else:
            phrase, seen = project(frame, look(teacher, frame), config or TeachConfig())
            tally.add("teacher, covered", truth, class_of_phrase(phrase, vocabulary), seen)
        tally.add("student, covered", truth, predicted, seen)
        tally.add("student, uncovered", truth, predicted, ~seen)
        everywhere = np.ones(len(truth), bool)
        hit = accuracy(tally.add("student, all", truth, predicted, everywhere))
        worst.append(Judged(hit, frame.token, frame.sweep.xyz, truth, predicted))
        worst = sorted(worst, key=lambda judged: judged.accuracy)[:WORST]
        flattened = student.corrected(labels, frame.sweep, "refined").class_id
        tally.add("+ AFI, all", truth, flattened, everywhere)
        distance = np.linalg.norm(frame.sweep.xyz[:, :2], axis=1)
        for near, far in pairwise(DISTANCES):
            inside = (distance >= near) & (distance < far)
            name = f"{near:g}-{far:g} m" if np.isfinite(far) else f"{near:g}- m"
            rings.add(name, truth, predicted, inside)
    if not sweeps:
        named = ", ".join(source.name for source in sources)
        raise InputError(f"{named}: no frame has ground truth, so nothing can be evaluated")
    counted = segments if segments.matrix.any() else None
    return Evaluation(
        vocabulary, tally.matrices, sweeps, rings.matrices, tuple(worst), counted, split
    )


def least_points(source: Source) -> int:
    """Points below which a data set's evaluator overlooks a segment; ours is nuScenes'."""
    kitti = isinstance(source, SemanticKittiSource)
    return SEMANTICKITTI_MIN_POINTS if kitti else NUSCENES_MIN_POINTS


class _Tally:
    """Confusion matrices by question."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.matrices: dict[str, np.ndarray] = {}

    def add(
        self, question: str, truth: np.ndarray, said: np.ndarray, where: np.ndarray
    ) -> np.ndarray:
        """Counts one sweep's points; returns their matrix alone."""
        found = confusion(truth[where], said[where], self.classes)
        self.matrices[question] = self.matrices.get(question, 0) + found
        return found
