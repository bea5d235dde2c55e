"""Bad input: a table of what is wrong, and the one line that says so or the count that keeps it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from afov.errors import InputError
from afov.sources.bags import BagSource
from afov.student import Student
from afov_train.cli import sim, train
from afov_train.simulation.write_mcap import CLOUD
from tests.afov_train.conftest import copied

STORE = get_typestore(Stores.ROS2_JAZZY)
POINTCLOUD2 = "sensor_msgs/msg/PointCloud2"


def truncated(drive: Path, folder: Path) -> Path:
    file = folder / "bad.mcap"
    file.write_bytes(drive.read_bytes()[:200_000])
    return file


def no_bag(_: Path, folder: Path) -> Path:
    (folder / "bad.bag").write_text("hello")
    return folder / "bad.bag"


def empty_folder(_: Path, folder: Path) -> Path:
    (folder / "bad").mkdir()
    return folder / "bad"


def without(*parts: str):
    def spoil(drive: Path, folder: Path) -> Path:
        return copied(
            drive, folder / "bad.mcap", lambda t, d: None if any(p in t for p in parts) else d
        )

    return spoil


def with_clouds(change):
    """Every sweep of the drive, changed after it was decoded."""

    def spoil(drive: Path, folder: Path) -> Path:
        def keep(topic: str, data: bytes) -> bytes:
            if topic != "/lidar_top":
                return data
            message = STORE.deserialize_cdr(data, POINTCLOUD2)
            change(message)
            return bytes(STORE.serialize_cdr(message, POINTCLOUD2))

        return copied(drive, folder / "bad.mcap", keep)

    return spoil


def rename_intensity(message) -> None:
    message.fields[3].name = "reflectivity_of_some_kind"


def cut_short(message) -> None:
    message.data = message.data[:-7]


def silent(topic: str):
    """The topic's messages are bytes of nothing."""
    return lambda drive, folder: copied(
        drive, folder / "bad.mcap", lambda t, d: b"\0" * 8 if t == topic else d
    )


def twisted(drive: Path, folder: Path) -> Path:
    """A quaternion of length 0 in /tf_static."""
    kind = "tf2_msgs/msg/TFMessage"

    def keep(topic: str, data: bytes) -> bytes:
        if topic != "/tf_static":
            return data
        message = STORE.deserialize_cdr(data, kind)
        q = message.transforms[2].transform.rotation
        q.x = q.y = q.z = q.w = 0.0
        return bytes(STORE.serialize_cdr(message, kind))

    return copied(drive, folder / "bad.mcap", keep)


RECORDINGS = {
    "truncated": (truncated, "bad.mcap: cannot be read as a bag", "mcap recover"),
    "no bag at all": (no_bag, "bad.bag: cannot be read as a bag", ""),
    "an empty folder": (empty_folder, "cannot be read as a bag", ""),
    "no cloud": (without("/lidar_top"), "no PointCloud2 topic; it holds /cam_back", ""),
    "no cameras": (without("image_rect"), "no camera images", "cameras teach"),
    "no camera_info": (without("camera_info"), "no camera_info beside", "expected <camera>"),
    "no transforms": (without("/tf"), "no transform for frame", "give --extrinsics"),
    "no intensity": (with_clouds(rename_intensity), "no field 'intensity'", "network.inputs"),
    "all clouds cut": (with_clouds(cut_short), "no frame could be read", "4"),
    "garbled messages": (silent("/lidar_top"), "no frame could be read", "damaged message': 4"),
    "a quaternion of length 0": (twisted, "expected a quaternion of length 1", "cam_front_right"),
}


