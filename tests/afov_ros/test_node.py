"""The node in its own process, over real DDS."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afov.clouds import read_points, to_sweep
from afov.frames import Sweep
from afov.student import Student
from tests.afov_ros.conftest import (
    CLOUD,
    Peer,
    message,
    node_command,
    random_sweep,
    running,
    structured,
)


def expected_ids(model: Path, sweep: Sweep) -> np.ndarray:
    """What the student says in this process, unlabelled as 255."""
    ids = Student.open(model).label(sweep).class_id
    return np.where(ids == 0, 255, ids)


def test_every_point_comes_back_labelled_in_input_order_with_the_input_header(
    peer: Peer, model: Path
) -> None:
    sweep = random_sweep()
    cloud = message(structured(sweep), stamp=(77, 123456789))
    answer = peer.ask(cloud)
    assert answer.header == cloud.header
    points = read_points(answer)
    assert points.dtype.names == (
        "x",
        "y",
        "z",
        "intensity",
        "class_id",
        "vocabulary",
        "probability",
        "rgb",
        "instance_id",
    )
    for name, column in zip(sweep.fields, sweep.points.T, strict=True):
        np.testing.assert_array_equal(points[name], column)
    np.testing.assert_array_equal(points["class_id"], expected_ids(model, sweep))
    finite = np.isfinite(sweep.points).all(1)
    assert (points["class_id"][~finite] == 255).all() and (~finite).any()
    assert (points["class_id"][finite] < 17).all()


def test_organised_cloud_with_padded_rows_is_read_row_by_row(peer: Peer, model: Path) -> None:
    sweep = random_sweep(600, seed=1)
    flat = structured(sweep).reshape(20, 30)
    padded = np.zeros((20, 30 * 16 + 24), np.uint8)
    padded[:, : 30 * 16] = flat.view(np.uint8).reshape(20, -1)
    cloud = message(
        flat.reshape(-1), height=20, width=30, row_step=padded.shape[1], data=padded.tobytes()
    )
    points = read_points(peer.ask(cloud))
    np.testing.assert_array_equal(points["x"], sweep.points[:, 0])
    np.testing.assert_array_equal(points["class_id"], expected_ids(model, sweep))


def bad_clouds() -> dict[str, Any]:
    good = structured(random_sweep(50))
    return {
        "truncated data": {"data": good.tobytes()[:100]},
        "unknown datatype": {"fields": [_field("x", 0, 99)]},
        "no intensity": {"fields": [_field(n, 4 * i, 7) for i, n in enumerate("xyz")]},
        "no fields": {"fields": []},
        "huge size": {"height": 60000, "width": 60000},
    }


def _field(name: str, offset: int, datatype: int) -> Any:
    from sensor_msgs.msg import PointField

    return PointField(name=name, offset=offset, datatype=datatype, count=1)


@pytest.mark.parametrize("name", sorted(bad_clouds()))
def test_a_good_cloud_is_labelled_after_a_bad_one(name: str, peer: Peer, node: Any) -> None:
    points = structured(random_sweep(50))
    answer = peer.ask(message(points, **bad_clouds()[name]), message(points, stamp=(5, 0)))
    assert answer.header.stamp.sec == 5 and answer.width == 50
    assert node.poll() is None


def test_the_field_that_a_model_misses_is_named(peer: Peer) -> None:
    cloud = message(structured(random_sweep(50)), **bad_clouds()["no intensity"])
    told = "no field 'intensity', which the model needs; its fields: x, y, z"
    peer.diagnostics("/afov: segmentation", lambda s: told in s.message, cloud)


def test_diagnostics_count_what_was_refused_and_say_why(peer: Peer) -> None:
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

    reports: list[Any] = []
    subscription = peer.ros.create_subscription(DiagnosticArray, "/diagnostics", reports.append, 10)
    peer.spin_until(lambda: bool(reports))
    before = {v.key: v.value for v in reports[-1].status[0].values}
    peer.publisher.publish(message(structured(random_sweep(50)), data=b"short"))

    def refused() -> int:
        return int({v.key: v.value for v in reports[-1].status[0].values}["refused"])

    peer.spin_until(lambda: refused() > int(before["refused"]))
    assert reports[-1].status[0].level != DiagnosticStatus.OK
    status = reports[-1].status[0]
    after = {v.key: v.value for v in status.values}
    assert int(after["refused"]) == int(before["refused"]) + 1
    assert after["labelled"] == before["labelled"]
    assert "data has 5" in status.message
    peer.ros.destroy_subscription(subscription)


def test_an_empty_cloud_comes_back_empty(peer: Peer) -> None:
    answer = peer.ask(message(structured(random_sweep(0))))
    assert answer.width * answer.height == 0


def odd_clouds() -> dict[str, tuple[Any, str]]:
    good = structured(random_sweep(50))
    nowhere = good.copy()
    nowhere["y"] = np.nan
    faint = good.copy()
    faint["intensity"] = 0.5
    return {
        "no points": (message(good[:0]), "without points"),
        "no finite point": (message(nowhere), "without any finite point"),
        "no stamp": (message(good, stamp=(0, 0)), "without a stamp"),
        "another intensity": (message(faint), "set intensity_scale to 255"),
    }


@pytest.mark.parametrize("name", sorted(odd_clouds()))
def test_an_odd_cloud_is_labelled_counted_and_told(name: str, peer: Peer) -> None:
    cloud, reason = odd_clouds()[name]

    def counted(status: Any) -> dict[str, int]:
        values = {v.key: v.value for v in status.values}
        return {key: int(values[key]) for key in ("odd", "refused", "time jumped back")}

    peer.ask(message(structured(random_sweep(50)), stamp=(400, 0)))
    before = counted(peer.diagnostics("/afov: segmentation", lambda s: True))
    answer = peer.ask(cloud)
    assert answer.header == cloud.header and answer.width == cloud.width
    told = peer.diagnostics("/afov: segmentation", lambda s: "odd: " in s.message)
    assert told.level == b"\x01" and reason in told.message
    after = counted(told)
    assert after["odd"] == before["odd"] + 1 and after["refused"] == before["refused"]
    if name == "no stamp":
        assert after["time jumped back"] == before["time jumped back"]


def test_why_no_cloud_comes_is_told(peer: Peer, model: Path, environment: dict[str, str]) -> None:
    from sensor_msgs.msg import LaserScan

    name = "/deaf: segmentation"
    remap = {"~/input/pointcloud": "/mistyped"}
    with running("deaf", f"model:={model}", environment=environment, remap=remap):
        peer.diagnostics(name, lambda s: "nobody publishes /mistyped" in s.message)
        publisher = peer.ros.create_publisher(LaserScan, "/mistyped", 1)
        wrong = "/mistyped is sensor_msgs/msg/LaserScan, expected sensor_msgs/msg/PointCloud2"
        status = peer.diagnostics(name, lambda s: wrong in s.message)
        assert status.level == b"\x01"
        peer.ros.destroy_publisher(publisher)


def test_vocabulary_is_latched(peer: Peer, model: Path) -> None:
    (message,) = peer.vocabularies
    classes = Student.open(model).vocabulary.labelled
    assert [c.id for c in message.classes] == list(range(1, len(classes) + 1))
    assert [c.name for c in message.classes] == [c.name for c in classes]
    assert [tuple(c.phrases) for c in message.classes] == [c.phrases for c in classes]
    assert [c.thing for c in message.classes] == [c.thing for c in classes]
    assert message.classes[0].color.r == pytest.approx(classes[0].color[0] / 255)


def test_real_nuscenes_sweep_goes_through(peer: Peer, shared: Path) -> None:
    folder = shared / "data/nuscenes-one-sample/samples/LIDAR_TOP"
    raw = np.fromfile(next(folder.iterdir()), np.float32).reshape(-1, 5)
    sweep = Sweep(raw, ("x", "y", "z", "intensity", "ring"), 0, "lidar_top")
    points = read_points(peer.ask(message(structured(sweep))))
    assert len(points) == 34688
    np.testing.assert_array_equal(points["x"], raw[:, 0])
    assert (points["class_id"] <= 16).all()


def test_an_odd_recorded_cloud_goes_through(peer: Peer, shared: Path) -> None:
    rosbags = pytest.importorskip("rosbags.typesys")
    data = (shared / "data/odd-clouds/dds_message.bin").read_bytes()
    store = rosbags.get_typestore(rosbags.Stores.ROS2_JAZZY)
    sweep = to_sweep(store.deserialize_cdr(data, "sensor_msgs/msg/PointCloud2"))
    points = read_points(peer.ask(data))
    np.testing.assert_array_equal(points["y"], sweep.points[:, 1])


@contextmanager
def begun(
    name: str, model: Path, environment: dict[str, str], *, ignores_int: bool = False
) -> Iterator[Any]:
    """Another node, whose last words can be read."""
    command = [*node_command(f"model:={model}"), "-r", f"__node:={name}"]
    if ignores_int:  # as a shell starts `program &`
        command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
    told = environment | {"PYTHONFAULTHANDLER": "1"}
    node = subprocess.Popen(command, env=told, stderr=subprocess.PIPE, text=True)
    try:
        yield node
    finally:
        node.kill()


def last_words(node: Any, number: int, times: int = 1) -> str:
    """Ends the node with a signal; what it wrote to stderr, its counts last."""
    began = time.monotonic()
    for _ in range(times):
        node.send_signal(number)
        time.sleep(0.02)
    try:
        _, error = node.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        node.send_signal(signal.SIGABRT)  # faulthandler tells where every thread is
        pytest.fail(f"still there after 10 s:\n{node.communicate()[1]}")
    assert node.returncode == 0, error
    assert time.monotonic() - began < 5  # ros2 launch sends SIGTERM then
    assert "Traceback" not in error and "Exception ignored" not in error
    return str(error)


@pytest.mark.parametrize("how", ["int", "term", "int in the background", "int three times"])
def test_a_signal_ends_the_node_quietly(
    how: str, peer: Peer, model: Path, environment: dict[str, str]
) -> None:
    name, ignores = f"idle_{how.replace(' ', '_')}", how == "int in the background"
    with begun(name, model, environment, ignores_int=ignores) as node:
        peer.spin_until(lambda: peer.ros.count_publishers(f"/{name}/vocabulary") > 0)
        time.sleep(0.5)
        number = signal.SIGTERM if how == "term" else signal.SIGINT
        error = last_words(node, number, 3 if how == "int three times" else 1)
    assert error.splitlines()[-1] == "afov_node: 0 clouds labelled, 0 refused, 0 dropped, 0 missed"


def test_an_interrupt_before_there_is_a_node_ends_the_program_quietly(
    model: Path, environment: dict[str, str]
) -> None:
    with begun("unborn", model, environment) as node:
        while "librcl" not in Path(f"/proc/{node.pid}/maps").read_text():  # being imported
            time.sleep(0.01)
        last_words(node, signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_node_quietly_while_it_opens_its_model(
    number: int, peer: Peer, model: Path, environment: dict[str, str]
) -> None:
    name = f"opening_{number}"
    with begun(name, model, environment) as node:
        # The last that a node makes before it opens its model.
        peer.spin_until(lambda: f"/{name}/query" in dict(peer.ros.get_service_names_and_types()))
        error = last_words(node, number)
    assert error.splitlines()[-1] == "afov_node: 0 clouds labelled, 0 refused, 0 dropped, 0 missed"


def test_a_signal_ends_the_node_quietly_while_it_labels(
    peer: Peer, model: Path, environment: dict[str, str]
) -> None:
    from sensor_msgs.msg import PointCloud2

    heard = peer.listen(PointCloud2, "/labelling/visualization")
    with begun("labelling", model, environment) as node:
        cloud = message(structured(random_sweep(40_000)))
        peer.stream(cloud, lambda: bool(heard))
        for _ in range(3):
            peer.publisher.publish(cloud)
            time.sleep(0.02)
        error = last_words(node, signal.SIGINT)
    assert " clouds labelled, 0 refused" in error.splitlines()[-1]


def test_a_signal_ends_the_node_while_it_embeds_an_endless_vocabulary(
    peer: Peer, open_model: Path, environment: dict[str, str]
) -> None:
    from afov_ros.msg import Category
    from afov_ros.srv import SetVocabulary

    letters = np.random.default_rng(0).choice(list("abcdefghij "), (250, 8, 190))
    phrases = [["".join(row) for row in rows] for rows in letters]
    classes = [Category(name=f"c{i}", phrases=rows) for i, rows in enumerate(phrases)]
    with begun("talkative", open_model, environment) as node:
        client = peer.ros.create_client(SetVocabulary, "/talkative/set_vocabulary")
        peer.spin_until(client.service_is_ready)
        # Few at first: the tower is open, and both sides connected.
        name = "/talkative/set_vocabulary"
        assert peer.call(SetVocabulary, name, SetVocabulary.Request(classes=[Category(name="a")]))
        future = client.call_async(SetVocabulary.Request(classes=classes))
        until = time.monotonic() + 1.0
        peer.spin_until(lambda: time.monotonic() > until)
        assert not future.done()
        last_words(node, signal.SIGINT)


def test_each_kind_of_bad_cloud_is_told_once_in_a_while_and_counted_every_time(
    peer: Peer, model: Path, environment: dict[str, str]
) -> None:
    from sensor_msgs.msg import PointCloud2

    good = structured(random_sweep(50))
    bad = [
        message(good, **bad_clouds()[name]) for name in ("truncated data", "no fields", "huge size")
    ]
    heard = peer.listen(PointCloud2, "/pestered/segmentation")
    with begun("pestered", model, environment) as node:
        peer.stream(message(good), lambda: bool(heard))
        for _ in range(15):
            for cloud in bad:
                peer.publisher.publish(cloud)
                time.sleep(0.03)
        error = last_words(node, signal.SIGINT)
    counts = error.splitlines()[-1]
    refused = int(counts.split(" refused")[0].split()[-1])
    told = [line for line in error.splitlines() if "cloud refused" in line]
    assert refused > 20 and "0 clouds labelled" not in counts
    assert 3 <= len(told) <= 6  # each kind, and once more where that took over five seconds


@pytest.mark.parametrize(
    "fault", ["changed weights", "no such folder", "no model named", "runtime", "afi", "vocabulary"]
)
def test_what_cannot_be_configured_leaves_the_node_unconfigured_with_the_reason(
    fault: str, peer: Peer, model: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    from lifecycle_msgs.srv import ChangeState, GetState

    copy = tmp_path / "model"
    parameters = [f"model:={copy}"]
    if fault != "no such folder":
        shutil.copytree(model, copy)
    if fault == "changed weights":
        with (copy / "student.onnx").open("ab") as file:
            file.write(b"x")
    if fault == "no model named":
        parameters = []
    if fault == "runtime":
        parameters.append("runtime:=abacus")
    if fault == "afi":
        parameters.append("afi:=best")
    if fault == "vocabulary":
        parameters.append("vocabulary:=[unicorn]")
    named = {
        "changed weights": "SHA-256",
        "runtime": "abacus",
        "afi": "refined, got 'best'",
        "vocabulary": "no text tower",
    }.get(fault, "model")
    with running("broken", *parameters, environment=environment) as node:
        seen = peer.diagnostics("/broken: segmentation", lambda s: s.level == b"\x02")
        assert seen.message.startswith("not configured: ") and named in seen.message
        assert peer.call(GetState, "/broken/get_state").current_state.label == "unconfigured"
        if fault == "changed weights":
            # Mended, it can be configured after all.
            shutil.copy(model / "student.onnx", copy / "student.onnx")
            request = ChangeState.Request()
            request.transition.label = "configure"
            peer.call(ChangeState, "/broken/change_state", request)
            assert peer.call(GetState, "/broken/get_state").current_state.label == "inactive"
        assert node.poll() is None


def test_a_parameter_out_of_its_range_is_one_line_and_an_exit_code(
    model: Path, environment: dict[str, str]
) -> None:
    run = subprocess.run(
        node_command(f"model:={model}", "threshold:=7.0"),
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.returncode == 2
    # Kilted's middleware remarks on the profile's older variable, which Jazzy needs.
    lines = [line for line in run.stderr.splitlines() if "rmw_fastrtps" not in line]
    (line,) = lines
    assert line.startswith("afov_node: ") and "threshold" in line


def test_clouds_are_taken_from_the_remapped_topic(peer: Peer) -> None:
    peer.spin_until(lambda: peer.ros.count_subscribers(CLOUD) == 1)


def test_a_node_with_afi_publishes_the_corrected_labels(
    peer: Peer, model: Path, environment: dict[str, str]
) -> None:
    from sensor_msgs.msg import PointCloud2

    answers: list[Any] = []
    sweep = random_sweep(2500, seed=5)
    with running("flat", f"model:={model}", "afi:=refined", environment=environment):
        peer.ros.create_subscription(PointCloud2, "/flat/segmentation", answers.append, 10)
        peer.stream(message(structured(sweep), stamp=(88, 1)), lambda: bool(answers))
    student = Student.open(model)
    labels = student.corrected(student.label(sweep), sweep, "refined")
    points = read_points(answers[-1])
    expected = np.where(labels.class_id == 0, 255, labels.class_id)
    assert (points["class_id"] == expected).mean() > 0.999
    assert np.allclose(points["probability"], labels.score, atol=1e-3)
