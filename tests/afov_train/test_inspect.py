"""--inspect says what a bag holds, and draws its first sweep where it falls on the images."""

from __future__ import annotations

import numpy as np
from PIL import Image

from afov_train.config import TrainConfig
from afov_train.inspect import inspect
from afov_train.recordings import Recording
from tests.afov_train.conftest import copied


def test_topics_rates_coverage_and_a_picture(drive, tmp_path, capsys):
    picture = inspect(TrainConfig(recording=Recording(bag=(drive,)), runs=tmp_path))
    said = capsys.readouterr().out
    for part in ("/lidar_top", "sensor_msgs/msg/PointCloud2", "ego motion  from tf", "intensity"):
        assert part in said
    assert said.count("4 of 4 sweeps") == 6
    coverage = int(said.split("cameras see ")[1].split("%")[0])
    assert 60 < coverage < 80
    drawn = np.asarray(Image.open(picture)).astype(int)
    # Depth colours are vivid, dimmed streets are not.
    assert ((drawn.max(2) - drawn.min(2)) > 150).mean() > 0.01


def test_a_camera_without_calibration_is_named(drive, tmp_path, capsys):
    bag = copied(
        drive,
        tmp_path / "less.mcap",
        lambda topic, data: None if topic == "/cam_back/camera_info" else data,
    )
    inspect(TrainConfig(recording=Recording(bag=(bag,)), runs=tmp_path))
    said = capsys.readouterr().out
    assert "cam_back" in said.split("image  ")[-1] or "/cam_back" in said
    assert said.count("4 of 4 sweeps") == 5
