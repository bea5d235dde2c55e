"""Labels that sweeps agree on: thresholds, votes, and what moves keeps to itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afov.frames import Sweep
from afov.sources.bags import BagSource
from afov.vocabulary import Vocabulary
from afov_train.settle import FAR, NEAR, SPREAD, least_scores, settle_all, vote, voters
from afov_train.taught import NO_PHRASE, UNKNOWN_POSE, TaughtSweep
from afov_train.teach import teach
from afov_train.teachers.segments import Segments
from tests.afov_train.conftest import ALONE, bank

VOCABULARY = Vocabulary.load("nuscenes16")
OWNER = VOCABULARY.phrase_class_id
CAR, ROAD, WALL = (np.flatnonzero(k == OWNER)[0] for k in (4, 11, 15))


def taught(xyz, phrase, score, pose=None, stamp=0):
    count = len(xyz)
    return TaughtSweep(
        f"{stamp}",
        Sweep(np.asarray(xyz, np.float32).reshape(-1, 3), ("x", "y", "z"), stamp, "lidar"),
        np.asarray(phrase, np.int32), np.asarray(score, np.float32), np.ones(count, bool),
        np.zeros((0, 5), np.int32), np.zeros(0, np.int32), np.zeros((0, 4), np.float32),
        np.zeros((0, 2), np.int32), np.eye(4) if pose is None else pose,
    )  # fmt: skip


def moved(x, yaw=0.0):
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    pose[0, 3] = x
    return pose


def seen_from(pose, world):
    return (np.asarray(world) - pose[:3, 3]) @ pose[:3, :3]


def test_a_wall_is_what_most_sweeps_say_and_a_car_that_left_is_what_its_own_sweep_says():
    wall, unseen, car = [10, 5, 0], [12, 5, 0], [8, -3, 0]
    poses = [moved(0), moved(1, 0.4), moved(2, -0.8)]
    here = taught(seen_from(poses[0], [wall, unseen, car]), [CAR, -1, CAR], [0.6, 0, 0.3], poses[0])
    others = [
        taught(seen_from(p, [wall, unseen, np.add(car, [5 * k, 0, 0])]), [WALL, ROAD, WALL],
               [0.5, 0.4, 0.9], p)
        for k, p in enumerate(poses[1:], 1)
    ]  # fmt: skip
    assert vote(here, others, VOCABULARY).tolist() == [WALL, ROAD, CAR]


def test_one_sweep_in_four_is_too_few_to_vote():
    here = taught([[5, 0, 0]], [CAR], [0.1])
    seen, elsewhere = taught([[5, 0, 0]], [WALL], [0.9]), taught([[50, 0, 0]], [WALL], [0.9])
    assert vote(here, [seen, elsewhere, elsewhere, elsewhere], VOCABULARY).tolist() == [CAR]
    assert vote(here, [seen, elsewhere], VOCABULARY).tolist() == [WALL]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 40))
def test_votes_are_those_of_brute_force(seed, sweeps, points):
    """In float64, point by point and sweep by sweep."""
    rng = np.random.default_rng(seed)

    def sweep(pose):
        xyz = rng.uniform(-3, 3, (points, 3)) * (1, 1, 0.1)
        xyz[rng.random(points) < 0.1] = np.nan
        phrase = rng.choice([NO_PHRASE, CAR, ROAD, WALL], points)
        return taught(xyz, phrase, np.where(phrase < 0, 0, rng.uniform(0.1, 1, points)), pose)

    here, *others = (sweep(moved(rng.uniform(-1, 1), rng.uniform(-3, 3))) for _ in range(sweeps))
    got = OWNER[vote(here, others, VOCABULARY)] * (vote(here, others, VOCABULARY) >= 0)
    for i, p in enumerate(here.sweep.xyz.astype(float)):
        votes, hits = np.zeros(17), 0
        if here.phrase[i] >= 0:
            votes[OWNER[here.phrase[i]]] += here.score[i]
        for other in others:
            world = other.sweep.xyz.astype(float) @ other.world_from_lidar[:3, :3].T
            world += other.world_from_lidar[:3, 3]
            mine = here.world_from_lidar[:3, :3] @ p + here.world_from_lidar[:3, 3]
            distance = np.linalg.norm(world - mine, axis=1)
            if not np.isfinite(distance).any():
                continue
            j = np.nanargmin(distance)
            if distance[j] < min(max(SPREAD * np.linalg.norm(p), NEAR), FAR):
                hits += 1
                if other.phrase[j] >= 0:
                    votes[OWNER[other.phrase[j]]] += other.score[j]
        own = OWNER[here.phrase[i]] if here.phrase[i] >= 0 else 0
        still = 2 * hits >= len(others) and np.isfinite(p).all()
        assert got[i] == (votes.argmax() if still and votes.max() > 0 else own)


@pytest.mark.parametrize("keep", [0.5, 0.9, 1.0])
def test_each_class_keeps_its_surest_share(tmp_path, keep):
    rng = np.random.default_rng(0)
    phrase = np.repeat([CAR, ROAD], (1000, 4000))
    score = np.concatenate((rng.uniform(0.1, 0.3, 1000), rng.uniform(0.6, 1, 4000)))
    files = []
    for k, part in enumerate(np.array_split(rng.permutation(5000), 3)):
        files.append(tmp_path / f"{k}.npz")
        taught(np.ones((len(part), 3)), phrase[part], score[part], stamp=k).save(files[-1])
    least = least_scores(files, keep, VOCABULARY)
    for of, rows in ((4, score[:1000]), (11, score[1000:])):
        expected = np.quantile(rows, 1 - keep) if keep < 1 else 0
        assert least[of] == pytest.approx(expected, abs=2e-3)
    settled = settle_all(files, replace(ALONE, keep=keep), VOCABULARY, tmp_path / "settled")
    kept = np.concatenate([TaughtSweep.load(f).phrase for f in settled])
    assert [np.mean(kept == CAR) * 5, np.mean(kept == ROAD) * 5 / 4] == pytest.approx(
        [keep, keep], abs=0.01
    )


def test_without_poses_nobody_votes_and_that_is_said(tmp_path, capsys):
    files = []
    for k, phrase in enumerate((CAR, WALL, WALL)):
        files.append(tmp_path / f"{k}.npz")
        one = taught([[5, 0, 0]], [phrase], [0.9], stamp=k)
        replace(one, world_from_lidar=UNKNOWN_POSE).save(files[-1])
    settled = settle_all(files, replace(ALONE, vote=1.0), VOCABULARY, tmp_path / "settled")
    assert [int(TaughtSweep.load(f).phrase[0]) for f in settled] == [CAR, WALL, WALL]
    assert "no poses" in capsys.readouterr().out


class Saying:
    """A teacher that calls everything a car."""

    text_bank, key = bank(4), "saying"

    def segments(self, image, *, token, camera):
        ids = np.ones(image.shape[:2], np.uint16)
        return Segments(ids, np.array([CAR]), np.array([0.5], np.float32), np.eye(1, 4))


def test_a_sweep_is_settled_anew_among_others(drive, tmp_path):
    """Every other sweep first, then all: those of before have other neighbours now."""

    def folder(every):
        source = BagSource(drive, every=every)
        files = teach(source, Saying(), replace(ALONE, keep=0.5), tmp_path)
        assert len(files) == 4 // every
        return files[0].parent

    half, whole = folder(2), folder(1)
    assert half != whole and folder(1) == whole


def test_voters_are_near_in_time_and_few():
    stamps = np.arange(100) / 20
    assert voters(stamps, 50, 0.0).tolist() == []
    assert voters(stamps, 50, 0.11).tolist() == [48, 49, 51, 52]
    chosen = voters(stamps, 50, 1.0)
    assert len(chosen) == 8 and chosen[0] == 30 and chosen[-1] == 70 and 50 not in chosen
    # SemanticKITTI's sequences all begin at 0.
    twice = np.array([0, 0.1, 0.2, 0, 0.1, 0.2])
    assert voters(twice, 1, 1.0).tolist() == [0, 2] and voters(twice, 4, 1.0).tolist() == [3, 5]
