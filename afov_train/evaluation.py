"""What an evaluation found, as tables and files."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from afov.metrics import accuracy, iou, mean_iou
from afov.panoptic_quality import PanopticQuality, panoptic_summary, panoptic_table
from afov.splits import Split
from afov.vocabulary import Vocabulary


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


def _aligned(rows: list[list[str]]) -> list[str]:
    """Lines of text, the columns to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]


def _figures(matrix: np.ndarray) -> dict[str, Any]:
    """A confusion matrix and what follows from it, for JSON."""
    return {"mIoU": mean_iou(matrix), "accuracy": accuracy(matrix), "confusion": matrix.tolist()}
