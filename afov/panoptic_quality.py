"""Panoptic quality: PQ = SQ x RQ, as SemanticKITTI's evaluator and nuScenes' devkit count it.

A segment is what has one class and one instance id in a sweep; stuff has the id 0 throughout. A
predicted segment meets a true one of its class when their IoU is over 0.5, which no two can do at
once. SQ is the mean IoU of those that meet, RQ = TP / (TP + FP/2 + FN/2) (Kirillov et al. 2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from afov.metrics import confusion, iou
from afov.splits import Split
from afov.vocabulary import Vocabulary

# Points below which a segment that meets no other is nobody's fault.
NUSCENES_MIN_POINTS = 15
SEMANTICKITTI_MIN_POINTS = 50


@dataclass(frozen=True)
class PanopticQuality:
    """What was counted over some sweeps; counts of further sweeps are added with +.

    Attributes:
        met: (K,) int64, segments of each class found (TP).
        met_iou: (K,) float64, the sum of their IoU.
        false: (K,) int64, predicted segments that are none (FP).
        missed: (K,) int64, true segments not found (FN).
        matrix: (K + 1, K + 1) int64, points, rows are truth, as `confusion` gives.
    """

    met: np.ndarray
    met_iou: np.ndarray
    false: np.ndarray
    missed: np.ndarray
    matrix: np.ndarray

    def __add__(self, other: PanopticQuality) -> PanopticQuality:
        return PanopticQuality(
            self.met + other.met,
            self.met_iou + other.met_iou,
            self.false + other.false,
            self.missed + other.missed,
            self.matrix + other.matrix,
        )

    @property
    def sq(self) -> np.ndarray:
        """(K,) segmentation quality; 0 where no segment was found, NaN where the class is absent.

        Absent is a class of which no segment counted, in truth or prediction. The official
        evaluators give it a zero; so their means are ours where every class occurs.
        """
        return np.where(self._segments > 0, self.met_iou / np.maximum(self.met, 1), np.nan)

    @property
    def rq(self) -> np.ndarray:
        """(K,) recognition quality; NaN where the class is absent."""
        with np.errstate(invalid="ignore"):
            return self.met / (self.met + (self.false + self.missed) / 2)

    @property
    def pq(self) -> np.ndarray:
        """(K,) panoptic quality; NaN where the class is absent."""
        return self.sq * self.rq

    @property
    def iou(self) -> np.ndarray:
        """(K,) IoU of the classes' points; NaN where the class is absent."""
        return iou(self.matrix)

    @property
    def _segments(self) -> np.ndarray:
        return self.met + self.false + self.missed


