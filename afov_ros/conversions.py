"""Labels to messages, and a requested vocabulary from one."""

from __future__ import annotations

import array
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from afov.clouds import point_fields
from afov.vocabulary import Vocabulary, distinct_color

Box = tuple[str, Sequence[float]]


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
    data.frombytes(np.ascontiguousarray(points).view(np.uint8).data)
    message.data = data
    return message


def chosen_message(message: Any, points: np.ndarray, keep: np.ndarray) -> Any:
    """The chosen points of a PointCloud2, in its own layout.

    Args:
        points: (N,) as `read_points` gives them. keep: (N,) bool.
    """
    from sensor_msgs.msg import PointCloud2

    # As opaque bytes: NumPy leaves the gaps between fields unwritten, whatever memory held.
    chosen = points.view(np.dtype((np.void, message.point_step)))[keep]
    data = array.array("B")
    data.frombytes(chosen.tobytes())
    result = PointCloud2(
        header=message.header,
        height=1,
        width=len(chosen),
        fields=message.fields,
        is_bigendian=message.is_bigendian,
        point_step=message.point_step,
        row_step=len(data),
        is_dense=message.is_dense,
    )
    result.data = data
    return result


def image_message(pixels: np.ndarray, stamp: int, frame_id: str) -> Any:
    """A sensor_msgs/Image, rgb8, of (H, W, 3) uint8 at a time in nanoseconds."""
    from sensor_msgs.msg import Image

    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
    message.header.frame_id = frame_id
    data = array.array("B")
    data.frombytes(pixels.tobytes())
    message.data = data
    return message


def vocabulary_message(vocabulary: Vocabulary, version: int, header: Any) -> Any:
    """An afov_ros/Vocabulary."""
    from afov_ros.msg import Category
    from afov_ros.msg import Vocabulary as Message

    classes = [
        Category(
            id=class_id,
            name=category.name,
            phrases=list(category.phrases),
            color=color_message(category.color),
            thing=category.thing,
        )
        for class_id, category in enumerate(vocabulary.labelled, start=1)
    ]
    return Message(header=header, version=version, name=vocabulary.name, classes=classes)


def vocabulary_of(request: Any) -> Vocabulary:
    """The vocabulary of an afov_ros/SetVocabulary request.

    Raises:
        InputError: a class without a name or phrase, one that stands twice, a colour that is none.
    """
    classes = []
    for index, category in enumerate(request.classes):
        color = category.color
        rgb = [v * 255 for v in (color.r, color.g, color.b)]
        entry: dict[str, Any] = {"name": category.name, "thing": bool(category.thing)}
        # NaN is no whole number of 0 to 255, and is refused as such.
        entry["color"] = [round(v) if math.isfinite(v) else -1 for v in rgb]
        if color.a == 0:
            entry["color"] = list(distinct_color(index))
        if category.phrases:
            entry["phrases"] = list(category.phrases)
        classes.append(entry)
    name = request.name or "set_vocabulary"
    return Vocabulary.from_dict({"name": name, "classes": classes}, f"vocabulary {name}")


def label_info_message(vocabulary: Vocabulary, threshold: float, header: Any) -> Any:
    """A vision_msgs/LabelInfo: names of the ids. ImportError where vision_msgs is missing."""
    from vision_msgs.msg import LabelInfo, VisionClass

    names = [
        VisionClass(class_id=i, class_name=c.name)
        for i, c in enumerate(vocabulary.labelled, start=1)
    ]
    return LabelInfo(header=header, class_map=names, threshold=threshold)


def legend_markers(vocabulary: Vocabulary, frame_id: str, box: Box | None) -> list[Any]:
    """visualization_msgs/Marker: class names in their colours, and the ego box.

    Args:
        frame_id: the sensor's frame; the names stand in a column beside it.
        box: frame, then least x y z, greatest x y z, metres.
    """
    from visualization_msgs.msg import Marker

    markers = [Marker(action=Marker.DELETEALL)]
    for i, category in enumerate(vocabulary.labelled):
        marker = Marker(ns="legend", id=i, type=Marker.TEXT_VIEW_FACING, text=category.name)
        marker.header.frame_id = frame_id
        marker.pose.position.x, marker.pose.position.y = -10.0, 12.0
        marker.pose.position.z = 10.0 - 0.9 * i
        marker.scale.z = 0.8
        marker.color = color_message(category.color)
        markers.append(marker)
    if box is not None:
        frame, limits = box
        marker = Marker(ns="ego_box", type=Marker.CUBE, color=color_message((255, 255, 255), 0.25))
        marker.header.frame_id = frame
        for axis, low, high in zip("xyz", limits[:3], limits[3:], strict=True):
            setattr(marker.pose.position, axis, (low + high) / 2)
            setattr(marker.scale, axis, high - low)
        markers.append(marker)
    for marker in markers:
        marker.frame_locked = True
    return markers


def color_message(rgb: tuple[int, int, int], alpha: float = 1.0) -> Any:
    """A std_msgs/ColorRGBA of 0..255."""
    from std_msgs.msg import ColorRGBA

    r, g, b = (v / 255 for v in rgb)
    return ColorRGBA(r=r, g=g, b=b, a=alpha)
