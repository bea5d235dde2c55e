"""Labels to messages."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from afov.frames import Sweep
from afov.student import Labels
from afov.vocabulary import Vocabulary

pytest.importorskip("rclpy", reason="needs ROS 2; `make ros` installs it")

from afov.labelled import labelled_points, published_ids
from afov_ros.conversions import cloud_message


def labels(class_id: list[int], score: list[float]) -> Labels:
    count = len(class_id)
    return Labels(
        np.array(class_id, np.uint8),
        np.array(score, np.float32),
        np.zeros((count, 4), np.float32),
        np.arange(count),
        {},
    )


def test_unlabelled_and_unsure_points_are_published_as_255() -> None:
    ids = published_ids(labels([0, 3, 4, 5], [0.0, 0.2, 0.5, 0.9]), threshold=0.5)
    assert ids.tolist() == [255, 255, 4, 5]


def test_bytes_of_a_point_are_what_its_fields_say() -> None:
    from std_msgs.msg import Header

    sweep = Sweep(np.array([[1, 2, 3, 40]], np.float32), ("x", "y", "z", "intensity"), 0, "lidar")
    vocabulary = Vocabulary.load("nuscenes16")
    cloud = cloud_message(labelled_points(sweep, labels([4], [0.75]), vocabulary, 0.0), Header())
    offset = {f.name: f.offset for f in cloud.fields}
    data = bytes(cloud.data)
    assert [struct.unpack_from("<f", data, offset[n])[0] for n in "xyz"] == [1, 2, 3]
    assert struct.unpack_from("<f", data, offset["intensity"]) == (40,)
    assert data[offset["class_id"]] == 4
    assert struct.unpack_from("<f", data, offset["probability"]) == (0.75,)
    blue, green, red = data[offset["rgb"] : offset["rgb"] + 3]
    assert (red, green, blue) == vocabulary.labelled[3].color
    assert len(data) == cloud.row_step == cloud.point_step


def test_a_sweep_without_intensity_is_published_with_zeros() -> None:
    sweep = Sweep(np.ones((2, 3), np.float32), ("x", "y", "z"), 0, "lidar")
    points = labelled_points(sweep, labels([1, 2], [1, 1]), Vocabulary.load("nuscenes16"), 0.0)
    assert points["intensity"].tolist() == [0, 0]
