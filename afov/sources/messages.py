"""What a bag's reader gives, whatever the format: topics by kind, messages in file order."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from afov.errors import InputError

Kind = Literal["cloud", "image", "compressed", "info", "tf", "tf_static", "other"]

KINDS: dict[str, Kind] = {
    "sensor_msgs/msg/PointCloud2": "cloud",
    "sensor_msgs/msg/Image": "image",
    "sensor_msgs/msg/CompressedImage": "compressed",
    "sensor_msgs/msg/CameraInfo": "info",
    "tf2_msgs/msg/TFMessage": "tf",
    "foxglove.PointCloud": "cloud",
    "foxglove.RawImage": "image",
    "foxglove.CompressedImage": "compressed",
    "foxglove.CameraCalibration": "info",
    "foxglove.FrameTransform": "tf",
    "foxglove.FrameTransforms": "tf",
}


@dataclass(frozen=True)
class Topic:
    """A topic of a bag."""

    name: str
    type: str
    count: int

    @property
    def kind(self) -> Kind:
        """What it carries, by its type."""
        kind = KINDS.get(self.type, "other")
        return "tf_static" if kind == "tf" and self.name.endswith("tf_static") else kind


class Reader(Protocol):
    """An open bag. Messages have the attributes of their sensor_msgs counterparts."""

    topics: tuple[Topic, ...]

    def messages(self, names: Collection[str]) -> Iterator[tuple[Topic, Any]]:
        """Messages of the named topics alone, in file order; others are not even decoded.

        One that cannot be decoded is None; the caller counts it.
        """
        ...


def open_reader(path: Path) -> Reader:
    """The reader for a file or folder.

    Raises:
        InputError: it does not exist, is truncated, or is no bag.
    """
    from afov.sources.foxglove import FoxgloveReader, is_foreign_mcap
    from afov.sources.rosbag import RosbagReader

    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected a bag")
    return FoxgloveReader(path) if is_foreign_mcap(path) else RosbagReader(path)
