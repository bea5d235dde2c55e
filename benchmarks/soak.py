"""The node under load for minutes, and through mishaps: what is lost, how late, does memory grow.

    python benchmarks/soak.py --model DIR --bag drive.mcap [--minutes 10] [--rate 20] \\
        [--event-seconds 20] [--overlays] [--out runs/soak.md]

Node, player (soak_player.py) and this listener are processes of their own on real DDS. The first
run is steady; every cloud that comes back is compared, point for point, with what afov-predict
writes of the same bag. In the second a camera is unplugged, then all, tf stops, time jumps back,
and the vocabulary changes a hundred times. The summary is Markdown.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from soak_player import CLOUD, EVENTS, HAS_TF, JUMP_NS, original_stamps, recorded

NODE = "/afov"
CHANGES = 100
HERE = Path(__file__).parent


@dataclass
class Heard:
    """All that one run brought back; times are of the monotonic clock, seconds.

    Attributes:
        answers: (when, stamp in nanoseconds, latency in ms) of each labelled cloud.
        compared, differing: points against afov-predict.
        reports: (when, name, level, message, values) of each diagnostic status.
        phases: (when, name).
    """

    answers: list[tuple[float, int, float]] = field(default_factory=list)
    compared: int = 0
    differing: int = 0
    parts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    reports: list[tuple[float, str, int, str, dict[str, str]]] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    phases: list[tuple[float, str]] = field(default_factory=list)
    pictures: int = 0
    changed: int = 0
    refusal: str = ""
    stderr: str = ""
    exit_code: int | None = None
    sent: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


def predicted(model: Path, bag: Path, folder: Path) -> list[np.ndarray]:
    """(N,) labelled points of each of the player's clouds, by afov-predict."""
    from rosbags.highlevel import AnyReader

    from afov.clouds import read_points
    from afov.labelled_bag import SEGMENTATION
    from afov_ros.subscriptions import stamp_in

    out = folder / "predicted.mcap"
    call = "from afov_train.cli import predict; predict()"
    flags = ["--bag", str(bag), "--model", str(model), "--out", str(out)]
    subprocess.run([sys.executable, "-c", call, *flags], check=True, stdout=subprocess.DEVNULL)
    points = {}
    with AnyReader([out]) as reader:
        wanted = [c for c in reader.connections if c.topic == SEGMENTATION]
        for connection, _, raw in reader.messages(connections=wanted):
            message = reader.deserialize(raw, connection.msgtype)
            points[stamp_in(bytes(raw))] = read_points(message)
    return [points[stamp] for stamp in original_stamps(bag)]


class Listener:
    """Subscribes to what is measured."""

    def __init__(self, process: Any, cameras: list[str], labels: list[np.ndarray]) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from sensor_msgs.msg import Image, PointCloud2
        from std_msgs.msg import Float64

        from afov.sources.bag_topics import CameraTopics
        from afov_ros.outputs import DEBUG
        from afov_ros.srv import SetVocabulary

        self.process, self.labels, self.heard = process, labels, Heard()
        self.node = rclpy.create_node("soak_listener")
        listen = self.node.create_subscription
        listen(PointCloud2, f"{NODE}/segmentation", self.take, 5)
        listen(DiagnosticArray, "/diagnostics", self.diagnose, 5)
        parts = self.heard.parts
        for name in DEBUG:
            listen(Float64, f"{NODE}/debug/{name}", lambda m, n=name: parts[n].append(m.data), 5)
        for camera in cameras:
            topic = f"{NODE}/overlay/{CameraTopics.of(camera).name}"
            listen(Image, topic, self.count_picture, 5, raw=True)
        self.node.create_timer(1.0, self.weigh)
        self.client = self.node.create_client(SetVocabulary, f"{NODE}/set_vocabulary")
        self.asked: Any = None

    def take(self, message: Any) -> None:
        from afov.clouds import read_points, stamp_of

        stamp, points = stamp_of(message.header), read_points(message)
        age = time.time_ns() - stamp
        age -= JUMP_NS if age > JUMP_NS / 2 else 0
        self.heard.answers.append((time.monotonic(), stamp, age / 1e6))
        if len(points) and points["vocabulary"][0] == 1:
            expected = self.labels[stamp % 1000]
            same = points["class_id"] == expected["class_id"]
            self.heard.compared += len(points)
            self.heard.differing += int(len(points) - np.count_nonzero(same))

    def count_picture(self, data: bytes) -> None:
        self.heard.pictures += 1

    def diagnose(self, report: Any) -> None:
        now = time.monotonic()
        for s in report.status:
            values = {v.key: v.value for v in s.values}
            name = s.name.split(": ", 1)[1]
            self.heard.reports.append((now, name, ord(s.level), s.message, values))

    def weigh(self) -> None:
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return
        mib = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        self.heard.memory.append((time.monotonic(), mib))

    def change_vocabulary(self) -> None:
        """The next of a hundred, once the one before was answered."""
        from afov_ros.msg import Category
        from afov_ros.srv import SetVocabulary

        if self.asked is not None:
            if not self.asked.done():
                return
            answer = self.asked.result()
            self.heard.changed += bool(answer.success)
            self.heard.refusal = answer.message
        if self.heard.changed < CHANGES and not self.heard.refusal:
            names = ("road", "car", f"thing number {self.heard.changed}")
            classes = [Category(name=name) for name in names]
            self.asked = self.client.call_async(SetVocabulary.Request(classes=classes))
        else:
            self.asked = None

    def spin(self, player: Any) -> None:
        """Until the player has ended, and a little longer."""
        import rclpy

        def phases() -> None:
            for line in player.stdout:
                self.heard.phases.append((time.monotonic(), line.strip()))

        threading.Thread(target=phases, daemon=True).start()
        until = None
        while until is None or time.monotonic() < until:
            rclpy.spin_once(self.node, timeout_sec=0.05)
            if self.heard.phases and self.heard.phases[-1][1] == "100 vocabularies":
                self.change_vocabulary()
            if until is None and player.poll() is not None:
                until = time.monotonic() + 3
        self.node.destroy_node()


