"""What a vehicle sends, from a bag played again and again: clouds, images, poses, and mishaps.

Run by `soak.py`, in a process of its own. A cloud's stamp is the time it is sent at, its last three
digits the cloud's number in the bag: who listens knows which cloud came back.
"""

from __future__ import annotations

import argparse
import importlib.util
import struct
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from afov_ros.subscriptions import stamp_in

CLOUD = "/lidar_top"
KEPT = 24  # messages of a topic, at most
JUMP_NS = 1000 * 10**9
HAS_TF = importlib.util.find_spec("tf2_msgs") is not None
EVENTS = (
    "all is well",
    "one camera unplugged",
    "all cameras unplugged",
    "tf stopped",
    "time jumped back",
    "100 vocabularies",
)


def recorded(bag: Path) -> dict[str, tuple[str, list[bytes]]]:
    """Topic: type and serialised messages, of clouds, images, their camera_info and tf_static."""
    from rosbags.highlevel import AnyReader

    found: dict[str, tuple[str, list[bytes]]] = {}
    with AnyReader([bag]) as reader:
        wanted = [
            c for c in reader.connections
            if not c.topic.startswith("/truth")
            and (c.topic == "/tf_static" or c.msgtype.startswith("sensor_msgs/"))
        ]  # fmt: skip
        for connection, _, raw in reader.messages(connections=wanted):
            kind = found.setdefault(connection.topic, (connection.msgtype, []))
            if len(kind[1]) < KEPT:
                kind[1].append(bytes(raw))
    return found


def restamped(data: bytes, stamp: int) -> bytes:
    """A serialised message that begins with a header (little-endian CDR), at another time."""
    raw = bytearray(data)
    struct.pack_into("<iI", raw, 4, *divmod(stamp, 10**9))
    return bytes(raw)


def original_stamps(bag: Path) -> list[int]:
    """Of the clouds, by number."""
    return [stamp_in(data) for data in recorded(bag)[CLOUD][1]]


class Player:
    """Publishers, and what goes wrong with them."""

    def __init__(self, bag: Path) -> None:
        import rclpy
        from rclpy.qos import DurabilityPolicy, QoSProfile

        self.node, self.messages = rclpy.create_node("soak_player"), recorded(bag)
        static = self.messages.pop("/tf_static")[1][0]
        self.publishers = {}
        for topic, (kind, _) in self.messages.items():
            package, _, name = kind.split("/")
            message = getattr(import_module(f"{package}.msg"), name)
            self.publishers[topic] = self.node.create_publisher(message, topic, QoSProfile(depth=1))
        self.cameras = sorted({t.split("/")[1] for t in self.messages if t != CLOUD})
        if HAS_TF:
            from tf2_msgs.msg import TFMessage

            latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self.static = self.node.create_publisher(TFMessage, "/tf_static", latched)
            self.static.publish(static)
            self.tf = self.node.create_publisher(TFMessage, "/tf", 10)

    def send(self, count: int, event: str) -> int:
        """One turn of the LiDAR; images come at half its rate. The cloud's stamp."""
        now = time.time_ns() // 1000 * 1000
        if event == "time jumped back":
            now -= JUMP_NS
        if HAS_TF and event != "tf stopped":
            self.tf.publish(drive(now))
        silent = {"one camera unplugged": self.cameras[:1], "all cameras unplugged": self.cameras}
        number = count % len(self.messages[CLOUD][1])
        for topic, (_, recording) in self.messages.items():
            camera = topic.split("/")[1]
            if topic != CLOUD and count % 2 == 0 and camera not in silent.get(event, ()):
                self.publishers[topic].publish(restamped(recording[number], now))
        self.publishers[CLOUD].publish(restamped(self.messages[CLOUD][1][number], now + number))
        return now + number


def drive(stamp: int) -> Any:
    """A tf2_msgs/TFMessage: straight ahead at 10 m/s."""
    from geometry_msgs.msg import TransformStamped
    from tf2_msgs.msg import TFMessage

    pose = TransformStamped(child_frame_id="base_link")
    pose.header.frame_id = "map"
    pose.header.stamp.sec, pose.header.stamp.nanosec = divmod(stamp, 10**9)
    pose.transform.translation.x = stamp % 10**12 / 1e8
    return TFMessage(transforms=[pose])


def main() -> None:
    """Plays the phases named, each its seconds long; says when one begins; saves the stamps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--stamps", type=Path, required=True)
    parser.add_argument("--phase", action="append", nargs=2, metavar=("NAME", "SECONDS"))
    args = parser.parse_args()
    import rclpy

    rclpy.init()
    player = Player(args.bag)
    while player.publishers[CLOUD].get_subscription_count() == 0:
        time.sleep(0.1)
    time.sleep(1)  # the cameras' subscriptions too
    stamps, began = [], time.monotonic()
    for name, seconds in args.phase:
        print(name, flush=True)
        last = len(stamps) + round(float(seconds) * args.rate)
        while len(stamps) < last:
            time.sleep(max(0.0, began + len(stamps) / args.rate - time.monotonic()))
            stamps.append(player.send(len(stamps), name))
    np.save(args.stamps, np.array(stamps, np.int64))
    rclpy.shutdown()


if __name__ == "__main__":
    main()
