"""The real launch file, wherever `launch` is installed; it is not on PyPI."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sensor_msgs.msg import PointCloud2

from afov.clouds import read_points
from tests.afov_ros.conftest import CLOUD, Peer, message, random_sweep, structured

pytest.importorskip("launch_ros", reason="needs launch_ros, which ROS brings and PyPI does not")

FILE = Path(__file__).parents[2] / "launch/afov.launch.py"
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, *given = sys.argv[1:]
arguments = [tuple(a.split(":=", 1)) for a in given]
source = PythonLaunchDescriptionSource(file)
service = LaunchService()
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)])
)
sys.exit(service.run())
"""


def test_the_launch_file_starts_a_node_that_labels(
    open_model: Path, environment: dict[str, str], talker: Peer
) -> None:
    arguments = [f"model:={open_model}", f"cloud:={CLOUD}", "namespace:=front", "name:=words"]
    arguments += ["vocabulary:=[car, traffic cone]", "threshold:=0.2"]
    command = [sys.executable, "-c", LAUNCH, str(FILE), *arguments]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    clouds: list[Any] = talker.listen(PointCloud2, "/front/words/segmentation")
    try:
        sweep = random_sweep(900)
        talker.stream(message(structured(sweep)), lambda: bool(clouds))
    finally:
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=15)
    points = read_points(clouds[0])
    np.testing.assert_array_equal(points["x"], sweep.points[:, 0])
    assert set(points["class_id"].tolist()) <= {1, 2, 255}
    assert "Traceback" not in error
