"""A labelled cloud: what the node publishes and `afov-predict` writes."""

from __future__ import annotations

import numpy as np

from afov.frames import Sweep
from afov.student import Labels
from afov.vocabulary import UNLABELLED, Vocabulary

UNKNOWN = 255
# Autoware's names; rgb as RViz wants it, 0x00RRGGBB in a float's bits.
POINT = np.dtype(
    [
        ("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4"),
        ("class_id", "u1"), ("probability", "<f4"), ("rgb", "<f4"),
    ],
    align=True,
)  # fmt: skip


def published_ids(labels: Labels, threshold: float) -> np.ndarray:
    """(N,) uint8: class ids as they go out, unlabelled and unsure ones as 255."""
    unsure = (labels.class_id == UNLABELLED) | (labels.score < threshold)
    return np.where(unsure, np.uint8(UNKNOWN), labels.class_id)


def labelled_points(
    sweep: Sweep, labels: Labels, vocabulary: Vocabulary, threshold: float
) -> np.ndarray:
    """(N,) of dtype `POINT`: every point of the sweep, in its order."""
    points = np.zeros(len(sweep), POINT)
    for i, name in enumerate("xyz"):
        points[name] = sweep.points[:, i]
    if "intensity" in sweep.fields:
        points["intensity"] = sweep.points[:, sweep.fields.index("intensity")]
    ids = published_ids(labels, threshold)
    points["class_id"], points["probability"] = ids, labels.score
    red, green, blue = vocabulary.palette.astype(np.uint32)[ids].T
    points["rgb"] = ((red << 16) | (green << 8) | blue).view(np.float32)
    return points