def panoptic_quality(
    truth_class: np.ndarray,
    truth_instance: np.ndarray,
    class_id: np.ndarray,
    instance_id: np.ndarray,
    classes: int,
    min_points: int,
) -> PanopticQuality:
    """Counts of one sweep.

    Points whose truth is 0 do not count. A prediction of 0 is no segment. Points of one class
    with the instance 0 are one segment, in truth and prediction alike.

    Args:
        truth_class, class_id: (N,) integers 0..classes; 0 is unlabelled.
        truth_instance, instance_id: (N,) integers from 0 to 2^32 - 1, apart for every class.
        min_points: smaller segments that meet none count neither as missed nor as false.

    Raises:
        ValueError: an id out of its range, or arrays of unequal length.
    """
    if not len(truth_class) == len(truth_instance) == len(class_id) == len(instance_id):
        raise ValueError("classes and instances of truth and prediction: expected equal lengths")
    matrix = confusion(truth_class, class_id, classes)
    counted = truth_class > 0
    true = _segments(truth_class[counted], truth_instance[counted])
    said = _segments(class_id[counted], instance_id[counted])

    # Where a true segment and a predicted one of the same class share points.
    pair = true.of_point * len(said.size) + said.of_point
    both, shared = np.unique(pair, return_counts=True)
    i, j = np.divmod(both, max(len(said.size), 1))
    overlap = shared / (true.size[i] + said.size[j] - shared)
    meets = (true.class_id[i] == said.class_id[j]) & (overlap > 0.5)
    i, j, overlap = i[meets], j[meets], overlap[meets]

    def per_class(of_segment: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(of_segment, weights, minlength=classes + 1)[1:]

    missed = np.setdiff1d(np.flatnonzero(true.size >= min_points), i)
    false = np.setdiff1d(np.flatnonzero(said.size >= min_points), j)
    return PanopticQuality(
        per_class(true.class_id[i]),
        per_class(true.class_id[i], overlap),
        per_class(said.class_id[false]),
        per_class(true.class_id[missed]),
        matrix,
    )


def no_sweeps(classes: int) -> PanopticQuality:
    """What was counted before the first sweep."""
    nothing = np.zeros(0, np.uint8)
    return panoptic_quality(nothing, nothing, nothing, nothing, classes, 0)


def panoptic_summary(
    quality: PanopticQuality, vocabulary: Vocabulary, split: Split | None = None
) -> dict[str, dict[str, float]]:
    """Means over the classes present: PQ, SQ, RQ, PQ-dagger and mIoU, for groups of classes.

    PQ-dagger takes a stuff class's IoU instead of its PQ, as both data sets do.

    Returns:
        "all", "things" and "stuff"; with a split also "base", "novel", "base things", ...; NaN
        where a group has no class that is present.
    """
    thing = np.array([c.thing for c in vocabulary.labelled])
    groups = {"all": np.ones(len(thing), bool), "things": thing, "stuff": ~thing}
    if split is not None:
        novel = split.is_novel(vocabulary)[1:]
        for name, inside in (("base", ~novel), ("novel", novel)):
            groups[name] = inside
            groups[f"{name} things"], groups[f"{name} stuff"] = inside & thing, inside & ~thing
    figures = {
        "PQ": quality.pq,
        "SQ": quality.sq,
        "RQ": quality.rq,
        "PQ-dagger": np.where(thing, quality.pq, quality.iou),
        "mIoU": quality.iou,
    }
    return {
        group: {name: mean_of_present(values[inside]) for name, values in figures.items()}
        for group, inside in groups.items()
    }


def panoptic_table(
    quality: PanopticQuality, vocabulary: Vocabulary, split: Split | None = None
) -> list[list[str]]:
    """Percent, as text: a row per class, novel ones marked, then a row per group of classes."""
    columns = (quality.pq, quality.sq, quality.rq, quality.iou)
    rows = [["class", "PQ", "SQ", "RQ", "IoU", "PQ-dagger"]]
    for i, category in enumerate(vocabulary.labelled):
        novel = split is not None and category.name in split.novel
        figures = [percent(float(column[i])) for column in columns]
        rows.append([category.name + " (novel)" * novel, *figures, ""])
    for group, means in panoptic_summary(quality, vocabulary, split).items():
        figures = [percent(means[name]) for name in ("PQ", "SQ", "RQ", "mIoU", "PQ-dagger")]
        rows.append([f"mean of {group}", *figures])
    return rows


def percent(share: float) -> str:
    """One decimal; "-" for NaN."""
    return "-" if np.isnan(share) else f"{100 * share:.1f}"


def mean_of_present(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN where nothing is."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


@dataclass(frozen=True)
class _Segments:
    """of_point: (N,) int64, each point's segment; class_id, size: (S,) int64."""

    of_point: np.ndarray
    class_id: np.ndarray
    size: np.ndarray


def _segments(class_id: np.ndarray, instance_id: np.ndarray) -> _Segments:
    instance = instance_id.astype(np.int64)
    if len(instance) and not 0 <= instance.min() <= instance.max() < 1 << 32:
        raise ValueError("instance id outside 0..2^32 - 1")
    key, of_point, size = np.unique(
        class_id.astype(np.int64) << 32 | instance, return_inverse=True, return_counts=True
    )
    return _Segments(of_point, key >> 32, size)
