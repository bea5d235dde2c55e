"""ros2 launch afov_ros afov.launch.py model:=DIR cloud:=/lidar_top"""

import sys
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription

SHARE = Path(get_package_share_directory("afov_ros"))
PROFILE = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
ARGUMENTS = (
    ("model", None, "Model folder that afov-train exported."),
    ("cloud", "/lidar_top", "PointCloud2 topic to label."),
    ("params", str(SHARE / "config" / "afov.yaml"), "Parameter file; this one lists them all."),
    ("namespace", "", "Namespace of the node; one for each of several LiDARs."),
    ("name", "afov", "Name of the node."),
    ("autostart", "true", "Configure and activate at the start."),
    ("use_sim_time", "false", "Take the time from /clock; a replayed bag brings it."),
    ("log_level", "info", "debug, info, warn or error."),
    ("rviz", "false", "Open RViz with the labelled cloud, the overlays and the legend."),
    ("bag", "", "Recording to replay into the node, with /clock, once the node is active."),
    ("loop", "false", "Replay the recording again and again."),
    ("vocabulary", "", "YAML file or [list, of, phrases]; empty: as in the parameter file."),
    ("cameras", "", "[list, of] image topics; empty: as in the parameter file."),
    ("extrinsics", "", "YAML file with mounts; empty: as in the parameter file."),
    ("threshold", "", "Less probable points are unknown; empty: as in the parameter file."),
    ("afi", "", "off, refined or paper; empty: as in the parameter file."),
    (
        "runtime",
        "",
        "auto, tensorrt, onnxruntime-cuda, native8, native16, native, torch or onnxruntime; "
        "empty: as in the parameter file.",
    ),
)
# Arguments that stand for parameters, and how their text is read.
PARAMETERS = {
    "vocabulary": yaml.safe_load,
    "cameras": yaml.safe_load,
    "extrinsics": str,
    "threshold": float,
    "afi": str,
    "runtime": str,
}


def start(context: LaunchContext) -> list[Any]:
    """The node, and what is asked for beside it."""
    given = context.launch_configurations
    on = {name for name, *_ in ARGUMENTS if given[name].lower() in ("true", "1")}
    parameters = {n: read(given[n]) for n, read in PARAMETERS.items() if given[n]}
    simulated = {"use_sim_time": "use_sim_time" in on or bool(given["bag"])}
    parameters |= {"model": given["model"], "autostart": "autostart" in on, **simulated}
    actions: list[Any] = [
        Node(
            package="afov_ros",
            executable="afov_node",
            name=given["name"],
            namespace=given["namespace"],
            output="screen",
            arguments=["--ros-args", "--log-level", given["log_level"]],
            parameters=[given["params"], parameters],
            remappings=[("~/input/pointcloud", given["cloud"])],
        )
    ]
    if "rviz" in on:
        view = ["-d", str(SHARE / "rviz" / "afov.rviz")]
        actions.append(
            Node(package="rviz2", executable="rviz2", arguments=view, parameters=[simulated])
        )
    if given["bag"]:
        actions += replay(given["bag"], "loop" in on, f"{given['namespace']}/{given['name']}")
    return actions


def replay(bag: str, loop: bool, node: str) -> list[Any]:
    """The recording, once the node is active: what is played before is lost.

    The delay lies between the player's publishers and their first message.
    """
    command = ["ros2", "bag", "play", bag, "--clock", "100", "--delay", "1"]
    play = ExecuteProcess(cmd=[*command, *(["--loop"] if loop else [])])
    wait = ["-m", "afov_ros.wait_active", f"/{node.lstrip('/')}"]
    waiting = ExecuteProcess(cmd=[sys.executable, *wait])

    def then(event: Any, _: LaunchContext) -> list[Any]:
        if event.returncode == 0:
            return [play]
        return [LogInfo(msg=f"{bag} is not replayed: the node is not active")]

    return [RegisterEventHandler(OnProcessExit(target_action=waiting, on_exit=then)), waiting]


def generate_launch_description() -> LaunchDescription:
    """The node, with the Fast DDS profile that large clouds need."""
    profile = str(SHARE / "config" / "fastdds.xml")
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(n, description=d, default_value=v) for n, v, d in ARGUMENTS),
            *(SetEnvironmentVariable(name, profile) for name in PROFILE),
            OpaqueFunction(function=start),
        ]
    )
