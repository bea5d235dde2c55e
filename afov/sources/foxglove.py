"""MCAPs that rosbags refuses: Foxglove's protobuf messages, as nuscenes2mcap writes them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from afov.errors import InputError
from afov.sources.messages import KINDS, Topic

# Foxglove counts unsigned before signed; sensor_msgs/PointField the other way about.
DATATYPES = {1: 2, 2: 1, 3: 4, 4: 3, 5: 6, 6: 5, 7: 7, 8: 8}
SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 8: 8}


def is_foreign_mcap(path: Path) -> bool:
    """Whether this is an MCAP with another profile than ROS 2, or with channels of other kinds."""
    from mcap.reader import make_reader

    if path.suffix != ".mcap" or not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            reader = make_reader(stream)
            profile = reader.get_header().profile
            summary = reader.get_summary()
    except Exception:  # not readable: rosbags will say so
        return False
    encodings = {c.message_encoding for c in summary.channels.values()} if summary else set()
    return profile != "ros2" or bool(encodings - {"cdr"})


class FoxgloveReader:
    """Any MCAP with protobuf or CDR channels; other encodings are left alone."""

    def __init__(self, path: Path) -> None:
        from mcap.reader import make_reader

        self.path = path
        try:
            with path.open("rb") as stream:
                summary = make_reader(stream).get_summary()
        except Exception as error:  # mcap raises many types on broken files
            raise InputError(f"{path}: cannot be read as an MCAP ({error})") from None
        if summary is None:
            raise InputError(f"{path}: has no summary; repair it with `mcap recover`")
        counts = summary.statistics.channel_message_counts if summary.statistics else {}
        self.topics = tuple(
            Topic(c.topic, summary.schemas[c.schema_id].name, counts.get(i, 0))
            for i, c in sorted(summary.channels.items())
            if c.schema_id in summary.schemas and c.message_encoding in ("protobuf", "cdr")
        )

    def messages(self, names: Collection[str]) -> Iterator[tuple[Topic, Any]]:
        """Messages of the named topics, in file order, with sensor_msgs' attributes."""
        from mcap.reader import make_reader
        from mcap_protobuf.decoder import DecoderFactory as Protobuf
        from mcap_ros2.decoder import DecoderFactory as Ros2

        by_name = {t.name: t for t in self.topics}
        wanted = [n for n in names if n in by_name]
        if not wanted:
            return
        factories = (Protobuf(), Ros2())
        decoders: dict[int, Any] = {}
        with self.path.open("rb") as stream:
            stored = make_reader(stream).iter_messages(topics=wanted)
            while True:
                try:
                    schema, channel, raw = next(stored)
                except StopIteration:
                    return
                except Exception as error:  # mcap raises many types on broken files
                    raise InputError(f"{self.path}: damaged: {error}") from None
                topic = by_name[channel.topic]
                try:
                    if channel.id not in decoders:
                        found = (f.decoder_for(channel.message_encoding, schema) for f in factories)
                        decoders[channel.id] = next(decoder for decoder in found if decoder)
                    message = decoders[channel.id](raw.data)
                    adapt = _ADAPTERS.get(topic.type)
                    message = adapt(message) if adapt else message
                except Exception:  # bytes that are no such message
                    message = None
                yield topic, message


def _header(message: Any) -> SimpleNamespace:
    time = message.timestamp
    stamp = SimpleNamespace(sec=time.seconds, nanosec=time.nanos)
    return SimpleNamespace(stamp=stamp, frame_id=getattr(message, "frame_id", ""))


def _cloud(message: Any) -> SimpleNamespace:
    fields = []
    for field in message.fields:
        if field.type not in DATATYPES:
            raise InputError(f"cloud field {field.name!r}: unknown Foxglove type {field.type}")
        datatype = DATATYPES[field.type]
        fields.append(
            SimpleNamespace(name=field.name, offset=field.offset, datatype=datatype, count=1)
        )
    step = message.point_stride
    if step <= 0 or len(message.data) % step:
        raise InputError(f"cloud: {len(message.data)} bytes are no multiple of stride {step}")
    count = len(message.data) // step
    return SimpleNamespace(
        header=_header(message), height=1, width=count, fields=fields, is_bigendian=False,
        point_step=step, row_step=step * count, data=message.data, is_dense=False,
    )  # fmt: skip


def _compressed(message: Any) -> SimpleNamespace:
    return SimpleNamespace(header=_header(message), format=message.format, data=message.data)


def _raw(message: Any) -> SimpleNamespace:
    return SimpleNamespace(
        header=_header(message), height=message.height, width=message.width,
        encoding=message.encoding, step=message.step, data=message.data, is_bigendian=False,
    )  # fmt: skip


def _info(message: Any) -> SimpleNamespace:
    return SimpleNamespace(
        header=_header(message), height=message.height, width=message.width,
        distortion_model=message.distortion_model or "none", d=list(message.D),
        k=list(message.K), p=list(message.P),
    )  # fmt: skip


def _transform(message: Any) -> SimpleNamespace:
    stamped = SimpleNamespace(
        header=SimpleNamespace(stamp=_header(message).stamp, frame_id=message.parent_frame_id),
        child_frame_id=message.child_frame_id,
        transform=SimpleNamespace(translation=message.translation, rotation=message.rotation),
    )
    return SimpleNamespace(transforms=[stamped])


def _transforms(message: Any) -> SimpleNamespace:
    several = [_transform(t).transforms[0] for t in message.transforms]
    return SimpleNamespace(transforms=several)


_ADAPTERS = {
    "foxglove.PointCloud": _cloud,
    "foxglove.CompressedImage": _compressed,
    "foxglove.RawImage": _raw,
    "foxglove.CameraCalibration": _info,
    "foxglove.FrameTransform": _transform,
    "foxglove.FrameTransforms": _transforms,
}
assert set(_ADAPTERS) <= set(KINDS)
