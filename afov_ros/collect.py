"""Keeps every cloud of a topic as a file of its serialised bytes, named by its stamp.

python -m afov_ros.collect FOLDER --topic /afov/segmentation --count 24
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import PointCloud2

from afov.clouds import stamp_of


def collect(folder: Path, topic: str, count: int, patience: float = 90.0) -> int:
    """Collects until `count` clouds came, or nothing came for `patience` seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    node = rclpy.create_node("afov_collect")
    last = [time.monotonic()]
    stamps: set[int] = set()

    def keep(data: bytes) -> None:
        stamp = stamp_of(deserialize_message(data, PointCloud2).header)
        (folder / f"{stamp}.cdr").write_bytes(data)
        stamps.add(stamp)
        last[0] = time.monotonic()

    qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
    node.create_subscription(PointCloud2, topic, keep, qos, raw=True)
    try:
        while node.count_publishers(topic) == 0 and time.monotonic() - last[0] < patience:
            rclpy.spin_once(node, timeout_sec=0.1)
        # Whoever plays the input waits for this line: what is published before it may be missed.
        print(f"collecting {topic}", flush=True)
        while len(stamps) < count and time.monotonic() - last[0] < patience:
            rclpy.spin_once(node, timeout_sec=0.5)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    node.destroy_node()
    return len(stamps)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--count", type=int, default=sys.maxsize)
    args = parser.parse_args()
    rclpy.init()
    collect(args.folder, args.topic, args.count)
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