def run(args: Any, phases: list[tuple[str, float]], labels: list[np.ndarray]) -> Heard:
    """Node and player for the phases, each (name, seconds)."""
    topics = recorded(args.bag)
    cameras = [t for t, (kind, _) in topics.items() if "Image" in kind]
    flags = [f"model:={args.model.resolve()}", f"cameras:=[{','.join(cameras)}]"]
    flags += ["camera_tolerance:=0.25", "fixed_frame:=map"]
    program = Path(sys.prefix) / "lib/afov_ros/afov_node"
    with tempfile.TemporaryDirectory() as folder:
        if not HAS_TF:
            flags.append(f"extrinsics:={mounts(topics['/tf_static'][1][0], Path(folder))}")
        stamps, errors = Path(folder) / "stamps.npy", Path(folder) / "stderr"
        with errors.open("w") as stderr:
            node = subprocess.Popen(
                [sys.executable, str(program), "--ros-args", "-r", f"~/input/pointcloud:={CLOUD}",
                 *(f for flag in flags for f in ("-p", flag))], stderr=stderr,
            )  # fmt: skip
        named = [x for name, seconds in phases for x in ("--phase", name, str(seconds))]
        player = subprocess.Popen(
            [sys.executable, str(HERE / "soak_player.py"), str(args.bag), "--rate", str(args.rate),
             "--stamps", str(stamps), *named], stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        listener = Listener(node, cameras if args.overlays else [], labels)
        try:
            listener.spin(player)
        finally:
            node.send_signal(signal.SIGINT)
            listener.heard.exit_code = node.wait(timeout=10)
            player.wait(timeout=10)
        listener.heard.sent = np.load(stamps)
        listener.heard.stderr = errors.read_text()
    return listener.heard


def mounts(static: bytes, folder: Path) -> Path:
    """The bag's mounts as a file: where tf2_msgs is missing the node has no tf."""
    import yaml
    from rosbags.typesys import Stores, get_typestore

    message = get_typestore(Stores.ROS2_JAZZY).deserialize_cdr(static, "tf2_msgs/msg/TFMessage")
    frames = []
    for item in message.transforms:
        t, q = item.transform.translation, item.transform.rotation
        at = {"parent": item.header.frame_id, "child": item.child_frame_id}
        turn = [float(v) for v in (q.x, q.y, q.z, q.w)]
        frames.append({**at, "translation": [float(v) for v in (t.x, t.y, t.z)], "rotation": turn})
    file = folder / "mounts.yaml"
    file.write_text(yaml.safe_dump({"frames": frames}))
    return file


def main() -> None:
    """Runs both, prints and writes the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--bag", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the steady run")
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--event-seconds", type=float, default=20.0, help="of each event; 0: none")
    parser.add_argument("--overlays", action="store_true", help="listen to every overlay too")
    parser.add_argument("--out", type=Path, default=Path("runs/soak.md"))
    args = parser.parse_args()
    from afov_ros.live import ros_environment

    os.environ.update(ros_environment(int(os.environ.get("ROS_DOMAIN_ID", "66"))))
    import rclpy
    from soak_report import events_report, steady_report

    rclpy.init()
    with tempfile.TemporaryDirectory() as folder:
        labels = predicted(args.model, args.bag, Path(folder))
    lines = steady_report(run(args, [("steady", 60 * args.minutes)], labels), args.rate)
    if args.event_seconds:
        events = [e for e in EVENTS if HAS_TF or e != "tf stopped"]
        phases = [(e, args.event_seconds * (2 if e == EVENTS[-1] else 1)) for e in events]
        lines += events_report(run(args, phases, labels), CHANGES)
        lines += [] if HAS_TF else ["", "tf2_msgs is not installed: tf was not stopped."]
    rclpy.shutdown()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
