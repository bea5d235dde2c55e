"""Confusion matrix and intersection over union, as nuScenes lidarseg counts them."""

from __future__ import annotations

import numpy as np


def confusion(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Counts of (truth, prediction).

    Args:
        truth, prediction: (N,) integer class ids 0..classes; 0 is unlabelled.

    Returns:
        (classes + 1, classes + 1) int64, rows are truth.

    Raises:
        ValueError: an id outside 0..classes, or arrays of unequal length.
    """
    size = classes + 1
    if len(truth) != len(prediction):
        raise ValueError(f"{len(truth)} labels of truth, {len(prediction)} predicted")
    for ids in (truth, prediction):
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < size:
            raise ValueError(f"class id outside 0..{classes}")
    flat = truth.astype(np.int64) * size + prediction.astype(np.int64)
    return np.bincount(flat, minlength=size * size).reshape(size, size)


def iou(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of the classes 1..K.

    Points whose truth is 0 do not count; a prediction of 0 is a miss. A class that neither truth
    nor prediction holds is NaN: absent, not perfect.

    Args:
        matrix: (K + 1, K + 1), rows are truth, as `confusion` gives.

    Returns:
        (K,) float64.
    """
    counted = matrix[1:].astype(np.float64)
    hit = np.diagonal(counted[:, 1:])
    union = counted.sum(1) + counted[:, 1:].sum(0) - hit
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(union > 0, hit / union, np.nan)


def mean_iou(matrix: np.ndarray) -> float:
    """Mean of `iou` over the classes present; NaN when there is none."""
    values = iou(matrix)
    present = ~np.isnan(values)
    return float(values[present].mean()) if present.any() else float("nan")


def accuracy(matrix: np.ndarray) -> float:
    """Share of the points with truth that got their class; unlabelled counts as wrong."""
    counted = matrix[1:]
    return float(np.trace(counted[:, 1:]) / max(counted.sum(), 1))
