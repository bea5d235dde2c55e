"""Things on a live node: ids that last, segments, detections, boxes; truth is the model."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from afov.clouds import read_points
from afov.frames import Frame
from afov.vocabulary import Vocabulary
from tests.afov_ros.conftest import Peer, message, random_sweep, running, structured, transform
from tests.truth_drive import Tally, drive

NAME = "panoptic"
SWEEPS = 100
HAS_TF = importlib.util.find_spec("tf2_msgs") is not None
NUSCENES = Vocabulary.load("nuscenes16")


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(drive(SWEEPS + 8))


@pytest.fixture(scope="module")
def node(open_model: Path, environment: dict[str, str]) -> Iterator[Any]:
    parameters = [f"model:={open_model}", "fixed_frame:=map"]
    program = Path(__file__).with_name("truth_teller.py")
    with running(NAME, *parameters, environment=environment, program=program) as process:
        yield process


class Vehicle:
    """Sends the drive's sweeps, and the pose of the next one beforehand; one answer for each."""

    def __init__(self, peer: Peer, frames: list[Frame]) -> None:
        from sensor_msgs.msg import PointCloud2
        from visualization_msgs.msg import MarkerArray

        from afov_ros.msg import Segments

        self.peer, self.frames, self.next = peer, frames, 0
        self.rng = np.random.default_rng(1)
        if HAS_TF:
            from tf2_msgs.msg import TFMessage

            self.tf = peer.ros.create_publisher(TFMessage, "/tf", 50)
        self.clouds = peer.listen(PointCloud2, f"/{NAME}/segmentation")
        self.segments = peer.listen(Segments, f"/{NAME}/segments")
        self.markers = peer.listen(MarkerArray, f"/{NAME}/markers")
        # Both ways connected, before the first sweep that counts.
        fixed = "map" if HAS_TF else ""

        def connected() -> bool:
            self.pose(frames[0])
            return bool(self.clouds and self.segments and self.segments[-1].fixed_frame == fixed)

        peer.stream(self.cloud(frames[0])[0], connected)

    def cloud(self, frame: Frame) -> tuple[Any, np.ndarray]:
        """The message, and each point's true thing; numbers within the sweep are drawn anew."""
        truth, sweep = frame.truth, frame.sweep
        assert truth is not None
        name = np.append(0, 1 + self.rng.permutation(truth.instance_id.max()))
        columns = {"x": "<f4", "y": "<f4", "z": "<f4", "intensity": "<f4", "ring": "<u2"}
        points = np.zeros(len(sweep), np.dtype(list(columns.items())))
        for i, axis in enumerate("xyz"):
            points[axis] = sweep.points[:, i]
        points["intensity"], points["ring"] = truth.class_id, name[truth.instance_id]
        made = message(points, stamp=divmod(sweep.stamp, 10**9))
        made.header.frame_id = sweep.frame_id
        return made, truth.instance_id

    def pose(self, frame: Frame) -> None:
        if HAS_TF:
            from tf2_msgs.msg import TFMessage

            pose, stamp = frame.world_from_lidar, divmod(frame.sweep.stamp, 10**9)
            assert pose is not None
            turn = Rotation.from_matrix(pose[:3, :3])
            moved = transform("map", "lidar_top", turn, pose[:3, 3], stamp)
            self.tf.publish(TFMessage(transforms=[moved]))

    def step(self) -> tuple[Frame, np.ndarray, Any, np.ndarray]:
        """The next sweep: frame, labelled points, segments, true things."""
        frame = self.frames[self.next]
        for ahead in self.frames[self.next : self.next + 2]:
            self.pose(ahead)
        self.next += 1
        made, things = self.cloud(frame)
        heard = (self.clouds, self.segments)
        for messages in (*heard, self.markers):
            messages.clear()

        def answered() -> bool:
            return all(any(made.header == m.header for m in h) for h in heard)

        until = time.monotonic() + 40
        while not answered():
            assert time.monotonic() < until, "nothing came in time"
            self.peer.publisher.publish(made)
            again = time.monotonic() + 2
            while time.monotonic() < again and not answered():
                self.peer.executor.spin_once(timeout_sec=0.1)
        (cloud, *_), (segments, *_) = ([m for m in h if m.header == made.header] for h in heard)
        return frame, read_points(cloud), segments, things


@pytest.fixture(scope="module")
def vehicle(node: Any, environment: dict[str, str], frames: list[Frame]) -> Iterator[Vehicle]:
    peer = Peer()
    yield Vehicle(peer, frames)
    peer.close()


def test_things_keep_their_ids_over_a_hundred_sweeps(vehicle: Vehicle) -> None:
    tally = Tally()
    for index in range(SWEEPS):
        frame, points, segments, things = vehicle.step()
        assert frame.truth is not None
        assert ((points["instance_id"] > 0) == (things > 0)).all()
        for thing in np.unique(things[things > 0]):
            (one,) = np.unique(points["instance_id"][things == thing])
            tally.add(index, int(thing), int(one))
        assert {s.id for s in segments.segments} == set(np.unique(points["instance_id"])) - {0}
    assert tally.detections > 1000 and len(tally.last) > 20
    # Without tf the vehicle's own turns are mistaken for the things' motion.
    assert tally.switches <= (0 if HAS_TF else 0.002 * tally.detections)


