"""docs/node.md against the graph of a running node."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from afov_ros.outputs import DEBUG
from tests.afov_ros.conftest import Peer, running

DOCS = (Path(__file__).parents[2] / "docs/node.md").read_text()
OWN = ("/parameter_events", "/rosout", "/documented/transition_event")


def published(talker: Peer) -> dict[str, tuple[str, str]]:
    """What the node publishes so far: topic to type and "latched" or "1"."""
    from rclpy.node import NodeNameNonExistentError

    found = {}
    try:
        named = talker.ros.get_publisher_names_and_types_by_node("documented", "/")
    except NodeNameNonExistentError:
        return found
    for topic, _ in named:
        endpoints = talker.ros.get_publishers_info_by_topic(topic)
        if topic in (*OWN, "/diagnostics") or not endpoints:
            continue
        (endpoint,) = endpoints
        qos = endpoint.qos_profile
        assert qos.reliability == ReliabilityPolicy.RELIABLE
        latched = qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
        found[topic] = (endpoint.topic_type, "latched" if latched else "1")
    return found


def test_the_tables_of_outputs_and_services_are_the_graph(
    model: Path, environment: dict[str, str], talker: Peer
) -> None:
    rows = re.findall(r"^\| `~/(\S+)` \| (\S+) \| (1|latched) \|", DOCS, re.M)
    told = {f"/documented/{topic}": (kind, keeps) for topic, kind, keeps in rows}
    # One row stands for all times.
    told |= {f"/documented/debug/{d}": ("std_msgs/msg/Float64", "1") for d in DEBUG}
    if importlib.util.find_spec("vision_msgs") is None:
        del told["/documented/label_info"], told["/documented/detections"]
    parameters = [f"model:={model}", "cameras:=[/cam_front/image_raw]", "embedding:=true"]
    with running("documented", *parameters, environment=environment):
        # A node's name and its endpoints become known one after the other.
        talker.spin_until(lambda: set(published(talker)) >= set(told))
        found = published(talker)
        services = dict(talker.ros.get_service_names_and_types_by_node("documented", "/"))
    assert found == told
    own = {s: kind for s, (kind,) in services.items() if kind.startswith("afov_ros/")}
    rows = re.findall(r"^\| `~/(\S+)` \| (afov_ros/srv/\S+) \|", DOCS, re.M)
    assert own == {f"/documented/{service}": kind for service, kind in rows} and len(own) == 2
