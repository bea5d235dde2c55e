"""afov-predict: a recording with its labels beside it, made offline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afov.afi import Mode
from afov.clouds import point_fields, to_sweep
from afov.errors import InputError
from afov.frames import Sweep
from afov.labelled import labelled_points
from afov.student import Student

LABELLED = "/afov/segmentation"


@dataclass(frozen=True)
class Predict:
    """Labels every sweep of a bag; writes an MCAP of the bag's messages and the labelled clouds."""

    bag: Path | None = None
    """ROS 1 bag, rosbag2 folder, .mcap or .db3; cameras are not needed."""
    model: Path = Path("runs/latest/model")
    """The model folder."""
    out: Path = Path("labelled.mcap")
    cloud_topic: str | None = None
    """The LiDAR's topic, when the bag has more than one cloud."""
    afi: Mode = "off"
    """Whether geometry corrects the labels: off, refined, or paper."""
    threshold: float = 0.0
    """Points with a lower probability become 255, unknown."""

    def run(self) -> None:
        """Writes `out`, whole or not at all; says how fast, and what was left out."""
        from afov.sources.bags import choose_cloud, open_reader
        from afov_train.progress import track

        if self.bag is None:
            raise InputError("name a recording: --bag FILE")
        if self.out.resolve() == self.bag.resolve():
            raise InputError(f"--out {self.out}: is the recording itself")
        reader = open_reader(self.bag)
        cloud = choose_cloud(self.bag, reader.topics, self.cloud_topic)
        student = Student.open(self.model)
        skipped: dict[str, int] = {}
        began, stamps = time.monotonic(), []
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with labelled_bag(self.out) as target:
            target.copy(self.bag)
            for _, message in track(reader.messages([cloud.name]), "predict", cloud.count):
                try:
                    if message is None:
                        raise InputError("damaged message")
                    sweep = to_sweep(message)
                    labels = student.corrected(student.label(sweep), sweep, self.afi)
                except InputError as error:
                    skipped[str(error)] = skipped.get(str(error), 0) + 1
                    continue
                points = labelled_points(sweep, labels, student.vocabulary, self.threshold)
                target.put_cloud(sweep, points)
                stamps.append(sweep.stamp)
            if not stamps:
                raise InputError(f"{self.bag}: no sweep could be labelled: {skipped or 'none'}")
        self._report(stamps, time.monotonic() - began, skipped)

    def _report(self, stamps: list[int], seconds: float, skipped: dict[str, int]) -> None:
        recorded = (max(stamps) - min(stamps)) / 1e9
        print(
            f"{len(stamps)} sweeps in {seconds:.0f} s, {len(stamps) / seconds:.1f} a second; "
            f"the recording spans {recorded:.0f} s"
        )
        for why, count in skipped.items():
            print(f"skipped {count} x {why}")
        print(f"{self.out}: {LABELLED} beside the recording's own topics")


@contextmanager
def labelled_bag(out: Path) -> Iterator[_Mcap]:
    """An MCAP that appears under its name when it is whole."""
    from mcap.writer import CompressionType, Writer

    partial = out.with_name(out.name + ".part")
    try:
        with partial.open("wb") as stream:
            writer = Writer(stream, compression=CompressionType.ZSTD)
            writer.start(profile="ros2", library="afov")
            yield _Mcap(writer)
            writer.finish()
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


class _Mcap:
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
        """A labelled cloud at the sweep's stamp."""
        types, kind = self.store.types, "sensor_msgs/msg/PointCloud2"
        if self.labelled is None:
            text = self.store.generate_msgdef(kind)[0].encode()
            schema = self.writer.register_schema(kind, "ros2msg", text)
            self.labelled = self.writer.register_channel(LABELLED, "cdr", schema)
        time_ = types["builtin_interfaces/msg/Time"](*divmod(sweep.stamp, 10**9))
        header = types["std_msgs/msg/Header"](time_, sweep.frame_id)
        fields = [types["sensor_msgs/msg/PointField"](*f) for f in point_fields(points.dtype)]
        data = np.frombuffer(points.tobytes(), np.uint8)
        step = points.dtype.itemsize
        message = types[kind](
            header, 1, len(points), fields, False, step, step * len(points), data, False
        )
        raw = bytes(self.store.serialize_cdr(message, kind))
        self.writer.add_message(self.labelled, sweep.stamp, raw, sweep.stamp)
