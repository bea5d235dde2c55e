"""ros2 launch afov_ros afov.launch.py model:=DIR cloud:=/lidar_top"""

import os
import re
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    SetEnvironmentVariable,
)
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
    ("frame", "", "RViz's fixed frame: the cloud's; empty: as in afov.rviz."),
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
UNPLAYED = "WARNING: the recording is not replayed"
PLAYER = (
    "`ros2 bag play` failed, see above; it comes with ros-$ROS_DISTRO-ros2bag, MCAP with "
    "ros-$ROS_DISTRO-rosbag2-storage-mcap"
)
SWITCHES = ("autostart", "use_sim_time", "rviz", "loop")
# Arguments that stand for parameters, and how their text is read.
PARAMETERS: dict[str, Callable[[str], Any]] = {
    "vocabulary": yaml.safe_load,
    "cameras": lambda text: yaml.safe_load(text) if "[" in text else [text],
    "extrinsics": str,
    "threshold": float,
    "afi": str,
    "runtime": str,
}


def start(context: LaunchContext) -> list[Any]:
    """The node, and what is asked for beside it."""
    given = context.launch_configurations
    on = {name for name in SWITCHES if switched_on(name, given[name])}
    parameters = {n: value(n, given[n]) for n in PARAMETERS if given[n]}
    simulated = {"use_sim_time": "use_sim_time" in on or bool(given["bag"])}
    parameters |= {"model": given["model"], "autostart": "autostart" in on, **simulated}
    namespace = given["namespace"].rstrip("/")
    full_name = f"/{namespace.lstrip('/')}/{given['name']}".replace("//", "/")
    actions = mistyped(given)
    if "rviz" in on:  # before the node, which would outlive launch where RViz is missing
        actions.append(rviz(full_name, given["frame"], simulated))
    actions.append(
        Node(
            package="afov_ros",
            executable="afov_node",
            name=given["name"],
            namespace=namespace,
            output="screen",
            arguments=["--ros-args", "--log-level", given["log_level"]],
            parameters=[given["params"], parameters],
            remappings=[("~/input/pointcloud", given["cloud"])],
        )
    )
    if given["bag"]:
        actions += replay(given["bag"], "loop" in on, full_name)
    return actions


def value(name: str, text: str) -> Any:
    """What an argument sets its parameter to."""
    try:
        return PARAMETERS[name](text)
    except (ValueError, yaml.YAMLError) as error:
        raise RuntimeError(f"{name}:={text}: {error}") from None


def switched_on(name: str, text: str) -> bool:
    """Whether an argument says yes; what says neither is an error."""
    if text.lower() not in ("true", "1", "false", "0"):
        raise RuntimeError(f"{name}:={text}: expected true or false")
    return text.lower() in ("true", "1")


def mistyped(given: dict[str, str]) -> list[Any]:
    """Launch says nothing of an argument that nobody declares."""
    names = [name for name, *_ in ARGUMENTS]
    near = {name: get_close_matches(name, names, 1) for name in given if name not in names}
    return [
        LogInfo(msg=f"WARNING: no argument {name!r}; is it {meant[0]!r}?")
        for name, meant in near.items()
        if meant
    ]


def rviz(node: str, frame: str, simulated: dict[str, bool]) -> Any:
    """RViz on the node's topics, whatever its name."""
    view = SHARE / "rviz" / "afov.rviz"
    topics = re.findall(r"Value: /afov(/\S+)", view.read_text())
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(view), *(["-f", frame] if frame else [])],
        parameters=[simulated],
        remappings=[(f"/afov{topic}", node + topic) for topic in topics],
    )


def replay(bag: str, loop: bool, node: str) -> list[Any]:
    """The recording, once the node is active: what is played before is lost.

    The delay lies between the player's publishers and their first message.
    """

    def waited(event: Any, _: LaunchContext) -> list[Any]:
        return [play] if event.returncode == 0 else [LogInfo(msg=f"{UNPLAYED}: no active node")]

    def played(event: Any, context: LaunchContext) -> list[Any]:
        failed = event.returncode and not context.is_shutdown
        return [LogInfo(msg=f"{UNPLAYED}: {PLAYER}")] if failed else []

    command = ["ros2", "bag", "play", bag, "--clock", "100", "--delay", "1"]
    play = ExecuteProcess(cmd=[*command, *(["--loop"] if loop else [])], on_exit=played)
    wait = [sys.executable, "-m", "afov_ros.wait_active", node]
    return [ExecuteProcess(cmd=wait, on_exit=waited)]


def generate_launch_description() -> LaunchDescription:
    """The node, with the Fast DDS profile that large clouds need, unless you brought your own."""
    own = [os.environ[name] for name in PROFILE if os.environ.get(name)]
    profile = own[0] if own else str(SHARE / "config" / "fastdds.xml")
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(n, description=d, default_value=v) for n, v, d in ARGUMENTS),
            *(SetEnvironmentVariable(name, profile) for name in PROFILE),
            OpaqueFunction(function=start),
        ]
    )
