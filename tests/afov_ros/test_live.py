"""A bag through player, node and collector, each its own process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from afov.errors import InputError
from afov.frames import Frame, Sweep
from afov.student import Student
from tests.afov_ros.conftest import random_sweep

COUNT = 6


@pytest.fixture(scope="module")
def sweeps() -> list[Sweep]:
    """Sweeps at 20 Hz, all different; one begins a second later, as after a pause."""
    stamps = [10**18 + 50_000_000 * i for i in range(COUNT - 1)] + [10**18 + 1_250_000_000]
    return [
        replace(random_sweep(2000, seed=i), stamp=stamp, frame_id="lidar_top")
        for i, stamp in enumerate(stamps)
    ]


@pytest.fixture(scope="module")
def bag(sweeps: list[Sweep], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Them, as a ROS 2 MCAP."""
    pytest.importorskip("rosbags")
    from afov_train.simulation.write_mcap import write_mcap

    path = tmp_path_factory.mktemp("live") / "drive.mcap"
    write_mcap((Frame(str(i), s, (), np.eye(4)) for i, s in enumerate(sweeps)), path)
    return path


@pytest.mark.slow
def test_no_sweep_is_lost_and_every_label_is_the_students(
    bag: Path, sweeps: list[Sweep], model: Path, environment: dict[str, str]
) -> None:
    from rosbags.highlevel import AnyReader

    from afov_ros.live import SEGMENTATION, label_live

    out = bag.with_name("labelled.mcap")
    domain = int(environment["ROS_DOMAIN_ID"]) + 50
    live = label_live(model, bag, cloud="/lidar_top", out=out, domain=domain)
    assert (live.sent, live.lost) == (COUNT, 0)
    student = Student.open(model)
    for sweep in sweeps:
        ids = student.label(sweep).class_id
        np.testing.assert_array_equal(live.class_id[sweep.stamp], np.where(ids == 0, 255, ids))
    with AnyReader([out]) as reader:
        counts = {name: topic.msgcount for name, topic in reader.topics.items()}
    assert counts[SEGMENTATION] == counts["/lidar_top"] == COUNT


def test_what_does_not_come_back_is_counted_as_lost() -> None:
    from afov_ros.live import Live

    live = Live(3, {1: b"", 2: b""}, {})
    assert live.lost == 1 and "1 lost" in str(live)


def test_a_topic_that_the_bag_lacks_is_named(bag: Path) -> None:
    from afov_ros.replay import serialized_clouds

    with pytest.raises(InputError, match="/no_such"):
        next(serialized_clouds(bag, "/no_such"))