def test_a_segment_tells_class_points_place_and_box(vehicle: Vehicle) -> None:
    _, points, segments, _ = vehicle.step()
    assert segments.header.frame_id == "lidar_top" and segments.vocabulary == 1
    assert len(segments.segments) > 10
    for segment in segments.segments:
        own = points[points["instance_id"] == segment.id]
        xyz = np.stack([own[a] for a in "xyz"], 1).astype(np.float64)
        assert set(own["class_id"].tolist()) == {segment.class_id}
        assert segment.name == NUSCENES.names[segment.class_id]
        assert segment.points == len(own) and segment.score == pytest.approx(0.9)
        place = segment.centroid
        np.testing.assert_allclose((place.x, place.y, place.z), xyz.mean(0), atol=1e-4)
        at, q, size = segment.pose.position, segment.pose.orientation, segment.size
        local = Rotation.from_quat((q.x, q.y, q.z, q.w)).inv().apply(xyz - (at.x, at.y, at.z))
        np.testing.assert_allclose(2 * local.max(0), (size.x, size.y, size.z), atol=1e-4)
        np.testing.assert_allclose(-2 * local.min(0), (size.x, size.y, size.z), atol=1e-4)


def test_velocities_are_those_over_ground_where_there_is_tf(vehicle: Vehicle) -> None:
    _, points, segments, things = vehicle.step()
    if not HAS_TF:
        assert segments.fixed_frame == "" and not any(s.tracked for s in segments.segments)
        return
    from afov_train.simulation.traffic import busy_street

    true = {t.instance: t.velocity for t in busy_street(5).things if t.instance}
    assert segments.fixed_frame == "map"
    moving = 0
    for segment in segments.segments:
        thing = int(things[points["instance_id"] == segment.id][0])
        if segment.tracked:
            told = (segment.velocity.x, segment.velocity.y, segment.velocity.z)
            np.testing.assert_allclose(told, true[thing], atol=0.6)
            moving += np.linalg.norm(true[thing]) > 1
    assert moving >= 2


def test_markers_are_the_legend_and_a_box_and_a_name_for_each_thing(vehicle: Vehicle) -> None:
    from visualization_msgs.msg import Marker

    _, _, segments, _ = vehicle.step()
    stamp = segments.header.stamp

    def shown() -> list[Any]:
        found = (m.markers for m in vehicle.markers)
        return [m for m in found if any(stamp == one.header.stamp for one in m)]

    vehicle.peer.spin_until(lambda: bool(shown()))
    markers = shown()[-1]
    legend = [m.text for m in markers if m.ns == "legend"]
    assert legend == [c.name for c in NUSCENES.labelled]
    boxes = {m.id: m for m in markers if m.ns == "things"}
    names = {m.id: m.text for m in markers if m.ns == "names"}
    assert markers[0].action == Marker.DELETEALL
    assert boxes.keys() == names.keys() == {s.id for s in segments.segments}
    for segment in segments.segments:
        assert boxes[segment.id].pose == segment.pose
        assert boxes[segment.id].scale.x == pytest.approx(max(segment.size.x, 0.05))
        assert names[segment.id].startswith(f"{segment.name} {segment.id}")


def test_detections_are_the_segments_where_vision_msgs_is_installed(vehicle: Vehicle) -> None:
    messages = pytest.importorskip("vision_msgs.msg", reason="PyPI has no vision_msgs")
    heard = vehicle.peer.listen(messages.Detection3DArray, f"/{NAME}/detections")
    _, _, segments, _ = vehicle.step()
    made, _ = vehicle.cloud(vehicle.frames[vehicle.next - 1])
    vehicle.peer.stream(made, lambda: bool(heard))
    told = {d.id: d for d in heard[-1].detections}
    assert told.keys() == {str(s.id) for s in segments.segments}
    for segment in segments.segments:
        detection = told[str(segment.id)]
        (result,) = detection.results
        assert result.hypothesis.class_id == segment.name
        assert result.hypothesis.score == pytest.approx(segment.score)
        assert detection.bbox.center == segment.pose and detection.bbox.size == segment.size


def test_things_follow_the_vocabulary_and_keep_their_ids(vehicle: Vehicle) -> None:
    from afov_ros.msg import Category
    from afov_ros.srv import SetVocabulary

    _, points, _, _ = vehicle.step()
    seen = [points["instance_id"][points["class_id"] == i] for i in range(len(NUSCENES.names))]
    most, second = np.argsort([-len(set(ids) - {0}) for ids in seen])[:2]
    # What there is most of is stuff from now on, and nobody asks for most others.
    stuff, thing = NUSCENES.names[most], NUSCENES.names[second]
    classes = [Category(name=stuff), Category(name=thing, thing=True)]
    request = SetVocabulary.Request(name="few", classes=classes)
    answer = vehicle.peer.call(SetVocabulary, f"/{NAME}/set_vocabulary", request)
    assert answer.success and set(seen[second]) - {0}
    _, points, segments, _ = vehicle.step()
    assert segments.vocabulary == answer.version == points["vocabulary"][0]
    assert {s.name for s in segments.segments} == {thing}
    assert {s.id for s in segments.segments} <= set(seen[second])
    assert set(points["instance_id"][points["class_id"] == 1]) == {0}
    assert set(points["class_id"]) == {1, 2, 255}


def test_a_semantic_model_tells_of_no_things(
    model: Path, environment: dict[str, str], talker: Peer
) -> None:
    from sensor_msgs.msg import PointCloud2

    from afov_ros.msg import Segments

    with running("semantic", f"model:={model}", environment=environment):
        clouds = talker.listen(PointCloud2, "/semantic/segmentation")
        segments = talker.listen(Segments, "/semantic/segments")
        talker.stream(message(structured(random_sweep(500))), lambda: len(clouds) > 4)
    assert not segments
    assert not read_points(clouds[-1])["instance_id"].any()
