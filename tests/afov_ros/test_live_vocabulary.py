"""The vocabulary changes while the node runs; no cloud mixes two."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from afov.clouds import read_points
from afov.labelled import similar_points
from afov.student import Student
from afov.text_tower import TextTower
from afov.vocabulary import Vocabulary
from tests.afov_ros.conftest import Peer, message, random_sweep, running, structured

SWEEP = random_sweep(1500, seed=3)
CLOUD = structured(SWEEP)
VEHICLES = Vocabulary.of_phrases(["car", "truck", "bicycle"])
STAMPS = count(100)
NATURE = Vocabulary.of_phrases(["tree", "grass", "sky", "gravel", "water"])


@pytest.fixture(scope="module")
def live(open_model: Path, environment: dict[str, str]) -> Iterator[Any]:
    with running("live", f"model:={open_model}", environment=environment) as node:
        yield node


@pytest.fixture(scope="module")
def connected(live: Any, environment: dict[str, str]) -> Iterator[Peer]:
    peer = Peer()
    peer.clouds = peer.listen(_kind("PointCloud2"), "/live/segmentation")
    peer.vocabularies = peer.listen(_kind("Vocabulary"), "/live/vocabulary", latched=True)
    peer.stream(message(CLOUD), lambda: bool(peer.clouds and peer.vocabularies))
    yield peer
    peer.close()


@pytest.fixture
def ear(connected: Peer) -> Peer:
    """Hears the node's clouds and vocabularies, the trained one to begin with."""
    assert change(connected, None).success
    return connected


def _kind(name: str) -> Any:
    import sensor_msgs.msg

    import afov_ros.msg

    return getattr(afov_ros.msg, name, None) or getattr(sensor_msgs.msg, name)


def change(ear: Peer, vocabulary: Vocabulary | None) -> Any:
    from afov_ros.conversions import vocabulary_message
    from afov_ros.srv import SetVocabulary

    request = SetVocabulary.Request()
    if vocabulary is not None:
        about = vocabulary_message(vocabulary, 0, _kind("PointCloud2")().header)
        request.name, request.classes = about.name, about.classes
    return ear.call(SetVocabulary, "/live/set_vocabulary", request)


def next_cloud(ear: Peer) -> np.ndarray:
    """Labels of a sweep that began after all that was asked before."""
    stamp = next(STAMPS)
    ear.stream(
        message(CLOUD, stamp=(stamp, 0)),
        lambda: any(c.header.stamp.sec == stamp for c in ear.clouds),
    )
    return read_points(next(c for c in ear.clouds if c.header.stamp.sec == stamp))


def meaning(points: np.ndarray) -> np.ndarray:
    """What a listener would act upon."""
    return points[["class_id", "vocabulary"]].copy()


def expected_ids(model: Path, vocabulary: Vocabulary) -> np.ndarray:
    student = Student.open(model)
    bank = TextTower.open(model).text_bank(vocabulary)
    ids = student.with_text_bank(bank).label(SWEEP).class_id
    return np.where(ids == 0, 255, ids)


def test_a_new_vocabulary_labels_the_next_sweep(ear: Peer, open_model: Path) -> None:
    answer = change(ear, VEHICLES)
    assert answer.success, answer.message
    points = next_cloud(ear)
    assert set(points["vocabulary"]) == {answer.version}
    np.testing.assert_array_equal(points["class_id"], expected_ids(open_model, VEHICLES))
    latched = ear.vocabularies[-1]
    assert latched.version == answer.version
    assert [c.name for c in latched.classes] == ["car", "truck", "bicycle"]
    assert [c.id for c in latched.classes] == [1, 2, 3]


@pytest.mark.slow
def test_no_cloud_mixes_two_under_a_hundred_changes(ear: Peer, open_model: Path) -> None:
    from afov_ros.conversions import vocabulary_message
    from afov_ros.srv import SetVocabulary

    two = (VEHICLES, NATURE)
    expected = [expected_ids(open_model, v) for v in two]
    client = ear.ros.create_client(SetVocabulary, "/live/set_vocabulary")
    ear.clouds.clear()
    which: dict[int, int] = {}
    until = time.monotonic() + 90
    for i in range(100):
        about = vocabulary_message(two[i % 2], 0, _kind("PointCloud2")().header)
        request = SetVocabulary.Request(name=about.name, classes=about.classes)
        future = client.call_async(request)
        ear.publisher.publish(message(CLOUD))
        while not future.done():
            assert time.monotonic() < until
            ear.executor.spin_once(timeout_sec=0.02)
        assert future.result().success
        which[future.result().version] = i % 2
        for _ in range(3):
            ear.executor.spin_once(timeout_sec=0.02)
    ear.stream(message(CLOUD), lambda: len(ear.clouds) > 20)
    names = {m.version: [c.name for c in m.classes] for m in ear.vocabularies}
    seen = set()
    for cloud in ear.clouds:
        points = read_points(cloud)
        (version,) = set(points["vocabulary"].tolist())
        if version in which:
            seen.add(version)
            np.testing.assert_array_equal(points["class_id"], expected[which[version]])
            if version in names:
                assert names[version] == list(two[which[version]].names[1:])
    assert len(seen) > 10


def bad_requests() -> dict[str, tuple[list[dict[str, Any]], str]]:
    white = {"r": 1.0, "g": 1.0, "b": 1.0, "a": 1.0}
    return {
        "twice": ([{"name": "car"}, {"name": "car"}], "stands twice"),
        "nameless": ([{"name": ""}], "'name'"),
        "blank phrase": ([{"name": "car", "phrases": [" "]}], "phrases"),
        "endless phrase": ([{"name": "car", "phrases": ["x" * 300]}], "1 to 200"),
        "no colour": ([{"name": "car", "color": white | {"g": float("nan")}}], "0 to 255"),
        "too many": ([{"name": f"c{i}"} for i in range(255)], "1 to 254"),
    }


