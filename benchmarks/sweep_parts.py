"""Where a sweep's time goes in the node: decode, voxels, kernel maps, network, labels, publish.

    python benchmarks/sweep_parts.py [--model DIR] [--runtime auto] [--repeat 15]

Uses the real nuScenes sweep beside the project when it is there, a simulated one otherwise; without
`--model` the default student with fresh weights, which takes the same time as a trained one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from afov.clouds import to_sweep
from afov.frames import Sweep
from afov.student import Student

ROOT = Path(__file__).resolve().parents[1]
NUSCENES = ROOT.parent / "shared/data/nuscenes-one-sample/samples/LIDAR_TOP"
PARTS = ("decode", "voxels", "kernel maps", "network", "labels", "publish")


def sample() -> tuple[str, Sweep]:
    """A sweep of nuScenes' size, and what it is."""
    if NUSCENES.is_dir():
        raw = np.fromfile(next(NUSCENES.glob("*.bin")), np.float32).reshape(-1, 5)
        return "one real nuScenes sweep", Sweep(
            raw[:, :4], ("x", "y", "z", "intensity"), 0, "lidar_top"
        )
    from afov_train.simulation.config import SimConfig
    from afov_train.simulation.drive import simulate

    frame = next(iter(simulate(SimConfig(streets=1, frames_per_street=1))))
    return "one simulated sweep", frame.sweep


def fresh_model(sweep: Sweep, folder: Path) -> Path:
    """The default student, untrained."""
    from afov.text_bank import TextBank
    from afov.vocabulary import Vocabulary
    from afov.voxels import VoxelGrid
    from afov_train.export import export_student
    from afov_train.network.config import NetworkConfig
    from afov_train.network.unet import build_network

    vocabulary = Vocabulary.load("nuscenes16")
    text = np.random.default_rng(0).normal(size=(len(vocabulary.phrases), 128))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return export_student(
        build_network(NetworkConfig(), 128),
        config=NetworkConfig(),
        grid=VoxelGrid("cylindrical"),
        text_bank=TextBank(vocabulary, text.astype(np.float32)),
        temperature=0.05,
        provenance={},
        sweep=sweep,
        folder=folder,
    )


def measure(student: Student, sweep: Sweep, repeat: int) -> dict[str, np.ndarray]:
    """(repeat,) milliseconds by part, through a ROS message and out into one on DDS."""
    import rclpy
    from sensor_msgs.msg import PointCloud2

    from afov_ros.conversions import cloud_message, labelled_points

    node = rclpy.create_node("sweep_parts")
    publisher = node.create_publisher(PointCloud2, "/sweep_parts", 1)
    dtype = np.dtype([(name, "<f4") for name in sweep.fields])
    points = np.ascontiguousarray(sweep.points, np.float32).view(dtype).reshape(-1)
    message: Any = cloud_message(points, PointCloud2().header)
    times: dict[str, list[float]] = {part: [] for part in PARTS}
    for i in range(repeat + 3):
        began = time.perf_counter()
        read = to_sweep(message)
        decoded = time.perf_counter()
        labels = student.label(read)
        labelled = time.perf_counter()
        out = labelled_points(read, labels, student.vocabulary, 0.0)
        publisher.publish(cloud_message(out, message.header))
        published = time.perf_counter()
        if i >= 3:  # the first ones warm caches and allocators up
            row = {"decode": decoded - began, "publish": published - labelled} | labels.seconds
            for part in PARTS:
                times[part].append(row[part] * 1e3)
    node.destroy_node()
    return {part: np.array(values) for part, values in times.items()}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--runtime", choices=("auto", "onnxruntime", "torch"), default="auto")
    parser.add_argument("--repeat", type=int, default=15)
    args = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as scripts/afov_node
    import rclpy

    rclpy.init()
    what, sweep = sample()
    with tempfile.TemporaryDirectory() as folder:
        student = Student.open(
            args.model or fresh_model(sweep, Path(folder) / "model"), args.runtime
        )
    times = measure(student, sweep, args.repeat)
    print(f"{what}: {len(sweep)} points, runtime {student.runtime.name}, ms over {args.repeat}")
    print(f"{'part':12} {'median':>8} {'p95':>8}")
    for part, values in (*times.items(), ("total", np.sum(list(times.values()), axis=0))):
        print(f"{part:12} {np.median(values):8.1f} {np.percentile(values, 95):8.1f}")
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
