"""The simulated street holds what it promises."""

from __future__ import annotations

import numpy as np
import pytest

from afov.pairing import pair
from afov_train.simulation.config import SimConfig
from afov_train.simulation.drive import simulate, views
from afov_train.simulation.rig import RIG
from afov_train.simulation.sensors import BEAMS, Surfaces
from afov_train.simulation.traffic import busy_street


def test_the_same_seed_gives_the_same_drive(frames):
    config = SimConfig(4, 1, frames_per_street=1, rate=1.0, width=400, height=224, workers=1)
    again = next(iter(simulate(config)))
    assert np.array_equal(again.sweep.points, frames[0].sweep.points)
    assert np.array_equal(again.images[2].image, frames[0].images[2].image)


def test_streets_differ(frames):
    assert len(frames[0].sweep) != len(frames[2].sweep)


def test_all_sixteen_classes_and_some_others_appear():
    raw = np.concatenate([[t.raw for t in busy_street(seed).things] for seed in range(12)])
    from afov.sources.nuscenes_classes import RAW_TO_16

    assert set(RAW_TO_16[raw]) == set(range(17))
    assert {1, 7, 10, 11} <= set(raw)  # animal, stroller, debris, dustbin


def test_points_lie_on_their_beam(frames):
    sweep = frames[0].sweep
    x, y, z = sweep.xyz.astype(float).T
    ring = sweep.points[:, sweep.fields.index("ring")].astype(int)
    elevation = np.arctan2(z, np.hypot(x, y))
    # Motion compensation moves what was seen early in the turn; look at its last tenth.
    late = sweep.points[:, sweep.fields.index("time")] > -0.005
    off = np.abs(elevation - BEAMS[ring])[late]
    assert late.sum() > 500 and np.quantile(off, 0.95) < np.deg2rad(0.6)


def test_the_sweep_is_in_order_of_time_within_one_turn(frames):
    time = frames[0].sweep.points[:, frames[0].sweep.fields.index("time")]
    assert (np.diff(time) >= 0).all() and time.min() > -0.05 and time.max() <= 0


def test_points_fall_on_pixels_of_their_own_class():
    """Through poses, mounts and intrinsics: a wrong sign anywhere would break it."""
    from afov_train.simulation.drive import street_frames

    config = SimConfig(4, 1, frames_per_street=1, rate=1.0, width=400, height=224, workers=1)
    frame = street_frames(config, 0)[0]
    from afov_train.simulation import sensors

    surfaces = Surfaces(busy_street(4 * 100_003))
    image = frame.images[0]
    seconds = (image.stamp - frame.sweep.stamp) / 1e9 + 0.05
    pose = surfaces.street.ego(seconds) @ RIG.base_from_camera[image.name]
    _, raw = sensors.image(surfaces.at(seconds), image.camera, pose, np.random.default_rng(0))
    pairs = pair(frame.sweep.xyz, image, occlusion=True)
    same = raw[pairs.row, pairs.col] == frame.truth.raw[pairs.point]
    assert len(same) > 1000 and same.mean() > 0.93


def test_an_instance_is_of_one_class(frames):
    truth = frames[0].truth
    for instance in np.unique(truth.instance_id)[1:]:
        assert len(np.unique(truth.raw[truth.instance_id == instance])) == 1


@pytest.mark.parametrize("index", [0, 3])
def test_views_for_the_teacher_hold_sky_and_road(index):
    rgb, raw = next(views(1, index, 1, 200, 112))
    assert rgb.shape == (112, 200, 3) and {24, 255} <= set(np.unique(raw))
