"""Message in to message out, as the node does it: bytes of a PointCloud2 to bytes of the answer."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import numpy as np
from compare import Row, apart, real_sweep, run
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import PointCloud2

from afov.clouds import to_sweep
from afov.labelled import labelled_points
from afov.model_folder import ModelFolder
from afov.student import Student
from afov_ros.conversions import cloud_message
from afov_train.network.config import NetworkConfig

SENSOR = 50.0  # milliseconds of a turn at 20 Hz
PARTS = ("read", "voxels", "kernel maps", "network", "labels", "write")


def fresh() -> ModelFolder:
    """The default student with fresh weights."""
    from network import untrained

    model: ModelFolder = untrained(NetworkConfig(), 128)[1]
    return model


def rows(repeat: int) -> list[Row]:
    """The default student on the real sweep; `theirs` is the sensor's turn."""
    # Made elsewhere: a node has neither torch nor spconv in its process.
    student = Student.of(apart(fresh))
    raw = real_sweep()
    dtype = np.dtype([(name, "<f4") for name in ("x", "y", "z", "intensity")])
    points = np.ascontiguousarray(raw).view(dtype).reshape(-1)
    message = serialize_message(cloud_message(points, PointCloud2().header))
    times: dict[str, list[float]] = {part: [] for part in PARTS}
    preempted: list[bool] = []
    for i in range(repeat + 5):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        began = time.perf_counter()
        cloud = deserialize_message(message, PointCloud2)
        sweep = to_sweep(cloud)
        read = time.perf_counter()
        labels = student.label(sweep)
        labelled = time.perf_counter()
        answer = labelled_points(sweep, labels, student.vocabulary, 0.0)
        serialize_message(cloud_message(answer, cloud.header))
        written = time.perf_counter()
        if i >= 5:
            preempted.append(resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw > before)
            seconds = {"read": read - began, "write": written - labelled} | labels.seconds
            for part in PARTS:
                times[part].append(seconds.get(part, 0.0) * 1e3)  # a GPU tells of fewer
    total = np.sum(list(times.values()), axis=0)
    facts = {"p99": float(np.percentile(total, 99)), "preempted": float(np.mean(preempted))}
    if not all(preempted):  # sweeps during which nobody else was given one of our cores
        facts["p99 of the others"] = float(np.percentile(total[~np.array(preempted)], 99))
    facts |= {part: float(np.median(values)) for part, values in times.items()}
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    facts["resident MB"] = int(status["VmRSS"].split()[0]) / 1024
    facts["most MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    what = f"message to message, {student.runtime.name}"
    return [Row(what, "a turn at 20 Hz", total, np.full(repeat, SENSOR), 1, facts)]


if __name__ == "__main__":
    run(rows, 200)