@pytest.mark.parametrize("name", sorted(bad_requests()))
def test_a_wrong_vocabulary_is_refused_and_changes_nothing(name: str, ear: Peer) -> None:
    from std_msgs.msg import ColorRGBA

    from afov_ros.msg import Category
    from afov_ros.srv import SetVocabulary

    classes, reason = bad_requests()[name]
    before = next_cloud(ear)
    request = SetVocabulary.Request()
    for entry in classes:
        color = ColorRGBA(**entry.get("color", {}))
        phrases = entry.get("phrases", [])
        request.classes.append(Category(name=entry["name"], phrases=phrases, color=color))
    answer = ear.call(SetVocabulary, "/live/set_vocabulary", request)
    assert not answer.success and reason in answer.message
    np.testing.assert_array_equal(meaning(next_cloud(ear)), meaning(before))


def set_parameters(ear: Peer, node: str = "/live", **values: Any) -> Any:
    from rcl_interfaces.srv import SetParametersAtomically
    from rclpy.parameter import Parameter

    request = SetParametersAtomically.Request()
    request.parameters = [Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
    return ear.call(SetParametersAtomically, f"{node}/set_parameters_atomically", request).result


def test_the_parameter_takes_phrases_and_files(ear: Peer, open_model: Path, tmp_path: Path) -> None:
    assert set_parameters(ear, vocabulary=["car", "truck", "bicycle"]).successful
    points = next_cloud(ear)
    np.testing.assert_array_equal(points["class_id"], expected_ids(open_model, VEHICLES))
    file = tmp_path / "nature.yaml"
    file.write_text(yaml.safe_dump(NATURE.to_dict()))
    assert set_parameters(ear, vocabulary=str(file)).successful
    points = next_cloud(ear)
    np.testing.assert_array_equal(points["class_id"], expected_ids(open_model, NATURE))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"vocabulary": "no_such.yaml"}, "neither a preset"),
        ({"vocabulary": ["car", "car"]}, "stands twice"),
        ({"vocabulary": ["boat"], "ego_box": [0.0, 1.0]}, "six finite metres"),
        ({"vocabulary": ["boat"], "model": "elsewhere"}, "read at configure"),
        ({"vocabulary": 5}, "list of phrases, got 5"),
        ({"filter_classes": ["roda"]}, "no class roda; there are "),
        ({"vocabulary": ["boat"], "filter_classes": ["car"]}, "no class car; there are boat"),
        ({"threshold": 3.0}, "threshold"),
    ],
)
def test_a_wrong_parameter_is_refused_and_changes_nothing(
    values: dict[str, Any], reason: str, ear: Peer
) -> None:
    before = next_cloud(ear)
    result = set_parameters(ear, **values)
    assert not result.successful and reason in result.reason
    np.testing.assert_array_equal(meaning(next_cloud(ear)), meaning(before))


def test_the_threshold_changes_live(ear: Peer) -> None:
    points = next_cloud(ear)
    limit = float(np.median(points["probability"][points["class_id"] < 255]))
    try:
        assert set_parameters(ear, threshold=limit).successful
        unsure = next_cloud(ear)["class_id"] == 255
        np.testing.assert_array_equal(
            unsure, (points["class_id"] == 255) | (points["probability"] < limit)
        )
    finally:
        assert set_parameters(ear, threshold=0.0).successful


def test_a_query_returns_the_points_that_a_phrase_means(ear: Peer, open_model: Path) -> None:
    from afov_ros.srv import Query

    heard = ear.listen(_kind("PointCloud2"), "/live/query_points")
    row = TextTower.open(open_model).embed(["traffic cone"])[0]
    labels = Student.open(open_model).label(SWEEP)
    bank = Student.open(open_model).text_bank
    everything, highest = similar_points(SWEEP, labels, row, bank.rivals("traffic cone"), -1.0)
    limit = float(np.median(everything["similarity"]))
    next_cloud(ear)
    request = Query.Request(phrase="traffic cone", threshold=limit)
    answer = ear.call(Query, "/live/query", request)
    assert answer.success and answer.highest == pytest.approx(highest, abs=1e-3)
    points = read_points(answer.cloud)
    assert points.dtype.names == ("x", "y", "z", "similarity", "margin")
    assert abs(len(points) - len(everything) / 2) <= 2
    assert (points["similarity"] >= np.float32(limit)).all()
    assert answer.cloud.header.frame_id == "lidar" and answer.cloud.header.stamp.sec >= 100
    ear.spin_until(lambda: bool(heard))
    np.testing.assert_array_equal(read_points(heard[0]), points)


@pytest.mark.parametrize(
    ("phrase", "threshold", "reason"), [("", 0.0, "1 to 200"), ("car", float("nan"), "cosine")]
)
def test_a_wrong_query_is_refused(phrase: str, threshold: float, reason: str, ear: Peer) -> None:
    from afov_ros.srv import Query

    request = Query.Request(phrase=phrase, threshold=threshold)
    answer = ear.call(Query, "/live/query", request)
    assert not answer.success and reason in answer.message


def test_without_a_text_tower_the_trained_vocabulary_stays(
    model: Path, talker: Peer, environment: dict[str, str]
) -> None:
    from afov_ros.msg import Category
    from afov_ros.srv import SetVocabulary

    request = SetVocabulary.Request(classes=[Category(name="car")])
    with running("shut", f"model:={model}", environment=environment):
        answer = talker.call(SetVocabulary, "/shut/set_vocabulary", request)
        assert not answer.success and "no text tower" in answer.message
        assert talker.call(SetVocabulary, "/shut/set_vocabulary").success
