"""A tiny simulated drive, made once."""

from __future__ import annotations

import pytest

from afov_train.simulation.config import SimConfig
from afov_train.simulation.drive import simulate
from afov_train.simulation.write_mcap import write_mcap


@pytest.fixture(scope="session")
def frames():
    """Two streets, two frames each, a second apart: each image has one sweep that it belongs to."""
    config = SimConfig(4, 2, frames_per_street=2, rate=1.0, width=400, height=224, workers=1)
    return list(simulate(config))


@pytest.fixture(scope="session")
def drive(frames, tmp_path_factory):
    """The same as a ROS 2 MCAP."""
    file = tmp_path_factory.mktemp("drive") / "drive.mcap"
    write_mcap(frames, file)
    return file
