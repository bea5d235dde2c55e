"""Every output, read by a peer over DDS, against what NumPy and SciPy say it must hold."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from afov.clouds import read_points
from afov.student import Student
from tests.afov_ros.conftest import Peer, message, random_sweep, running

NAME = "out"
SWEEP = random_sweep(2000, seed=8)
BOX = [-4.0, -1.0, -2.0, 5.0, 3.0, 2.0]
FILTERED = ["manmade", "bus"]
# A sensor that looks to the left and a little down, high above the axle.
TURN, SHIFT = Rotation.from_euler("zyx", [70, 20, -5], degrees=True), np.array([0.9, 0.3, 1.8])


def cloud(stamp: tuple[int, int] = (12, 345)) -> Any:
    """With a field more than the node needs, and gaps between fields."""
    layout = {"names": ["x", "y", "z", "intensity", "ring", "flag"],
              "formats": ["<f4", "<f4", "<f4", "<f4", "<u2", "u1"],
              "offsets": [0, 4, 8, 16, 20, 22], "itemsize": 26}  # fmt: skip
    points = np.zeros(len(SWEEP), np.dtype(layout))
    for name, column in zip(SWEEP.fields, SWEEP.points.T, strict=True):
        points[name] = column
    points["ring"] = np.arange(len(points)) % 32
    points["flag"] = 7
    return message(points, stamp=stamp)


@pytest.fixture(scope="module")
def ear(
    model: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Peer]:
    file = tmp_path_factory.mktemp("mounts") / "mounts.yaml"
    turn, shift = ([float(v) for v in values] for values in (TURN.as_quat(), SHIFT))
    mount = {"parent": "base_link", "child": "lidar", "translation": shift, "rotation": turn}
    file.write_text(yaml.safe_dump({"frames": [mount]}))
    box, names = str(BOX).replace(" ", ""), str(FILTERED).replace("'", "").replace(" ", "")
    parameters = [
        f"model:={model}",
        "embedding:=true",
        f"ego_box:={box}",
        f"filter_classes:={names}",
        f"extrinsics:={file}",
    ]
    with running(NAME, *parameters, environment=environment):
        peer = Peer()
        yield peer
        peer.close()


def heard(ear: Peer, kind: Any, topic: str, *, latched: bool = False) -> Any:
    messages = ear.listen(kind, f"/{NAME}/{topic}", latched=latched)
    ear.stream(cloud(), lambda: bool(messages))
    return messages[-1]


@pytest.fixture(scope="module")
def labels(model: Path) -> Any:
    return Student.open(model).label(SWEEP)


def point_cloud() -> Any:
    from sensor_msgs.msg import PointCloud2

    return PointCloud2


def test_visualization_has_the_colours_of_the_classes(ear: Peer, labels: Any, model: Path) -> None:
    answer = heard(ear, point_cloud(), "visualization")
    points = read_points(answer)
    assert points.dtype.names == ("x", "y", "z", "rgb")
    assert answer.header == cloud().header
    packed = points["rgb"].copy().view(np.uint32)
    rgb = np.stack((packed >> 16, packed >> 8 & 255, packed & 255), 1)
    colors = [(128, 128, 128), *(c.color for c in Student.open(model).vocabulary.labelled)]
    np.testing.assert_array_equal(rgb, np.array(colors)[labels.class_id])


def test_filtered_keeps_the_inputs_layout_without_road_and_ego(
    ear: Peer, labels: Any, model: Path
) -> None:
    # What comes before the transforms is not published: they may still be on their way.
    answer = heard(ear, point_cloud(), "filtered")
    source = cloud()
    names = Student.open(model).vocabulary.names
    unwanted = np.isin(np.array(names)[labels.class_id], FILTERED)
    finite = np.isfinite(SWEEP.xyz).all(1)
    base = TURN.apply(np.nan_to_num(SWEEP.xyz.astype(np.float64))) + SHIFT
    crop = finite & (base >= BOX[:3]).all(1) & (base <= BOX[3:]).all(1)
    keep = ~unwanted & ~crop
    assert 0 < crop.sum() < len(crop) and 0 < unwanted.sum() < len(crop)
    assert answer.fields == source.fields and answer.point_step == source.point_step
    assert answer.header == source.header
    rows = np.frombuffer(bytes(source.data), np.uint8).reshape(-1, source.point_step)
    got = np.frombuffer(bytes(answer.data), np.uint8).reshape(-1, source.point_step)
    np.testing.assert_array_equal(got, rows[keep])


def test_embedding_is_the_students(ear: Peer, labels: Any) -> None:
    points = read_points(heard(ear, point_cloud(), "embedding"))
    np.testing.assert_allclose(points["embedding"], labels.embedding, atol=1e-3)
    np.testing.assert_array_equal(points["x"], SWEEP.points[:, 0])


def test_label_info_names_the_ids(ear: Peer, model: Path) -> None:
    messages = pytest.importorskip("vision_msgs.msg", reason="PyPI has no vision_msgs")
    info = heard(ear, messages.LabelInfo, "label_info", latched=True)
    names = Student.open(model).vocabulary.names
    assert {c.class_id: c.class_name for c in info.class_map} == dict(enumerate(names[1:], 1))


def test_markers_are_the_legend_and_the_ego_box(ear: Peer, model: Path) -> None:
    from visualization_msgs.msg import Marker, MarkerArray

    markers = heard(ear, MarkerArray, "markers", latched=True).markers
    classes = Student.open(model).vocabulary.labelled
    texts = [m for m in markers if m.ns == "legend"]
    assert [m.text for m in texts] == [c.name for c in classes]
    assert {m.header.frame_id for m in texts} == {"lidar"}
    assert [round(255 * m.color.g) for m in texts] == [c.color[1] for c in classes]
    (box,) = [m for m in markers if m.type == Marker.CUBE]
    assert box.header.frame_id == "base_link"
    low = box.pose.position.x - box.scale.x / 2, box.pose.position.z - box.scale.z / 2
    assert low == pytest.approx((BOX[0], BOX[2]))


@pytest.mark.parametrize("part", ["processing_time/network_ms", "processing_time/total_ms"])
def test_times_are_published_by_part(part: str, ear: Peer) -> None:
    from std_msgs.msg import Float64

    assert 0 < heard(ear, Float64, f"debug/{part}").data < 60_000


def test_latency_counts_from_the_header_stamp(ear: Peer) -> None:
    from std_msgs.msg import Float64

    now = ear.ros.get_clock().now().nanoseconds
    latency = heard(ear, Float64, "debug/pipeline_latency_ms").data
    assert latency * 1e6 == pytest.approx(now - (12 * 10**9 + 345), rel=1e-3)


def test_what_nobody_listens_to_is_not_computed(
    model: Path, environment: dict[str, str], talker: Peer
) -> None:
    def counts(status: Any) -> dict[str, str]:
        return {v.key: v.value for v in status.values}

    with running("alone", f"model:={model}", environment=environment):
        talker.listen(point_cloud(), "/alone/visualization")
        name = "/alone: segmentation"
        status = talker.diagnostics(
            name, lambda s: int(counts(s).get("sent ~/visualization", 0)) > 3, cloud()
        )
    sent = {key for key in counts(status) if key.startswith("sent ~/")}
    latched = {"sent ~/vocabulary", "sent ~/markers"}
    if importlib.util.find_spec("vision_msgs"):
        latched.add("sent ~/label_info")
    assert sent == {"sent ~/visualization", *latched}
