"""ROS 1 bags, rosbag2 folders, single .mcap and .db3 files, through rosbags."""

from __future__ import annotations

from collections.abc import Collection, Iterator
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
        """Messages of the named topics, in file order."""
        by_name = {t.name: t for t in self.topics}
        with self._open() as bag:
            wanted = [c for c in bag.connections if c.topic in names]
            if not wanted:
                return
            try:
                for connection, _, raw in bag.messages(connections=wanted):
                    yield (
                        by_name[connection.topic],
                        bag.deserialize(raw, connection.msgtype),
                    )
            except InputError:
                raise
            except Exception as error:  # rosbags raises what its parsers meet
                raise InputError(f"{self.path}: damaged: {_line(error)}") from None

    def _open(self) -> Any:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore

        return _Opened(
            self.path, AnyReader([self.path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
        )


class _Opened:
    """An AnyReader whose failure to open is one line."""

    def __init__(self, path: Path, bag: Any) -> None:
        self.path, self.bag = path, bag

    def __enter__(self) -> Any:
        try:
            self.bag.open()
        except Exception as error:  # rosbags raises what its parsers meet
            raise InputError(
                f"{self.path}: cannot be read as a bag ({_line(error)}); a truncated recording "
                "can be repaired with `mcap recover` or `ros2 bag reindex`"
            ) from None
        return self.bag

    def __exit__(self, *_: object) -> None:
        self.bag.close()


def _line(error: Exception) -> str:
    return " ".join(f"{error}".split()) or type(error).__name__
