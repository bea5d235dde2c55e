"""A drive written as a bag and read back; what is wrong with a bag is said in one line."""

from __future__ import annotations

import numpy as np
import pytest

from afov.errors import InputError
from afov.sources.bag_topics import BagTopics
from afov.sources.bags import BagSource
from tests.afov_train.conftest import copied


def test_frames_come_back_as_they_were_made(frames, drive):
    source = BagSource(drive, truth=True)
    got = list(source)
    assert len(got) == len(source) == len(frames) and source.skipped == {}
    for made, read in zip(frames, got, strict=True):
        assert read.token == made.token and read.sweep.fields == made.sweep.fields
        assert np.array_equal(read.sweep.points, made.sweep.points)
        assert np.allclose(read.world_from_lidar, made.world_from_lidar, atol=1e-9)
        assert np.array_equal(read.truth.raw, made.truth.raw)
        assert np.array_equal(read.truth.instance_id, made.truth.instance_id)
        assert np.array_equal(read.truth.panoptic_class_id, made.truth.class_id)
        by_name = {i.name: i for i in made.images}
        assert {i.name for i in read.images} == set(by_name)
        for image in read.images:
            other = by_name[image.name]
            assert image.stamp == other.stamp
            assert np.allclose(image.camera_from_lidar, other.camera_from_lidar, atol=1e-6)
            assert np.abs(image.image.astype(int) - other.image).mean() < 6  # JPEG


def test_truth_is_not_even_decoded_unless_evaluation_asks(drive, tmp_path):
    """With truth broken beyond reading, training reads the same frames as before."""
    broken = copied(
        drive, tmp_path / "b.mcap", lambda t, d: b"\xff" * 3 if t.startswith("/truth") else d
    )
    frames = list(BagSource(broken))
    assert len(frames) == 4 and all(f.truth is None for f in frames)
    asked = BagSource(broken, truth=True)
    assert all(f.truth is None for f in asked)
    assert asked.skipped == {"/truth/lidar_top: damaged message": 4}


def test_a_truth_cloud_is_never_taken_for_the_lidar(drive, tmp_path):
    only = copied(drive, tmp_path / "t.mcap", lambda t, d: None if t == "/lidar_top" else d)
    with pytest.raises(InputError, match="no PointCloud2 topic"):
        BagSource(only)


def test_a_corrupt_jpeg_is_skipped_and_counted(drive, tmp_path):
    seen = []

    def spoil(topic, data):
        if topic == "/cam_back/image_rect_compressed":
            seen.append(topic)
            if len(seen) == 1:
                return data[:60] + bytes(len(data) - 60)
        return data

    source = BagSource(copied(drive, tmp_path / "c.mcap", spoil))
    frames = list(source)
    assert [len(f.images) for f in frames] == [5, 6, 6, 6]
    assert source.skipped == {"cam_back: corrupt image": 1}


def test_a_slash_before_a_frames_name_makes_no_difference(frames, drive, tmp_path):
    """As ROS 1 writes them."""
    file = tmp_path / "slashed.mcap"
    slashed = copied(drive, file, lambda t, d: d.replace(b"lidar_top\0", b"/idar_top\0"))
    for made, read in zip(frames, BagSource(slashed), strict=True):
        assert read.sweep.frame_id == "/idar_top" and len(read.images) == len(made.images)
        assert np.allclose(read.world_from_lidar, made.world_from_lidar, atol=1e-9)


def test_images_beyond_the_tolerance_are_left_out(drive):
    source = BagSource(drive, tolerance_s=0.02)
    assert all(len(f.images) < 6 for f in source)
    assert any("no image within the tolerance" in reason for reason in source.skipped)


def test_mounts_from_a_file_stand_in_for_tf(drive, frames, tmp_path):
    from afov.transforms import quaternion_from
    from afov_train.simulation.rig import RIG

    poor = copied(drive, tmp_path / "p.mcap", lambda t, d: None if t.startswith("/tf") else d)
    lines = ["frames:"]
    for name, pose in {"lidar_top": RIG.base_from_lidar, **RIG.base_from_camera}.items():
        q, t = quaternion_from(pose).tolist(), pose[:3, 3].tolist()
        lines.append(f"- {{parent: base_link, child: {name}, translation: {t}, rotation: {q}}}")
    file = tmp_path / "mounts.yaml"
    file.write_text("\n".join(lines))
    got = list(BagSource(poor, extrinsics=file))
    assert len(got) == 4 and got[0].world_from_lidar is None
    # Without tf the ego motion between sweep and image is not known: 0.5 m at most here.
    made = {i.name: i for i in frames[0].images}
    for image in got[0].images:
        assert np.abs(image.camera_from_lidar - made[image.name].camera_from_lidar).max() < 0.7


def test_a_choice_of_clouds_is_listed(drive, tmp_path):
    two = copied(drive, tmp_path / "two.mcap")
    with pytest.raises(InputError, match="no cloud topic '/other'; there are: /lidar_top"):
        BagSource(two, BagTopics(cloud="/other"))


@pytest.mark.parametrize("upper_case", [False, True])
def test_a_foxglove_mcap_gives_the_same_frames(frames, drive, tmp_path, upper_case):
    from afov_train.simulation.write_foxglove import write_foxglove

    file = tmp_path / "foxglove.mcap"
    write_foxglove(frames, file, upper_case=upper_case)
    ours = list(BagSource(drive, truth=True))
    theirs = list(BagSource(file, truth=not upper_case))
    assert len(ours) == len(theirs) == 4
    for a, b in zip(ours, theirs, strict=True):
        assert a.token == b.token and b.sweep.fields == ("x", "y", "z", "intensity", "ring")
        assert np.array_equal(a.sweep.points[:, :5], b.sweep.points)
        assert np.allclose(a.world_from_lidar, b.world_from_lidar, atol=1e-9)
        assert upper_case or np.array_equal(a.truth.raw, b.truth.raw)
        by_name = {i.name: i for i in a.images}
        assert len(by_name) == len(b.images) == 6
        for image in b.images:
            other = by_name[image.name]
            assert image.stamp == other.stamp and np.array_equal(image.image, other.image)
            assert np.allclose(image.camera.K, other.camera.K)
            assert np.allclose(image.camera_from_lidar, other.camera_from_lidar, atol=1e-6)


def test_only_a_simulated_recording_is_one_that_the_embedded_teacher_knows(drive, tmp_path):
    from afov_train.pipeline import simulated

    real = copied(drive, tmp_path / "r.mcap", lambda t, d: None if t.startswith("/truth") else d)
    assert simulated(BagSource(drive)) and not simulated(BagSource(real))


def test_what_frames_depend_on_is_in_the_sources_key(drive, tmp_path):
    """Or a run that is taken up would keep the labels of other settings."""
    mounts = tmp_path / "mounts.yaml"
    keys = {BagSource(drive).key, BagSource(drive, tolerance_s=0.05).key}
    keys.add(BagSource(drive, intensity_scale=255.0).key)
    keys.add(BagSource(drive, BagTopics(images=("/cam_front/image_rect_compressed",))).key)
    for text in ("frames: []", "frames: [ ]"):
        mounts.write_text(text)
        keys.add(BagSource(drive, extrinsics=mounts).key)
    assert len(keys) == 6
    assert BagSource(drive, every=2).key == BagSource(drive).key, "the same frames, fewer"
