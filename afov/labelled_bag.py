"""An MCAP of a recording's own messages and the labelled clouds beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from afov.clouds import point_fields
from afov.frames import Sweep

SEGMENTATION = "/afov/segmentation"
CLOUD = "sensor_msgs/msg/PointCloud2"


@contextmanager
def labelled_bag(out: Path) -> Iterator[LabelledBag]:
    """An MCAP that appears under its name when it is whole."""
    from mcap.writer import CompressionType, Writer

    partial = out.with_name(out.name + ".part")
    try:
        with partial.open("wb") as stream:
            writer = Writer(stream, compression=CompressionType.ZSTD)
            writer.start(profile="ros2", library="afov")
            yield LabelledBag(writer)
            writer.finish()
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


class LabelledBag:
    """Messages of a bag, as they are, and labelled clouds."""

    def __init__(self, writer: Any) -> None:
        from rosbags.typesys import Stores, get_typestore

        self.writer, self.store = writer, get_typestore(Stores.ROS2_JAZZY)
        self.labelled: int | None = None

    def copy(self, bag: Path) -> None:
        """Every message: of an MCAP in its own encoding, of other bags as ROS 2 CDR."""
        if bag.is_file() and bag.suffix == ".mcap":
            self._copy_mcap(bag)
        else:
            self._copy_bag(bag)

    def _copy_mcap(self, bag: Path) -> None:
        from mcap.reader import make_reader

        channels: dict[int, int] = {}
        with bag.open("rb") as stream:
            for schema, channel, message in make_reader(stream).iter_messages():
                if channel.id not in channels:
                    kind = 0
                    if schema is not None:
                        kind = self.writer.register_schema(
                            schema.name, schema.encoding, schema.data
                        )
                    channels[channel.id] = self.writer.register_channel(
                        channel.topic, channel.message_encoding, kind, channel.metadata
                    )
                self.writer.add_message(
                    channels[channel.id], message.log_time, message.data, message.publish_time
                )

    def _copy_bag(self, bag: Path) -> None:
        from rosbags.highlevel import AnyReader

        channels: dict[str, int] = {}
        with AnyReader([bag], default_typestore=self.store) as source:
            for connection, stamp, raw in source.messages():
                kind = connection.msgtype
                if connection.topic not in channels:
                    text = source.typestore.generate_msgdef(kind, ros_version=2)[0]
                    schema = self.writer.register_schema(kind, "ros2msg", text.encode())
                    channels[connection.topic] = self.writer.register_channel(
                        connection.topic, "cdr", schema
                    )
                cdr = raw if source.is2 else source.typestore.ros1_to_cdr(raw, kind)
                self.writer.add_message(channels[connection.topic], stamp, bytes(cdr), stamp)

    def put_cloud(self, sweep: Sweep, points: np.ndarray) -> None:
        """Labelled points (N,) at the sweep's stamp and in its frame."""
        types = self.store.types
        time = types["builtin_interfaces/msg/Time"](*divmod(sweep.stamp, 10**9))
        header = types["std_msgs/msg/Header"](time, sweep.frame_id)
        fields = [types["sensor_msgs/msg/PointField"](*f) for f in point_fields(points.dtype)]
        data = np.frombuffer(points.tobytes(), np.uint8)
        step = points.dtype.itemsize
        message = types[CLOUD](
            header, 1, len(points), fields, False, step, step * len(points), data, False
        )
        self.put(bytes(self.store.serialize_cdr(message, CLOUD)), sweep.stamp)

    def put(self, data: bytes, log_time: int) -> None:
        """A labelled cloud as CDR."""
        if self.labelled is None:
            text = self.store.generate_msgdef(CLOUD)[0].encode()
            schema = self.writer.register_schema(CLOUD, "ros2msg", text)
            self.labelled = self.writer.register_channel(SEGMENTATION, "cdr", schema)
        self.writer.add_message(self.labelled, log_time, data, log_time)
