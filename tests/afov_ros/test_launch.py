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
    arguments = [f"model:={open_model}", f"cloud:={CLOUD}", "namespace:=/front/", "name:=words"]
    arguments += ["vocabulary:=[car, traffic cone]", "threshold:=0.2", "treshold:=1"]
    command = [sys.executable, "-c", LAUNCH, str(FILE), *arguments]
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, env=environment, **told)  # type: ignore[call-overload]
    clouds: list[Any] = talker.listen(PointCloud2, "/front/words/segmentation")
    try:
        sweep = random_sweep(900)
        talker.stream(message(structured(sweep)), lambda: bool(clouds))
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=15)
    points = read_points(clouds[0])
    np.testing.assert_array_equal(points["x"], sweep.points[:, 0])
    assert set(points["class_id"].tolist()) <= {1, 2, 255}
    assert "Traceback" not in output and "no argument 'treshold'; is it 'threshold'?" in output


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("rviz:=yes", "rviz:=yes: expected true or false"),
        ("threshold:=much", "threshold:=much: could not convert"),
    ],
)
def test_a_wrong_argument_is_named(argument: str, reason: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", LAUNCH, str(FILE), "model:=none", argument]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode and reason in run.stdout + run.stderr
