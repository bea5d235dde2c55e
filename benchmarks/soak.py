"""The node under load for minutes: what is lost, how late sweeps are, whether memory grows.

    python benchmarks/soak.py --model DIR --bag drive.mcap [--minutes 10] [--rate 20] [--overlays]

Node, player and this listener are processes of their own on real DDS. The player sends the bag's
clouds at `--rate` and its cameras' images at half of it, again and again, stamped with the time
they are sent at.
"""

from __future__ import annotations

import argparse
import os
import signal
import struct
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

CLOUD = "/lidar_top"
NODE = "/afov"


def restamped(data: bytes, now_ns: int) -> bytes:
    """A serialised message that begins with a header (little-endian CDR), at another time."""
    raw = bytearray(data)
    struct.pack_into("<iI", raw, 4, *divmod(now_ns, 10**9))
    return bytes(raw)


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
            if len(kind[1]) < 24:
                kind[1].append(bytes(raw))
    return found


def play(bag: Path, rate: float, seconds: float) -> None:
    """Sends until the time is up; says how many clouds."""
    from importlib import import_module

    import rclpy
    from rclpy.qos import DurabilityPolicy, QoSProfile

    rclpy.init()
    node = rclpy.create_node("soak_player")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publishers, messages = {}, recorded(bag)
    for topic, (kind, _) in messages.items():
        package, _, name = kind.split("/")
        qos = latched if topic == "/tf_static" else QoSProfile(depth=1)
        message = getattr(import_module(f"{package}.msg"), name)
        publishers[topic] = node.create_publisher(message, topic, qos)
    publishers["/tf_static"].publish(messages.pop("/tf_static")[1][0])
    while publishers[CLOUD].get_subscription_count() == 0:
        time.sleep(0.1)
    time.sleep(1)
    began, count = time.monotonic(), 0
    while (due := began + count / rate) < began + seconds:
        time.sleep(max(0.0, due - time.monotonic()))
        now = time.time_ns()
        for topic, (_, recording) in messages.items():
            if topic == CLOUD or count % 2 == 0:
                publishers[topic].publish(restamped(recording[count % len(recording)], now))
        count += 1
    print(count, flush=True)
    rclpy.shutdown()


class Listener:
    """Latency of every labelled cloud, times by part, drops by the node's own count, memory."""

    def __init__(self, process: Any, cameras: list[str], overlays: bool) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from sensor_msgs.msg import Image, PointCloud2
        from std_msgs.msg import Float64

        from afov_ros.cameras import CameraInput
        from afov_ros.outputs import DEBUG

        self.process, self.node = process, rclpy.create_node("soak_listener")
        self.latency: list[tuple[float, float]] = []
        self.memory: list[tuple[float, float]] = []
        self.parts: dict[str, list[float]] = defaultdict(list)
        self.counts: dict[str, str] = {}
        self.levels: dict[str, int] = defaultdict(int)
        self.pictures = 0
        listen = self.node.create_subscription
        listen(PointCloud2, f"{NODE}/segmentation", self.take, 5, raw=True)
        listen(DiagnosticArray, "/diagnostics", self.diagnose, 5)
        for name in DEBUG:
            listen(
                Float64, f"{NODE}/debug/{name}", lambda m, n=name: self.parts[n].append(m.data), 5
            )
        for camera in cameras if overlays else ():
            topic = f"{NODE}/overlay/{CameraInput.name_of(camera)}"
            listen(Image, topic, self.count_picture, 5, raw=True)
        self.node.create_timer(1.0, self.weigh)

    def take(self, data: bytes) -> None:
        from afov_ros.subscriptions import stamp_in

        self.latency.append((time.monotonic(), (time.time_ns() - stamp_in(data)) / 1e6))

    def count_picture(self, data: bytes) -> None:
        self.pictures += 1

    def diagnose(self, report: Any) -> None:
        for status in report.status:
            self.levels[f"{status.name.split(': ')[1]}: {ord(status.level)}"] += 1
            if status.name.endswith("segmentation"):
                self.counts = {v.key: v.value for v in status.values}

    def weigh(self) -> None:
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return
        self.memory.append((time.monotonic(), pages * os.sysconf("SC_PAGE_SIZE") / 2**20))

    def report(self, sent: int) -> None:
        """The numbers; growth is the slope of a straight line over the second half."""
        times, values = np.array(self.latency).T
        counts = ", ".join(f"{self.counts.get(k)} {k}" for k in ("labelled", "refused", "dropped"))
        print(f"sent {sent} clouds; came back {len(values)}; the node: {counts}")
        print(f"rate {len(values) / (times[-1] - times[0]):.1f} Hz; overlays {self.pictures}")
        print(f"{'ms':34}{'p50':>8}{'p95':>8}{'p99':>8}")
        rows = {"stamp to listener": values.tolist(), **self.parts}
        for name, row in rows.items():
            print(
                f"{name:34}"
                + "".join(f"{p:8.1f}" for p in np.percentile(row or [0.0], (50, 95, 99)))
            )
        half = times > times.mean()
        slope = np.polyfit(times[half] / 60, values[half], 1)[0]
        print(f"latency grows by {slope:+.1f} ms a minute (second half)")
        when, mib = np.array(self.memory).T
        half = when > when.mean()
        slope = np.polyfit(when[half] / 60, mib[half], 1)[0]
        print(f"memory {mib[0]:.0f} MiB at first, {mib.max():.0f} at most, {mib[-1]:.0f} at last; "
              f"grows by {slope:+.2f} MiB a minute (second half)")  # fmt: skip
        print(
            "MiB by 30 s:", *(f"{mib[when >= t][0]:.0f}" for t in np.arange(when[0], when[-1], 30))
        )
        print("diagnostics, seconds by level (0 ok, 1 warning, 2 error):", dict(self.levels))


def main() -> None:
    """Runs it, prints the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--bag", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--overlays", action="store_true", help="listen to every overlay too")
    parser.add_argument("--play", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.play:
        return play(args.bag, args.rate, 60 * args.minutes)
    from afov_ros.live import ros_environment

    environment = ros_environment(int(os.environ.get("ROS_DOMAIN_ID", "66")))
    os.environ.update(environment)
    import rclpy

    topics = recorded(args.bag)
    cameras = [t for t, (kind, _) in topics.items() if "Image" in kind]
    program = Path(sys.prefix) / "lib/afov_ros/afov_node"
    flags = [f"model:={args.model.resolve()}", f"cameras:=[{','.join(cameras)}]"]
    node = subprocess.Popen(
        [sys.executable, str(program), "--ros-args", "-r", f"~/input/pointcloud:={CLOUD}",
         *(f for flag in flags for f in ("-p", flag))],
        env=environment,
    )  # fmt: skip
    player = subprocess.Popen(
        [sys.executable, __file__, *sys.argv[1:], "--play"],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    rclpy.init()
    listener = Listener(node, cameras, args.overlays)
    try:
        while player.poll() is None:
            rclpy.spin_once(listener.node, timeout_sec=0.1)
        until = time.monotonic() + 3
        while time.monotonic() < until:
            rclpy.spin_once(listener.node, timeout_sec=0.1)
    finally:
        node.send_signal(signal.SIGINT)
        node.wait(timeout=10)
    assert player.stdout is not None
    listener.report(int(player.stdout.read() or 0))
    rclpy.shutdown()


if __name__ == "__main__":
    main()
