"""Things that stand on the ground as one piece settle on one label; all else keeps its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from afov.frames import Sweep
from afov.vocabulary import Vocabulary
from afov_train.objects import FINE, GAP, LARGEST, above_ground, ground_classes, one_voice, pieces
from afov_train.settle import settle_all
from afov_train.taught import TaughtSweep
from tests.afov_train.conftest import ALONE

VOCABULARY = Vocabulary.load("nuscenes16")
OWNER = VOCABULARY.phrase_class_id
CAR, ROAD, WALL = (np.flatnonzero(k == OWNER)[0] for k in (4, 11, 15))
ABSORBER = int(np.flatnonzero(OWNER == 0)[0])
DEBRIS = VOCABULARY.phrases.index("debris")
GROUND = np.arange(17) == 11


def taught(xyz, phrase, score, stamp=0):
    points = np.asarray(xyz, np.float32).reshape(-1, 3)
    return TaughtSweep(
        f"{stamp}",
        Sweep(points, ("x", "y", "z"), stamp, "lidar"),
        np.asarray(phrase, np.int32), np.asarray(score, np.float32), np.ones(len(points), bool),
        np.zeros((0, 5), np.int32), np.zeros(0, np.int32), np.zeros((0, 4), np.float32),
        np.zeros((0, 2), np.int32), np.eye(4),
    )  # fmt: skip


def street():
    """Ground 1.8 m below the sensor, a car, and a wall that is too long for a thing."""
    x, y = np.meshgrid(np.arange(-10, 10, 0.3), np.arange(-10, 10, 0.3))
    ground = np.stack((x, y, np.full_like(x, -1.8)), -1).reshape(-1, 3)
    box = np.stack(np.meshgrid(np.arange(4, 8, 0.3), np.arange(2, 4, 0.3), [-1.4, -1.0, -0.6]), -1)
    wall = np.stack(np.meshgrid(np.arange(-9, 9, 0.3), [-8.0], np.arange(-1.5, 1, 0.3)), -1)
    return ground, box.reshape(-1, 3), wall.reshape(-1, 3)


def test_height_is_that_above_the_lowest_point_around():
    ground, box, _ = street()
    slope = np.array([0, 0.1, 0])  # 10 percent uphill: less than LIFT within a cell and its next
    xyz = np.concatenate((ground, box)) + np.r_[ground, box] @ np.outer(slope, [0, 0, 1])
    height = above_ground(np.r_[xyz, [[np.nan, 0, 0], [0, 1e9, 0]]])
    assert np.isnan(height[-2:]).all()
    assert (height[: len(ground)] < 0.2).all() and (height[len(ground) : -2] > 0.2).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_pieces_are_what_cells_within_the_gap_join(seed, count):
    xyz = np.random.default_rng(seed).uniform(-2, 2, (count, 3))
    cells = np.floor(xyz / FINE)
    near = np.linalg.norm(cells[:, None] - cells[None], axis=2) <= GAP / FINE
    for _ in range(count):  # transitive closure, the slow way
        near = (near.astype(int) @ near) > 0
    piece = pieces(xyz)
    np.testing.assert_array_equal(piece[:, None] == piece[None], near)


def test_a_car_speaks_with_one_voice_and_a_wall_does_not():
    ground, box, wall = street()
    said = [np.full(len(p), k) for p, k in ((ground, ROAD), (box, CAR), (wall, WALL))]
    said[1][::4] = ABSORBER  # "bonnet of the own car"
    said[1][1::4] = -1
    said[1][2::8] = ROAD
    said[2][::3] = CAR
    one = taught(
        np.concatenate((ground, box, wall)), np.concatenate(said), np.full(sum(map(len, said)), 0.5)
    )
    phrase = np.split(one_voice(one, GROUND, VOCABULARY), np.cumsum([len(ground), len(box)]))
    assert (phrase[0] == ROAD).all() and (phrase[1] == CAR).all()
    np.testing.assert_array_equal(phrase[2], said[2])
    assert np.ptp(wall[:, 0]) > LARGEST


def test_a_thing_that_is_not_of_one_mind_keeps_its_labels_but_is_no_road():
    ground, box, _ = street()
    half = np.where(np.arange(len(box)) % 2, CAR, WALL)
    half[::5] = ROAD
    one = taught(
        np.r_[ground, box],
        np.r_[np.full(len(ground), ROAD), half],
        np.full(len(ground) + len(box), 0.5),
    )
    phrase = one_voice(one, GROUND, VOCABULARY)[len(ground) :]
    np.testing.assert_array_equal(phrase, np.where(half == ROAD, -1, half))


def test_the_surest_phrase_of_the_winner_is_taken():
    ground, box, _ = street()
    sedan = int(np.flatnonzero(OWNER == 4)[1])
    said, score = np.full(len(box), CAR), np.full(len(box), 0.3)
    said[7], score[7] = sedan, 0.9
    one = taught(
        np.r_[ground, box],
        np.r_[np.full(len(ground), ROAD), said],
        np.r_[np.ones(len(ground)), score],
    )
    assert (one_voice(one, GROUND, VOCABULARY)[len(ground) :] == sedan).all()


def test_ground_classes_are_read_from_the_recording(tmp_path):
    ground, box, wall = street()
    files = []
    for k in range(3):
        said = [np.full(len(p), c) for p, c in ((ground, ROAD), (box, CAR), (wall, WALL))]
        said[1][:20] = ROAD  # an outline drawn too wide
        files.append(tmp_path / f"{k}.npz")
        points = np.concatenate((ground, box, wall))
        taught(points, np.concatenate(said), np.ones(len(points)), stamp=k).save(files[-1])
    assert np.flatnonzero(ground_classes(files, VOCABULARY)).tolist() == [11]
    settled = settle_all(files, replace(ALONE, objects=True), VOCABULARY, tmp_path / "settled")
    phrase = TaughtSweep.load(settled[0]).phrase
    assert (phrase[len(ground) : len(ground) + len(box)] == CAR).all()


def test_gaps_in_the_ground_take_the_nearest_ground_and_never_a_thing():
    ground, box, _ = street()
    phrase = np.full(len(ground), ROAD)
    hole = np.abs(ground[:, :2] - [-5, 5]).max(1)  # four metres wide: its middle is too far
    phrase[hole < 2] = ABSORBER
    at_wheels = np.abs(ground[:, :2] - [6, 3]).max(1) < 0.5
    phrase[at_wheels] = CAR
    one = taught(
        np.r_[ground, box], np.r_[phrase, np.full(len(box), CAR)], np.ones(len(ground) + len(box))
    )
    got = one_voice(one, GROUND, VOCABULARY)[: len(ground)]
    assert (got[(hole < 2) & (hole > 1.2)] == ROAD).all() and (got[hole < 0.8] == ABSORBER).all()
    np.testing.assert_array_equal(got[hole >= 2], phrase[hole >= 2])


def test_an_absorbed_thing_stays_what_it_is_among_classes(tmp_path):
    """Debris lies so low that it is ground by height, and touches the car; the sky is no thing."""
    ground, box, _ = street()
    said = np.full(len(ground), ROAD)
    low = np.abs(ground[:, :2] - [-5, 5]).max(1) < 0.5
    sky = np.abs(ground[:, :2] - [-5, -5]).max(1) < 0.5
    said[low], said[sky] = DEBRIS, ABSORBER
    heap = box[:40] - [12, 0, 0]  # one that stands up: a fifth of it is a car to the teacher
    on_heap = np.where(np.arange(len(heap)) % 5, DEBRIS, CAR)
    points = np.concatenate((ground, heap, box))
    phrases = np.concatenate((said, on_heap, np.full(len(box), CAR)))
    file = tmp_path / "0.npz"
    taught(points, phrases, np.full(len(points), 0.5)).save(file)
    settled = settle_all([file], replace(ALONE, objects=True), VOCABULARY, tmp_path / "settled")
    got = TaughtSweep.load(settled[0])
    flat, piece, car = np.split(got.phrase, np.cumsum([len(ground), len(heap)]))
    assert (flat[low] == DEBRIS).all() and (flat[~low] == ROAD).all()
    assert (piece == DEBRIS).all() and (car == CAR).all()
    assert not got.class_id(VOCABULARY)[: len(ground)][low].any(), "it labels nothing still"


def test_hostile_points_are_left_alone():
    xyz = [[np.nan, 0, 0], [np.inf, 1, 2], [1e30, 0, 0], [0, 0, -1.8], [0, 0, 0]]
    one = taught(xyz, [CAR, WALL, ROAD, ROAD, ROAD], np.ones(5))
    assert one_voice(one, GROUND, VOCABULARY).tolist() == [CAR, WALL, ROAD, ROAD, -1]
    nothing = taught(np.zeros((0, 3)), [], [])
    assert len(one_voice(nothing, GROUND, VOCABULARY)) == 0
