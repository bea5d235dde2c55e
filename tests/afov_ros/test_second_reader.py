"""Every output, read by what is none of ours: rosbags decodes the bytes, NumPy the fields."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from afov.vocabulary import Vocabulary
from tests.afov_ros.conftest import Peer, message, running

NAME = "read"
STAMP = (900, 5)
WIDTH, HEIGHT = 96, 64
TOPICS = (
    "segmentation", "visualization", "filtered", "embedding", "query_points", "segments",
    "vocabulary", "markers", "overlay/cam_a", "debug/pipeline_latency_ms",
    "debug/processing_time/network_ms",
)  # fmt: skip
FORMATS = {2: "u1", 4: "<u2", 7: "<f4"}  # of sensor_msgs/PointField
CLASSES = Vocabulary.load("nuscenes16").names
ROOT = Path(__file__).parents[2]


def truth() -> np.ndarray:
    """A car, a truck and a wall; `intensity` is the class, `ring` the thing: truth_teller.py."""
    rng = np.random.default_rng(0)
    points = np.zeros(900, [(n, "<f4") for n in ("x", "y", "z", "intensity")] + [("ring", "<u2")])
    for i, (name, thing, at) in enumerate((("car", 1, 9), ("truck", 2, 14), ("manmade", 0, 25))):
        part = slice(300 * i, 300 * i + 300)
        points["intensity"][part], points["ring"][part] = CLASSES.index(name), thing
        points["x"][part] = at + rng.uniform(0, 3, 300)
        points["y"][part], points["z"][part] = rng.uniform(-1, 1, (2, 300))
    return points


def typestore() -> Any:
    """rosbags' own types, those of msg/, and vision_msgs where they are installed."""
    rosbags = pytest.importorskip("rosbags.typesys")
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    store = rosbags.get_typestore(rosbags.Stores.ROS2_JAZZY)
    folders = {"afov_ros": ROOT / "msg"}
    with suppress(PackageNotFoundError):
        folders["vision_msgs"] = Path(get_package_share_directory("vision_msgs")) / "msg"
    types = {}
    for package, folder in folders.items():
        for file in folder.glob("*.msg"):
            types |= rosbags.get_types_from_msg(file.read_text(), f"{package}/msg/{file.stem}")
    store.register(types)
    return store


def columns(cloud: Any) -> np.ndarray:
    """A cloud's points by the names of its fields."""
    assert not cloud.is_bigendian and len(cloud.data) == cloud.height * cloud.row_step
    assert cloud.row_step == cloud.width * cloud.point_step
    fields = {
        f.name: ((FORMATS[f.datatype], (f.count,) if f.count > 1 else ()), f.offset)
        for f in cloud.fields
    }
    return np.frombuffer(
        cloud.data,
        np.dtype(
            {
                "names": list(fields),
                "formats": [kind for kind, _ in fields.values()],
                "offsets": [offset for _, offset in fields.values()],
                "itemsize": cloud.point_step,
            }
        ),
    )


class Reader:
    """Keeps the last bytes of each topic that the node publishes."""

    def __init__(self, peer: Peer) -> None:
        self.peer, self.store, self.raw = peer, typestore(), dict[str, bytes]()
        self.types: dict[str, str] = {}

    def subscribe(self) -> None:
        """To what the node has come to publish meanwhile."""
        from rclpy.qos import QoSProfile

        found = self.peer.ros.get_publisher_names_and_types_by_node(NAME, "/")
        for topic, (kind,) in found:
            if topic in self.types or not topic.startswith((f"/{NAME}/", "/diagnostics")):
                continue
            package, _, name = kind.split("/")
            self.types[topic] = kind
            (endpoint,) = self.peer.ros.get_publishers_info_by_topic(topic)
            qos = QoSProfile(depth=5, durability=endpoint.qos_profile.durability)
            take = getattr(importlib.import_module(f"{package}.msg"), name)
            self.peer.ros.create_subscription(
                take, topic, lambda data, t=topic: self.raw.__setitem__(t, data), qos, raw=True
            )

    def __getitem__(self, name: str) -> Any:
        topic = f"/{NAME}/{name}"
        return self.store.deserialize_cdr(self.raw[topic], self.types[topic])


