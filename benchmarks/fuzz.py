"""Mutated clouds and images into a running node; it must live, and be right on a good one after.

    python benchmarks/fuzz.py --model DIR [--count 10000] [--seed 0]

Bytes of good messages are changed, mostly where sizes and fields stand, or cut off, and published
as they are. Every hundredth message is a good sweep, whose labels must be the student's.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, most of them among the sizes and fields at the front; or cut off."""
    raw = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(min(len(raw), 200 if rng.random() < 0.9 else len(raw))))
        raw[place] = int(rng.integers(256))
    return bytes(raw[: rng.integers(len(raw))] if rng.random() < 0.2 else raw)


def main() -> None:
    """Runs it; an assertion says what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    from afov_ros.live import ros_environment

    environment = ros_environment(int(os.environ.get("ROS_DOMAIN_ID", "67")))
    os.environ.update(environment)
    import rclpy
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import CompressedImage, Image, PointCloud2

    from afov.clouds import read_points, to_sweep
    from afov.student import Student
    from afov_ros.conversions import cloud_message, image_message

    rng = np.random.default_rng(args.seed)
    points = np.zeros(800, np.dtype([(n, "<f4") for n in ("x", "y", "z", "intensity")]))
    for name in "xyz":
        points[name] = rng.normal(0, 10, len(points))
    good = cloud_message(points, PointCloud2().header)
    good.header.frame_id = "lidar"
    ids = Student.open(args.model).label(to_sweep(good)).class_id
    image = image_message(rng.integers(0, 255, (60, 80, 3), np.uint8), 10**18, "cam")
    jpeg = CompressedImage(header=image.header, format="jpeg", data=b"\xff\xd8\xff" + bytes(500))
    rclpy.init()
    node: Any = rclpy.create_node("fuzz")
    clouds = node.create_publisher(PointCloud2, "/fuzz/cloud", 1)
    images = node.create_publisher(Image, "/fuzz/a/image_raw", 1)
    jpegs = node.create_publisher(CompressedImage, "/fuzz/b/image_raw/compressed", 1)
    answers: list[Any] = []
    node.create_subscription(PointCloud2, "/afov/segmentation", answers.append, 5)
    overlay = node.create_subscription(Image, "/afov/overlay/fuzz_a", lambda m: None, 1)
    program = Path(sys.prefix) / "lib/afov_ros/afov_node"
    cameras = "cameras:=[/fuzz/a/image_raw,/fuzz/b/image_raw/compressed]"
    process = subprocess.Popen(
        [sys.executable, str(program), "--ros-args", "-r", "~/input/pointcloud:=/fuzz/cloud",
         "-p", f"model:={args.model.resolve()}", "-p", cameras, "--log-level", "fatal"],
        env=environment,
    )  # fmt: skip
    targets = [(clouds, good)] * 6 + [(images, image), (jpegs, jpeg)]
    raw = [(publisher, serialize_message(message)) for publisher, message in targets]
    checked, began = 0, time.monotonic()
    try:
        for i in range(args.count + 1):
            assert process.poll() is None, f"the node ended after {i} messages"
            if i % 100:
                publisher, data = raw[rng.integers(len(raw))]
                publisher.publish(mutated(data, rng))
                rclpy.spin_once(node, timeout_sec=0.005)
                continue
            good.header.stamp.sec, until = 1000 + i, time.monotonic() + 60
            while not any(a.header.stamp.sec == good.header.stamp.sec for a in answers):
                assert time.monotonic() < until, f"no answer after {i} messages"
                clouds.publish(good)
                rclpy.spin_once(node, timeout_sec=0.2)
            answer = next(a for a in answers if a.header.stamp.sec == good.header.stamp.sec)
            expected = np.where(ids == 0, 255, ids)
            assert (read_points(answer)["class_id"] == expected).mean() > 0.999
            checked += 1
            answers.clear()
    finally:
        alive = process.poll() is None
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)
    print(f"{args.count} messages, {checked} good sweeps right, node alive: {alive}, "
          f"{time.monotonic() - began:.0f} s")  # fmt: skip
    node.destroy_subscription(overlay)
    rclpy.shutdown()


if __name__ == "__main__":
    main()
