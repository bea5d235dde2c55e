"""Labelled clouds: what the node publishes and `afov-predict` writes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from afov.frames import Sweep
from afov.student import Labels, at_points
from afov.transforms import transform_points
from afov.vocabulary import UNLABELLED, Vocabulary

UNKNOWN = 255
# Autoware's names; rgb as RViz wants it, 0x00RRGGBB in a float's bits. The vocabulary's version
# lies where alignment left two bytes empty; two more at the end make it 32 bytes.
POINT = np.dtype(
    [
        ("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4"),
        ("class_id", "u1"), ("vocabulary", "<u2"), ("probability", "<f4"), ("rgb", "<f4"),
        ("instance_id", "<u2"),
    ],
    align=True,
)  # fmt: skip
VISUAL = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<f4")])


def published_ids(labels: Labels, threshold: float) -> np.ndarray:
    """(N,) uint8: class ids as they go out, unlabelled and unsure ones as 255."""
    unsure = (labels.class_id == UNLABELLED) | (labels.score < threshold)
    return np.where(unsure, np.uint8(UNKNOWN), labels.class_id)


def labelled_points(
    sweep: Sweep, labels: Labels, vocabulary: Vocabulary, threshold: float, version: int = 0
) -> np.ndarray:
    """(N,) of dtype `POINT`: every point of the sweep, in its order.

    Args:
        version: of the vocabulary; it tells a listener what the ids mean.
    """
    points = _placed(sweep, POINT)
    if "intensity" in sweep.fields:
        points["intensity"] = sweep.points[:, sweep.fields.index("intensity")]
    ids = published_ids(labels, threshold)
    points["class_id"], points["probability"] = ids, labels.score
    points["vocabulary"], points["rgb"] = version, packed_rgb(vocabulary, ids)
    if labels.instance_id is not None:
        points["instance_id"] = labels.instance_id
    return points


def visual_points(sweep: Sweep, ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """(N,) of dtype `VISUAL`: every point in the colour of its class."""
    points = _placed(sweep, VISUAL)
    points["rgb"] = packed_rgb(vocabulary, ids)
    return points


def embedded_points(sweep: Sweep, labels: Labels) -> np.ndarray:
    """(N,) with x y z and `embedding`, unit rows of CLIP space, zero for points without one."""
    rows = labels.embedding
    width = (rows.shape[1],)
    points = _placed(sweep, np.dtype([(n, "<f4") for n in "xyz"] + [("embedding", "<f4", width)]))
    points["embedding"] = rows
    return points


def similar_points(
    sweep: Sweep, labels: Labels, phrase: np.ndarray, rivals: np.ndarray, threshold: float
) -> tuple[np.ndarray, float]:
    """The points that a phrase means, and the highest cosine of any point.

    Args:
        phrase: (E,) float32, a unit vector in CLIP space. rivals: (R, E), other phrases.

    Returns:
        (M,) with x y z, `similarity`, the cosine, where it is at least `threshold`, and `margin`,
        how much it exceeds the best rival's: above 0 nothing else says better what this is.
    """
    rows = labels.voxel_embedding  # made on demand
    of_voxel = rows @ phrase
    cosine = at_points(of_voxel, labels.inverse)
    points = _placed(sweep, np.dtype([(n, "<f4") for n in (*"xyz", "similarity", "margin")]))
    points["similarity"] = cosine
    points["margin"] = at_points(of_voxel - (rows @ rivals.T).max(1, initial=-1.0), labels.inverse)
    known = labels.inverse >= 0
    chosen = known & (cosine >= threshold)
    return points[chosen], float(cosine[known].max(initial=-1.0))


def packed_rgb(vocabulary: Vocabulary, ids: np.ndarray) -> np.ndarray:
    """(N,) float32: the classes' colours in a float's bits."""
    red, green, blue = vocabulary.palette.astype(np.uint32).T
    return ((red << 16) | (green << 8) | blue).view(np.float32)[ids]


def inside_box(xyz: np.ndarray, box_from_points: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """(N,) bool: whether a point lies in a box of another frame.

    Args:
        box_from_points: (4, 4), takes the points to the box's frame.
        box: least x y z, then greatest x y z, metres, in its own frame.
    """
    local = transform_points(box_from_points, xyz)
    with np.errstate(invalid="ignore"):
        return ((local >= box[:3]) & (local <= box[3:])).all(1)


def _placed(sweep: Sweep, dtype: np.dtype) -> np.ndarray:
    """Points of a dtype, all zero but for x y z."""
    points = np.zeros(len(sweep), dtype)
    for i, name in enumerate("xyz"):
        points[name] = sweep.points[:, i]
    return points
