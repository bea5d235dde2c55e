"""The node on a recorded drive, over real DDS: node, player and collector in own processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afov.clouds import read_points
from afov.errors import InputError
from afov.labelled_bag import SEGMENTATION, labelled_bag
from afov_ros.replay import serialized_clouds


@dataclass(frozen=True)
class Live:
    """What came back.

    Attributes:
        sent: clouds in the bag.
        messages: serialised labelled clouds by stamp (nanoseconds).
        class_id: (N,) uint8 by stamp, 255 = unknown.
    """

    sent: int
    messages: dict[int, bytes]
    class_id: dict[int, np.ndarray]

    @property
    def lost(self) -> int:
        """Clouds that were sent and never came back."""
        return self.sent - len(self.messages)

    def __str__(self) -> str:
        return f"{self.sent} sweeps sent, {len(self.messages)} labelled, {self.lost} lost"


def ros_environment(domain: int) -> dict[str, str]:
    """This machine alone, a domain of its own, and the profile that large clouds need."""
    share = Path(sys.prefix) / "share" / "afov_ros" / "config" / "fastdds.xml"
    return {
        **os.environ,
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": str(domain),
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(share),
        "FASTDDS_DEFAULT_PROFILES_FILE": str(share),
        "AMENT_PREFIX_PATH": os.environ.get("AMENT_PREFIX_PATH", sys.prefix),
    }


def start_node(model: Path, cloud: str, environment: dict[str, str], queue: int = 1) -> Any:
    """The installed node, as `ros2 run afov_ros afov_node` starts it."""
    program = Path(sys.prefix) / "lib" / "afov_ros" / "afov_node"
    settings = ["-p", f"model:={model.resolve()}", "-p", f"queue:={queue}"]
    remap = ["-r", f"~/input/pointcloud:={cloud}"]
    command = [sys.executable, str(program), "--ros-args", *settings, *remap]
    return subprocess.Popen(command, env=environment)


def label_live(model: Path, bag: Path, *, cloud: str, out: Path, domain: int = 77) -> Live:
    """Replays a bag into the node and collects what it publishes.

    Args:
        out: an MCAP: the bag's messages, and the labelled clouds beside them.
    """
    environment = ros_environment(domain)
    # A short test drive: its bursts wait in the queue when this machine is slower than 20 Hz.
    node = start_node(model, cloud, environment, queue=20)
    collected = out.with_suffix(".clouds")
    shutil.rmtree(collected, ignore_errors=True)
    arguments = [sys.executable, "-m", "afov_ros.collect", str(collected), "--topic", SEGMENTATION]
    sent = sum(1 for _ in serialized_clouds(bag, cloud))
    collector = subprocess.Popen(
        [*arguments, "--count", str(sent)], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert collector.stdout is not None
        collector.stdout.readline()  # connected to the node
        player = [sys.executable, "-m", "afov_ros.replay", str(bag), "--topic", cloud]
        if subprocess.run(player, env=environment).returncode:
            raise InputError("the player failed; see above")
        collector.wait(timeout=60)
    finally:
        for process in (collector, node):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        node.wait(timeout=10)
        collector.wait(timeout=10)
    messages = {int(f.stem): f.read_bytes() for f in sorted(collected.glob("*.cdr"))}
    shutil.rmtree(collected, ignore_errors=True)
    with labelled_bag(out) as target:
        target.copy(bag)
        for stamp, data in messages.items():
            target.put(data, log_time=stamp + 10**7)
    return Live(sent, messages, {stamp: class_ids(data) for stamp, data in messages.items()})


def class_ids(data: bytes) -> np.ndarray:
    """(N,) uint8 of a serialised labelled cloud."""
    from rosbags.typesys import Stores, get_typestore

    message = get_typestore(Stores.ROS2_JAZZY).deserialize_cdr(data, "sensor_msgs/msg/PointCloud2")
    return read_points(message)["class_id"].copy()
