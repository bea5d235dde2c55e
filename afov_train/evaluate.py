"""Evaluate: one confusion matrix per question, over all sweeps; classes by name."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from afov.errors import InputError
from afov.frames import Frame, Source
from afov.metrics import confusion, iou
from afov.student import Student
from afov.vocabulary import Vocabulary
from afov_train.config import TeachConfig
from afov_train.progress import track
from afov_train.teach import class_of_phrase, look, project
from afov_train.teachers.segments import Teacher

Predict = Callable[[Frame], np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """Confusion matrices (K + 1, K + 1), rows truth, by question: "student, covered", ..."""

    vocabulary: Vocabulary
    matrices: dict[str, np.ndarray]
    sweeps: int

    def mean_iou(self, question: str) -> float:
        """Mean over the classes that truth or prediction holds."""
        return float(np.nanmean(iou(self.matrices[question])))

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
        matrix = self.matrices[question][1:]
        return float(np.trace(matrix[:, 1:]) / max(matrix.sum(), 1))

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

    def __str__(self) -> str:
        rows = self.rows()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([*lines, f"IoU in %, {self.sweeps} sweeps"])

    def save(self, folder: Path) -> None:
        """metrics.csv, the table; metrics.json, the same with the confusion matrices."""
        with (folder / "metrics.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows(self.rows())
        content = {
            question: {
                "mIoU": self.mean_iou(question),
                "mIoU of common classes": self.mean_iou_of_common(question),
                "accuracy": self.accuracy(question),
                "confusion": matrix.tolist(),
            }
            for question, matrix in self.matrices.items()
        }
        (folder / "metrics.json").write_text(
            json.dumps({"sweeps": self.sweeps, "names": self.vocabulary.names, **content}, indent=1)
        )


def evaluate(
    source: Source,
    student: Student,
    teacher: Teacher,
    config: TeachConfig,
    predictions: Path | None = None,
) -> Evaluation:
    """The student on all points, on those cameras see and on those they do not; its teacher; AFI.

    Args:
        source: opened with truth.
        predictions: a folder for `<token>_lidarseg.bin`, (N,) uint8, one per sweep with truth.

    Raises:
        InputError: no frame has truth.
    """
    vocabulary = student.vocabulary
    size = len(vocabulary.labelled)
    questions = (
        "teacher, covered", "student, covered", "student, uncovered", "student, all", "+ AFI, all",
    )  # fmt: skip
    matrices = {q: np.zeros((size + 1, size + 1), np.int64) for q in questions}
    sweeps = 0
    if predictions is not None:
        predictions.mkdir(parents=True, exist_ok=True)
    for frame in track(source, "evaluate", len(source)):
        if frame.truth is None:
            continue
        sweeps += 1
        truth = frame.truth.class_id
        labels = student.label(frame.sweep)
        predicted = labels.class_id
        flattened = student.corrected(labels, frame.sweep, "refined").class_id
        if predictions is not None:
            predicted.tofile(predictions / f"{frame.token}_lidarseg.bin")
        phrase, seen = project(frame, look(teacher, frame), config)
        taught = class_of_phrase(phrase, vocabulary)
        matrices["teacher, covered"] += confusion(truth[seen], taught[seen], size)
        matrices["student, covered"] += confusion(truth[seen], predicted[seen], size)
        matrices["student, uncovered"] += confusion(truth[~seen], predicted[~seen], size)
        matrices["student, all"] += confusion(truth, predicted, size)
        matrices["+ AFI, all"] += confusion(truth, flattened, size)
    if not sweeps:
        raise InputError(f"{source.name}: no frame has ground truth, so nothing can be evaluated")
    return Evaluation(vocabulary, matrices, sweeps)