@pytest.mark.parametrize("fault", RECORDINGS)
def test_a_bad_recording_is_one_line_that_says_what_to_do(fault, drive, tmp_path, capsys):
    spoil, said, advice = RECORDINGS[fault]
    bad = spoil(drive, tmp_path)
    assert train(["--bag", str(bad), "--runs", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err.removesuffix("\n")
    assert error.startswith("afov-train: ") and "\n" not in error
    assert said in error and advice in error
    assert not (tmp_path / "runs").exists(), "nothing is left behind by a run that cannot start"


def corrupt_jpeg(drive: Path, folder: Path) -> Path:
    topic = "/cam_back/image_rect_compressed"
    return _once(drive, folder, topic, lambda d: d[:60] + bytes(len(d) - 60))


def garbled_image(drive: Path, folder: Path) -> Path:
    return _once(drive, folder, "/cam_back/image_rect_compressed", lambda d: d[:60])


def one_cloud_cut(drive: Path, folder: Path) -> Path:
    """One sweep announces more points than it brings."""

    def shorten(data: bytes) -> bytes:
        message = STORE.deserialize_cdr(data, POINTCLOUD2)
        cut_short(message)
        return bytes(STORE.serialize_cdr(message, POINTCLOUD2))

    return _once(drive, folder, "/lidar_top", shorten)


def lost_pose(drive: Path, folder: Path) -> Path:
    """A localisation that does not know where it is."""
    kind = "tf2_msgs/msg/TFMessage"

    def lose(data: bytes) -> bytes:
        message = STORE.deserialize_cdr(data, kind)
        message.transforms[0].transform.rotation.w = float("nan")
        return bytes(STORE.serialize_cdr(message, kind))

    return _once(drive, folder, "/tf", lose)


def _once(drive: Path, folder: Path, topic: str, change) -> Path:
    met: list[str] = []

    def keep(name: str, data: bytes) -> bytes:
        if name == topic:
            met.append(name)
            if len(met) == 2:
                return change(data)
        return data

    return copied(drive, folder / "bad.mcap", keep)


SKIPPED = {
    "a corrupt JPEG": (corrupt_jpeg, 4, 23, {"cam_back: corrupt image": 1}),
    "a garbled message": (
        garbled_image,
        4,
        23,
        {
            "/cam_back/image_rect_compressed: damaged message": 1,
            "cam_back: no image within the tolerance": 1,
        },
    ),
    "a pose that is none": (lost_pose, 4, 24, {"bad transform": 1}),
    "one cloud cut": (one_cloud_cut, 3, 18, {"bad cloud": 1}),
}


@pytest.mark.parametrize("fault", SKIPPED)
def test_what_can_be_left_out_is_left_out_and_counted(fault, drive, tmp_path):
    spoil, sweeps, images, counted = SKIPPED[fault]
    source = BagSource(spoil(drive, tmp_path))
    frames = list(source)
    assert (len(frames), sum(len(f.images) for f in frames)) == (sweeps, images)
    assert {k.split(" (")[0]: n for k, n in source.skipped.items()} == counted


def add_a_byte(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")


MODELS = {  # what else can be wrong with one: test_export.py
    "not there": (shutil.rmtree, "model.json: not found"),
    "wrong hash": (lambda f: add_a_byte(f / "student.onnx"), "its SHA-256 is not the one in"),
}


@pytest.mark.parametrize("fault", MODELS)
def test_a_bad_model_folder_is_one_line(fault, model_folder, tmp_path):
    spoil, said = MODELS[fault]
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    spoil(folder)
    with pytest.raises(InputError, match=said) as caught:
        Student.open(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


COMMANDS = [
    (["--bag", "nowhere.mcap"], "nowhere.mcap: no such file"),
    ([], "name a recording"),
    (["--bag", "a", "--nuscenes", "b"], "a: no such file"),
    (["--nuscenes", "nowhere"], "no such folder of nuScenes tables"),
    (["--config", "nowhere.yaml"], "nowhere.yaml: expected a readable YAML"),
    (["--config"], "expected a YAML file behind it"),
]


@pytest.mark.parametrize(("args", "said"), COMMANDS)
def test_mistakes_on_the_command_line_are_one_line(args, said, capsys):
    assert train(args) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("out", ["", "drive.bag", "foxglove:x.db3", "nuscenes:", "kitti:x"])
def test_a_drive_in_an_unknown_format_is_refused_before_it_is_simulated(out, capsys):
    assert sim(["--out", out]) == 2
    assert "expected FILE.mcap, foxglove:FILE.mcap or nuscenes:DIR" in capsys.readouterr().err


def test_points_that_are_not_finite_are_kept_and_taught_nothing(drive, tmp_path):
    def spoil(message) -> None:
        points = message.data.view(CLOUD).copy()
        points["y"][:100] = np.nan
        message.data = points.view(np.uint8)

    (first, *_) = BagSource(with_clouds(spoil)(drive, tmp_path))
    (before, *_) = BagSource(drive)
    assert len(first.sweep) == len(before.sweep)
    assert np.isnan(first.sweep.xyz).any(1).sum() == 100
