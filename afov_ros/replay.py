"""Plays a bag's clouds into a topic at the sensor's own pace.

python -m afov_ros.replay test.mcap --topic /lidar_top
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2

from afov.clouds import stamp_of
from afov.errors import InputError

# A recording that pauses need not be waited for.
LONGEST_PAUSE = 1.5


def serialized_clouds(bag: Path, topic: str) -> Iterator[tuple[int, bytes]]:
    """(stamp in nanoseconds, CDR bytes) of every cloud on a topic of a ROS 2 bag.

    Raises:
        InputError: the bag has no such topic.
    """
    from rosbags.highlevel import AnyReader

    with AnyReader([bag]) as reader:
        found = [c for c in reader.connections if c.topic == topic]
        if not found:
            raise InputError(f"{bag}: no topic {topic!r}")
        for connection, _, raw in reader.messages(connections=found):
            message: Any = reader.deserialize(raw, connection.msgtype)
            yield stamp_of(message.header), bytes(raw)


def replay(bag: Path, topic: str, patience: float = 30.0) -> int:
    """Waits for a subscriber, then publishes every cloud when it is due.

    Returns:
        How many were published.

    Raises:
        InputError: nobody subscribes within `patience` seconds.
    """
    clouds = list(serialized_clouds(bag, topic))
    node = rclpy.create_node("afov_replay")
    qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
    publisher = node.create_publisher(PointCloud2, topic, qos)
    until = time.monotonic() + patience
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > until:
            raise InputError(f"nobody subscribes to {topic} within {patience:.0f} s")
        time.sleep(0.05)
    time.sleep(0.5)  # the subscriber's own matching may lag a little behind
    due, before = time.monotonic(), clouds[0][0]
    for stamp, data in clouds:
        due += min((stamp - before) / 1e9, LONGEST_PAUSE)
        before = stamp
        time.sleep(max(0.0, due - time.monotonic()))
        publisher.publish(data)
    time.sleep(1.0)  # what is under way must leave before the process ends
    node.destroy_node()
    return len(clouds)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--topic", default="/lidar_top")
    args = parser.parse_args()
    rclpy.init()
    try:
        print(f"published {replay(args.bag, args.topic)} clouds")
    except InputError as error:
        print(f"replay: {error}", file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
