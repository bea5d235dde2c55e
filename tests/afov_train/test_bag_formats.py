"""One drive in every kind of bag: ROS 1, rosbag2 folders, single files, with raw images too."""

from __future__ import annotations

import numpy as np
import pytest
from rosbags.convert import convert
from rosbags.typesys import Stores, get_typestore

from afov.errors import InputError
from afov.sources.bags import BagSource


def converted(drive, target, *, storage="sqlite3", compress=None, mode="message", ros1=False):
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
    convert([drive], target, storage, 9, compress, mode, None, store, [], [], [], [])
    return target


@pytest.mark.parametrize(
    ("name", "options", "opened"),
    [
        ("drive.bag", {"ros1": True}, ""),
        ("packed.bag", {"ros1": True, "compress": "lz4"}, ""),
        ("folder", {}, ""),
        ("folder", {"storage": "mcap"}, ""),
        ("folder", {"compress": "zstd", "mode": "file"}, ""),
        ("folder", {}, "folder.db3"),
        ("folder", {"storage": "mcap"}, "folder.mcap"),
    ],
)
def test_every_kind_of_bag_gives_the_same_frames(drive, tmp_path, name, options, opened):
    source = BagSource(converted(drive, tmp_path / name, **options) / opened, truth=True)
    reference = BagSource(drive, truth=True)
    assert len(source) == len(reference) == 4
    for one, other in zip(source, reference, strict=True):
        assert one.token == other.token and one.sweep.fields == other.sweep.fields
        assert np.array_equal(one.sweep.points, other.sweep.points)
        assert np.allclose(one.world_from_lidar, other.world_from_lidar, atol=1e-9)
        assert np.array_equal(one.truth.raw, other.truth.raw)
        assert [i.name for i in one.images] == [i.name for i in other.images]
        for a, b in zip(one.images, other.images, strict=True):
            assert a.stamp == b.stamp and np.array_equal(a.image, b.image)
            assert np.allclose(a.camera.K, b.camera.K)
            assert np.allclose(a.camera_from_lidar, b.camera_from_lidar, atol=1e-9)
    assert source.skipped == reference.skipped == {}


def test_a_real_recording_without_tf_says_what_it_lacks(shared):
    """The recording in ../shared holds one message each of many types, and no tf."""
    (file,) = (shared / "data/ros2-mcap").iterdir()
    with pytest.raises(InputError) as caught:
        list(BagSource(file))
    said = str(caught.value)
    assert said.startswith(str(file)) and "\n" not in said
