"""ROS 1 bags, rosbag2 folders, single .mcap and .db3 files, through rosbags."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from afov.errors import InputError
from afov.sources.messages import Topic


class RosbagReader:
    """What `rosbags` opens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as bag:
            self.topics = tuple(
                Topic(name, info.msgtype or "several types", info.msgcount)
                for name, info in sorted(bag.topics.items())
            )

    def messages(self, names: Collection[str]) -> Iterator[tuple[Topic, Any]]:
        """Messages of the named topics, in file order; None for one that cannot be decoded."""
        by_name = {t.name: t for t in self.topics}
        with self._open() as bag:
            wanted = [c for c in bag.connections if c.topic in names]
            if not wanted:
                return
            stored = bag.messages(connections=wanted)
            while True:
                try:
                    connection, _, raw = next(stored)
                except StopIteration:
                    return
                except Exception as error:  # rosbags raises what its parsers meet
                    raise InputError(f"{self.path}: damaged: {_line(error)}") from None
                try:
                    message = bag.deserialize(raw, connection.msgtype)
                except Exception:  # bytes that are no such message
                    message = None
                yield by_name[connection.topic], message

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """An AnyReader whose failure to open is one line."""
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore

        store = get_typestore(Stores.ROS2_JAZZY)
        try:
            bag = AnyReader([self.path], default_typestore=store)
            bag.open()
        except Exception as error:  # rosbags raises what its parsers meet
            raise InputError(
                f"{self.path}: cannot be read as a bag ({_line(error)}); a truncated recording "
                "can be repaired with `mcap recover` or `ros2 bag reindex`"
            ) from None
        try:
            yield bag
        finally:
            bag.close()


def _line(error: Exception) -> str:
    return " ".join(f"{error}".split()) or type(error).__name__
