"""Ids over sweeps, against the truth of a simulated street."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from afov.instances import Instance, instances
from afov.tracking import UNSEEN, Tracker, lasting_ids
from afov.transforms import inverse
from afov.vocabulary import Vocabulary
from tests.truth_drive import Tally, drive

NUSCENES = Vocabulary.load("nuscenes16")


def tracked(
    seen: Callable[[int, int], bool] = lambda sweep, thing: True,
    noise: float = 0.0,
    count: int = 100,
    rate: float = 10.0,
) -> Tally:
    """The drive's things through the tracker; ids within a sweep are shuffled first."""
    rng, tracker, tally = np.random.default_rng(3), Tracker(), Tally()
    for index, frame in enumerate(drive(count, rate)):
        assert frame.truth is not None
        truth = frame.truth.instance_id.copy()
        things = np.unique(truth[truth > 0])
        truth[np.isin(truth, [t for t in things if not seen(index, int(t))])] = 0
        name = np.zeros(truth.max(initial=0) + 1, np.uint16)
        shown = np.unique(truth[truth > 0])
        name[shown] = 1 + rng.permutation(len(shown))
        xyz = frame.sweep.xyz + rng.normal(0, noise, frame.sweep.xyz.shape).astype(np.float32)
        sure = np.ones(len(xyz), np.float32)
        found = instances(xyz, frame.truth.class_id, sure, name[truth], NUSCENES)
        lasting = tracker.update(frame.sweep.stamp, found, frame.world_from_lidar)
        ids = lasting_ids(name[truth], found, lasting)
        assert ((ids > 0) == (truth > 0)).all()
        for thing in shown:
            (one,) = np.unique(ids[truth == thing])
            tally.add(index, int(thing), int(one))
    return tally


@pytest.mark.parametrize("rate", [10.0, 20.0])
def test_every_thing_keeps_its_id_for_a_hundred_sweeps(rate: float) -> None:
    tally = tracked(rate=rate)
    assert len(tally.last) > 20 and tally.detections > 1000
    assert (tally.switches, tally.stolen) == (0, 0)


def test_noise_and_drop_outs_cost_few_ids() -> None:
    rng = np.random.default_rng(0)
    tally = tracked(lambda sweep, thing: rng.random() > 0.2, noise=0.1)
    assert tally.switches <= 0.005 * tally.detections, tally.switches


def test_what_was_hidden_for_a_while_is_known_again_and_for_long_is_not() -> None:
    for hidden, same in ((UNSEEN, True), (UNSEEN + 1, False)):
        tracker = Tracker()
        names = []
        for sweep in range(hidden + 8):
            shown = [still(2, 1)] if not 5 <= sweep < 5 + hidden else []
            names += [i.id for i in tracker.update(sweep * 10**8, shown, np.eye(4))]
        assert (len(set(names)) == 1) == same


def still(x: float, y: float, name: int = 1) -> Instance:
    xyz = np.array([[x, y, 0], [x + 1, y, 0], [x, y + 1, 0]], np.float32)
    return Instance(name, 1, 0.9, xyz)


def test_velocity_is_over_ground_however_the_vehicle_moves() -> None:
    tracker, velocity = Tracker(), None
    for sweep in range(30):
        world_from_lidar = np.eye(4)
        turn = 0.3 * sweep / 30
        world_from_lidar[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        world_from_lidar[:2, 3] = 1.2 * sweep, 0.1 * sweep
        at = inverse(world_from_lidar) @ (5 + 0.8 * sweep, 3 - 0.2 * sweep, 1, 1)
        (one,) = tracker.update(sweep * 10**8, [still(*at[:2])], world_from_lidar)
        assert (one.velocity is None) == (sweep == 0)
        velocity = one.velocity
    np.testing.assert_allclose(velocity, (8, -2, 0), atol=0.15)


def test_a_pose_that_is_missing_now_and_then_costs_no_id() -> None:
    tracker, ids = Tracker(), set()
    # Every third sweep is dropped before it comes here.
    for sweep in (s for s in range(60) if s % 3):
        world_from_lidar = np.eye(4)
        world_from_lidar[0, 3] = 1.5 * sweep
        pose = None if sweep % 12 in (7, 8, 10) else world_from_lidar
        (one,) = tracker.update(sweep * 10**8, [still(90 - 1.5 * sweep, 3)], pose)
        assert (one.velocity is None) == (pose is None or sweep == 1)
        ids.add(one.id)
    assert len(ids) == 1


def test_without_a_pose_ids_last_and_velocities_are_unknown() -> None:
    tracker, names = Tracker(), set()
    for sweep in range(20):
        (one,) = tracker.update(sweep * 10**8, [still(20 - 0.7 * sweep, 3)], None)
        names.add(one.id)
        assert one.velocity is None
    assert len(names) == 1


def test_time_that_jumps_back_begins_anew_with_ids_of_their_own() -> None:
    tracker = Tracker()
    (first,) = tracker.update(10**10, [still(1, 1)], np.eye(4))
    (again,) = tracker.update(10**9, [still(1, 1)], np.eye(4))
    assert again.id != first.id


def test_a_stamp_that_is_a_little_early_or_missing_costs_no_id() -> None:
    tracker, ids = Tracker(), set()
    for sweep in range(20):
        early = 130_000_000 if sweep in (7, 12) else 0
        stamp = 10**10 + sweep * 10**8 - early if sweep != 15 else 0
        (one,) = tracker.update(stamp, [still(20 - 0.3 * sweep, 3)], np.eye(4))
        ids.add(one.id)
    assert len(ids) == 1 and one.velocity is not None
    np.testing.assert_allclose(one.velocity, (-3, 0, 0), atol=0.3)


def test_ids_come_around_without_taking_one_that_lives() -> None:
    tracker = Tracker()
    tracker.update(0, [still(0, 0)], np.eye(4))
    tracker._last_id = 65534
    one, two, three = tracker.update(
        10**8, [still(0, 0, 1), still(50, 0, 2), still(90, 0, 3)], np.eye(4)
    )
    assert (one.id, two.id, three.id) == (1, 65535, 2)


def test_the_same_sweeps_give_the_same_ids() -> None:
    first, second = (tracked(noise=0.2, count=20) for _ in range(2))
    assert first.last == second.last