@pytest.fixture(scope="module")
def read(
    open_model: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reader]:
    from rclpy.node import NodeNameNonExistentError
    from sensor_msgs.msg import CameraInfo, Image

    from afov_ros.srv import Query

    file = tmp_path_factory.mktemp("mounts") / "mounts.yaml"
    mount = {"parent": "lidar", "child": "cam_a", "translation": [0.0] * 3}
    file.write_text(yaml.safe_dump({"frames": [mount | {"rotation": [-0.5, 0.5, -0.5, 0.5]}]}))
    parameters = [f"model:={open_model}", f"extrinsics:={file}", "embedding:=true"]
    parameters += ["cameras:=[/cam_a/image]", "filter_classes:=[manmade]"]
    k = [60.0, 0.0, WIDTH / 2, 0.0, 60.0, HEIGHT / 2, 0.0, 0.0, 1.0]
    image = Image(height=HEIGHT, width=WIDTH, encoding="mono8", step=WIDTH)
    image.data = bytes(HEIGHT * WIDTH)
    info = CameraInfo(width=WIDTH, height=HEIGHT, k=k)
    for header in (image.header, info.header):
        header.frame_id, (header.stamp.sec, header.stamp.nanosec) = "cam_a", STAMP
    program = Path(__file__).with_name("truth_teller.py")
    with running(NAME, *parameters, environment=environment, program=program):
        peer = Peer()
        reader = Reader(peer)
        images = peer.ros.create_publisher(Image, "/cam_a/image", 1)
        infos = peer.ros.create_publisher(CameraInfo, "/cam_a/camera_info", 1)
        query = peer.ros.create_client(Query, f"/{NAME}/query")

        def all_came() -> bool:
            try:
                reader.subscribe()
            except NodeNameNonExistentError:
                return False
            images.publish(image)
            infos.publish(info)
            query.call_async(Query.Request(phrase="car", threshold=-1.0))
            return {f"/{NAME}/{topic}" for topic in TOPICS} | {"/diagnostics"} <= set(reader.raw)

        peer.stream(message(truth(), stamp=STAMP), all_came, seconds=80)
        later = time.monotonic() + 2  # diagnostics of sweeps that were labelled
        peer.spin_until(lambda: time.monotonic() > later)
        yield reader
        peer.close()


def classes(read: Reader) -> dict[int, Any]:
    return {c.id: c for c in read["vocabulary"].classes}


def test_every_point_has_the_name_that_the_vocabulary_gives_its_id(read: Reader) -> None:
    cloud, expected = read["segmentation"], truth()
    assert (cloud.header.frame_id, cloud.header.stamp.sec) == ("lidar", STAMP[0])
    points, named = columns(cloud), classes(read)
    np.testing.assert_array_equal(points["x"], expected["x"])
    names = [named[i].name for i in points["class_id"]]
    assert names == [CLASSES[int(i)] for i in expected["intensity"]]
    np.testing.assert_allclose(points["probability"], 0.9)
    assert set(points["vocabulary"]) == {read["vocabulary"].version}
    things = points["instance_id"].reshape(3, 300)
    assert [len(set(t)) for t in things] == [1, 1, 1]
    assert things[0, 0] != things[1, 0] and things[2, 0] == 0


def test_the_colours_are_the_vocabularys(read: Reader) -> None:
    named, ids = classes(read), columns(read["segmentation"])["class_id"]
    bgr = columns(read["visualization"])["rgb"].copy().view(np.uint8).reshape(-1, 4)
    colors = [named[i].color for i in ids]
    expected = [[round(255 * v) for v in (c.b, c.g, c.r)] for c in colors]
    np.testing.assert_array_equal(bgr[:, :3], expected)


def test_filtered_embedded_and_queried_points(read: Reader) -> None:
    expected = truth()
    kept = columns(read["filtered"])
    assert kept.dtype.names == expected.dtype.names
    np.testing.assert_array_equal(kept["y"], expected["y"][:600])
    vectors = columns(read["embedding"])["embedding"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    queried = columns(read["query_points"])
    assert queried.dtype.names == ("x", "y", "z", "similarity", "margin") and len(queried) == 900


def test_things_are_segments_detections_and_markers(read: Reader) -> None:
    segments = {s.id: s for s in read["segments"].segments}
    assert sorted(s.name for s in segments.values()) == ["car", "truck"]
    assert {s.points for s in segments.values()} == {300}
    markers = read["markers"].markers
    assert [m.text for m in markers if m.ns == "legend"] == [c.name for c in classes(read).values()]
    assert {m.id for m in markers if m.ns == "things"} == set(segments)
    if f"/{NAME}/detections" in read.types:  # vision_msgs is installed
        assert {d.id for d in read["detections"].detections} == {str(i) for i in segments}
        told = {c.class_id: c.class_name for c in read["label_info"].class_map}
        assert told == {i: c.name for i, c in classes(read).items()}


def test_the_overlay_is_a_picture(read: Reader) -> None:
    picture = read["overlay/cam_a"]
    assert (picture.encoding, picture.header.frame_id) == ("rgb8", "cam_a")
    pixels = picture.data.reshape(picture.height, picture.step)[:, : 3 * picture.width]
    assert pixels.any()  # of a black image: what is drawn


def test_times_and_diagnostics(read: Reader) -> None:
    assert read["debug/processing_time/network_ms"].data > 0
    report = read.store.deserialize_cdr(read.raw["/diagnostics"], read.types["/diagnostics"])
    names = [s.name for s in report.status]
    assert names == [f"/{NAME}: {n}" for n in ("segmentation", "camera cam_a", "transforms")]
    values = {v.key: v.value for v in report.status[0].values}
    assert int(values["labelled"]) > 0 and values["vocabulary"] == "nuscenes16"
