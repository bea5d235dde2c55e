"""ros2 launch afov_ros afov.launch.py model:=DIR cloud:=/lidar_top"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

ARGUMENTS = (
    ("model", None, "Model folder that afov-train exported."),
    ("cloud", "/lidar_top", "PointCloud2 topic to label."),
    ("namespace", "", "Namespace of the node."),
    ("threshold", "0.0", "Points with a lower probability are published as unknown (255)."),
    ("afi", "off", "Geometry corrects the labels: off, refined or paper."),
    ("runtime", "auto", "auto, onnxruntime or torch."),
    ("use_sim_time", "false", "Take the time from /clock."),
    ("log_level", "info", "debug, info, warn or error."),
    ("rviz", "false", "Open RViz with the labelled cloud."),
)


def generate_launch_description() -> LaunchDescription:
    """The node, with the Fast DDS profile that large clouds need."""
    share = Path(get_package_share_directory("afov_ros"))
    profile = str(share / "config" / "fastdds.xml")
    declared = [
        DeclareLaunchArgument(name, description=text, default_value=value)
        if value is not None
        else DeclareLaunchArgument(name, description=text)
        for name, value, text in ARGUMENTS
    ]
    node = Node(
        package="afov_ros",
        executable="afov_node",
        name="afov",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        parameters=[
            {
                "model": LaunchConfiguration("model"),
                "runtime": LaunchConfiguration("runtime"),
                "afi": LaunchConfiguration("afi"),
                "threshold": ParameterValue(LaunchConfiguration("threshold"), value_type=float),
                "use_sim_time": ParameterValue(
                    LaunchConfiguration("use_sim_time"), value_type=bool
                ),
            }
        ],
        remappings=[("~/input/pointcloud", LaunchConfiguration("cloud"))],
    )
    viewer = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(share / "rviz" / "afov.rviz")],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    return LaunchDescription(
        [*declared, *(SetEnvironmentVariable(n, profile) for n in names), node, viewer]
    )
