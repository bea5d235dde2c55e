"""Evaluate: one confusion matrix per question, over all sweeps; classes by name."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from afov.errors import InputError
from afov.frames import Source
from afov.metrics import confusion, iou, mean_iou
from afov.pairing import pair_images
from afov.panoptic_quality import (
    NUSCENES_MIN_POINTS,
    SEMANTICKITTI_MIN_POINTS,
    PanopticQuality,
    no_sweeps,
    panoptic_quality,
    panoptic_summary,
    panoptic_table,
)
from afov.sources.semantickitti import SemanticKittiSource
from afov.splits import Split
from afov.student import Student
from afov.vocabulary import Vocabulary
from afov_train.config import TeachConfig
from afov_train.nuscenes_eval import Submission
from afov_train.progress import track
from afov_train.taught import class_of_phrase
from afov_train.teach import look, project
from afov_train.teachers.segments import Teacher
from afov_train.truth import check_truth

DISTANCES = (0.0, 10.0, 20.0, 40.0, np.inf)  # metres
WORST = 3  # sweeps kept for a look


@dataclass(frozen=True)
class Judged:
    """One sweep, its truth and what the student said: (N, 3) float32, (N,) and (N,) uint8."""

    accuracy: float
    token: str
    xyz: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """What a model got right.

    Attributes:
        matrices: confusion (K + 1, K + 1), rows truth, by question: "student, covered", ...
        by_distance: the same for the student, by metres from the sensor: "0-10 m", ...
        worst: the sweeps with the lowest accuracy, worst first.
        panoptic: segments of all points, where the student and the truth know instances.
        split: which classes were novel to the student, if any.
    """

    vocabulary: Vocabulary
    matrices: dict[str, np.ndarray]
    sweeps: int
    by_distance: dict[str, np.ndarray] = field(default_factory=dict)
    worst: tuple[Judged, ...] = ()
    panoptic: PanopticQuality | None = None
    split: Split | None = None

    def mean_iou(self, question: str) -> float:
        """Mean over the classes that truth or prediction holds."""
        return mean_iou(self.matrices[question])

    @property
    def common(self) -> np.ndarray:
        """(K,) bool: the classes whose truth every question holds."""
        return np.all([m[1:].sum(1) > 0 for m in self.matrices.values()], axis=0)

    def mean_iou_of_common(self, question: str) -> float:
        """Mean over the common classes, the only one to compare questions by.

        One stray point makes an absent class a zero in `mean_iou`, and few classes occur where no
        camera looks. Here it still counts: against the class whose point it is.
        """
        values = iou(self.matrices[question])[self.common]
        return float(values.mean()) if len(values) else float("nan")

    def accuracy(self, question: str) -> float:
        """Share of the points with truth that got their class; unlabelled counts as wrong."""
        return accuracy(self.matrices[question])

    def rows(self) -> list[list[str]]:
        """A table: per class, one column per question; then mIoU and accuracy."""
        columns = list(self.matrices)
        rows = [["class", *columns]]
        per_class = [iou(self.matrices[c]) for c in columns]
        for i, category in enumerate(self.vocabulary.labelled):
            cells = ["-" if np.isnan(v[i]) else f"{100 * v[i]:.1f}" for v in per_class]
            rows.append([category.name, *cells])
        rows.append(["mIoU", *(f"{100 * self.mean_iou(c):.1f}" for c in columns)])
        rows.append(
            [f"mIoU of {self.common.sum()} common"]
            + [f"{100 * self.mean_iou_of_common(c):.1f}" for c in columns]
        )
        rows.append(["accuracy", *(f"{100 * self.accuracy(c):.1f}" for c in columns)])
        return rows

    def panoptic_rows(self) -> list[list[str]]:
        """A table of PQ, SQ, RQ and IoU, per class and group; empty where none was counted."""
        if self.panoptic is None:
            return []
        return panoptic_table(self.panoptic, self.vocabulary, self.split)

    def __str__(self) -> str:
        lines = _aligned(self.rows())
        lines.append(f"IoU in %, {self.sweeps} sweeps")
        for distance, matrix in self.by_distance.items():
            figures = f"mIoU {100 * mean_iou(matrix):5.1f}  accuracy {100 * accuracy(matrix):5.1f}"
            lines.append(f"student, {distance:>8}  {figures}")
        if self.panoptic is not None:
            lines += ["segments of all points, in %", *_aligned(self.panoptic_rows())]
        return "\n".join(lines)

    def save(self, folder: Path) -> None:
        """metrics.csv, the table; metrics.json, the same with the confusion matrices.

        Where segments were counted also panoptic.csv, and "panoptic" in metrics.json.
        """
        with (folder / "metrics.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows(self.rows())
        content: dict[str, Any] = {
            question: {
                **_figures(matrix),
                "mIoU of common classes": self.mean_iou_of_common(question),
            }
            for question, matrix in self.matrices.items()
        }
        if self.panoptic is not None:
            with (folder / "panoptic.csv").open("w", newline="") as stream:
                csv.writer(stream).writerows(self.panoptic_rows())
            content["panoptic"] = panoptic_summary(self.panoptic, self.vocabulary, self.split)
        content["by distance"] = {d: _figures(matrix) for d, matrix in self.by_distance.items()}
        (folder / "metrics.json").write_text(
            json.dumps({"sweeps": self.sweeps, "names": self.vocabulary.names, **content}, indent=1)
        )


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


def _aligned(rows: list[list[str]]) -> list[str]:
    """Lines of text, the columns to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]


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


def accuracy(matrix: np.ndarray) -> float:
    """Share of the points with truth that got their class; unlabelled counts as wrong."""
    counted = matrix[1:]
    return float(np.trace(counted[:, 1:]) / max(counted.sum(), 1))


def _figures(matrix: np.ndarray) -> dict[str, Any]:
    """A confusion matrix and what follows from it, for JSON."""
    return {"mIoU": mean_iou(matrix), "accuracy": accuracy(matrix), "confusion": matrix.tolist()}
