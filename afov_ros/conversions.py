"""Labels to messages."""

from __future__ import annotations

import array
from typing import Any

import numpy as np

from afov.clouds import point_fields
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


def cloud_message(points: np.ndarray, header: Any) -> Any:
    """A sensor_msgs/PointCloud2 of a structured array."""
    from sensor_msgs.msg import PointCloud2, PointField

    message = PointCloud2(header=header, height=1, width=len(points), is_dense=False)
    message.fields = [
        PointField(name=name, offset=offset, datatype=datatype, count=count)
        for name, offset, datatype, count in point_fields(points.dtype)
    ]
    message.point_step = points.dtype.itemsize
    message.row_step = points.nbytes
    # array.array: rclpy checks any other type byte by byte, thirty times slower.
    data = array.array("B")
    data.frombytes(points.tobytes())
    message.data = data
    return message


def vocabulary_message(vocabulary: Vocabulary, header: Any) -> Any:
    """An afov_ros/Vocabulary."""
    from std_msgs.msg import ColorRGBA

    from afov_ros.msg import Category
    from afov_ros.msg import Vocabulary as Message

    classes = []
    for class_id, category in enumerate(vocabulary.labelled, start=1):
        r, g, b = (v / 255 for v in category.color)
        classes.append(
            Category(
                id=class_id,
                name=category.name,
                phrases=list(category.phrases),
                color=ColorRGBA(r=r, g=g, b=b, a=1.0),
                thing=category.thing,
            )
        )
    return Message(header=header, name=vocabulary.name, classes=classes)
