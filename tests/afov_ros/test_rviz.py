"""rviz/afov.rviz against the graph of a running node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from rclpy.qos import (
    DurabilityPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from sensor_msgs.msg import PointCloud2
from visualization_msgs.msg import MarkerArray

from tests.afov_ros.conftest import Peer, message, random_sweep, running, structured

FILE = Path(__file__).parents[2] / "rviz/afov.rviz"
CAMERAS = [
    f"/cam_{c}/image_rect_compressed"
    for c in ("front_left", "front", "front_right", "back_left", "back", "back_right")
]
TYPES = {
    "PointCloud2": "sensor_msgs/msg/PointCloud2",
    "MarkerArray": "visualization_msgs/msg/MarkerArray",
    "Image": "sensor_msgs/msg/Image",
}


def displays() -> list[dict[str, Any]]:
    view = yaml.safe_load(FILE.read_text())["Visualization Manager"]
    return [d for d in view["Displays"] if "Topic" in d]


def wanted(topic: dict[str, Any]) -> QoSProfile:
    durability = {
        "Volatile": DurabilityPolicy.VOLATILE,
        "Transient Local": DurabilityPolicy.TRANSIENT_LOCAL,
    }
    reliability = {
        "Best Effort": ReliabilityPolicy.BEST_EFFORT,
        "Reliable": ReliabilityPolicy.RELIABLE,
    }
    return QoSProfile(
        depth=topic["Depth"],
        durability=durability[topic["Durability Policy"]],
        reliability=reliability[topic["Reliability Policy"]],
        liveliness=LivelinessPolicy.AUTOMATIC,
    )


@pytest.fixture(scope="module")
def graph(model: Path, environment: dict[str, str]) -> Any:
    """What the node publishes: topic to its endpoints."""
    cameras = f"cameras:=[{','.join(CAMERAS)}]"
    with running("afov", f"model:={model}", cameras, environment=environment):
        peer = Peer()
        topics = [d["Topic"]["Value"] for d in displays()]
        peer.spin_until(lambda: all(peer.ros.count_publishers(t) for t in topics))
        yield peer
        peer.close()


@pytest.mark.parametrize("display", displays(), ids=lambda d: d["Name"])
def test_a_display_finds_its_topic_with_type_and_qos(display: dict[str, Any], graph: Peer) -> None:
    (endpoint,) = graph.ros.get_publishers_info_by_topic(display["Topic"]["Value"])
    assert endpoint.topic_type == TYPES[display["Class"].split("/")[1]]
    verdict, reason = qos_check_compatible(endpoint.qos_profile, wanted(display["Topic"]))
    assert verdict == QoSCompatibility.OK, reason


def test_what_the_displays_show_lies_in_the_fixed_frame(graph: Peer) -> None:
    fixed = yaml.safe_load(FILE.read_text())["Visualization Manager"]["Global Options"]
    cloud = message(structured(random_sweep(200)))
    cloud.header.frame_id = fixed["Fixed Frame"]
    clouds = graph.listen(PointCloud2, "/afov/segmentation")
    legends = graph.listen(MarkerArray, "/afov/markers", latched=True)
    graph.stream(cloud, lambda: bool(clouds and legends))
    assert clouds[0].header.frame_id == fixed["Fixed Frame"]
    assert {f.name for f in clouds[0].fields} >= {"x", "y", "z", "rgb"}
    assert {m.header.frame_id for m in legends[-1].markers if m.text} == {fixed["Fixed Frame"]}
