"""Labels to messages."""

from __future__ import annotations

import array
from typing import Any

import numpy as np

from afov.clouds import point_fields
from afov.vocabulary import Vocabulary


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
