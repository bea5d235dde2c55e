"""Second rounds: a sure student corrects, what it doubts falls away, the rest is the teacher's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afov.frames import Sweep
from afov.vocabulary import Vocabulary
from afov_train.rounds import DOUBT, SURE, joined
from afov_train.taught import NO_PHRASE, UNKNOWN_POSE, TaughtSweep, first_phrases

VOCABULARY = Vocabulary.load("nuscenes16")
OWNER = VOCABULARY.phrase_class_id
CAR, VAN = np.flatnonzero(OWNER == 4)[:2]
ROAD, WALL = (np.flatnonzero(k == OWNER)[0] for k in (11, 15))
SKY = np.flatnonzero(OWNER == 0)[0]


def taught(phrase, score):
    count = len(phrase)
    return TaughtSweep(
        "0", Sweep(np.zeros((count, 3), np.float32), ("x", "y", "z"), 0, "lidar"),
        np.asarray(phrase, np.int32), np.asarray(score, np.float32), np.ones(count, bool),
        np.zeros((0, 5), np.int32), np.zeros(0, np.int32), np.zeros((0, 4), np.float32),
        np.zeros((0, 2), np.int32), UNKNOWN_POSE,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("label", "student", "expected"),
    [
        ((VAN, 0.5), {4: 0.95}, (VAN, 0.95)),  # both say car: the teacher's phrase, surer now
        ((VAN, 0.7), {4: 0.3, 15: 0.6}, (VAN, 0.7)),  # another guess is no reason
        ((WALL, 0.8), {4: 0.95}, (CAR, 0.95)),  # sure: corrected
        ((NO_PHRASE, 0.0), {11: 0.95}, (ROAD, 0.95)),  # sure: filled
        ((SKY, 0.9), {15: 0.95}, (WALL, 0.95)),  # the LiDAR hit something
        ((SKY, 0.9), {15: 0.6}, (SKY, 0.9)),
        ((WALL, 0.8), {4: 0.6, 15: 0.01}, (NO_PHRASE, 0.8)),  # nobody knows
        ((NO_PHRASE, 0.0), {4: 0.6}, (NO_PHRASE, 0.0)),
        ((WALL, 0.8), {}, (NO_PHRASE, 0.8)),  # the student is silent where no voxel is
    ],
)
def test_who_decides(label, student, expected):
    likely = np.zeros((1, 17), np.float32)
    for class_id, probability in student.items():
        likely[0, class_id] = probability
    result = joined(taught([label[0]], [label[1]]), likely, VOCABULARY)
    assert result.phrase[0] == expected[0]
    assert result.score[0] == pytest.approx(expected[1])
    assert result.phrase.dtype == np.int32 and result.score.dtype == np.float32


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 30))
def test_every_label_is_the_teachers_the_students_or_none(seed, points):
    rng = np.random.default_rng(seed)
    before = taught(rng.choice([NO_PHRASE, SKY, CAR, ROAD, WALL], points), rng.random(points))
    likely = np.zeros((points, 17), np.float32)
    likely[:, 1:] = rng.dirichlet(np.full(16, 0.05), points)
    after = joined(before, likely, VOCABULARY)
    for was, now, row in zip(before.class_id(VOCABULARY), after.phrase, likely, strict=True):
        said = int(row.argmax())
        if row[said] >= SURE:
            assert OWNER[now] == said
        elif was and row[was] < DOUBT:
            assert now == NO_PHRASE
        else:
            assert (OWNER[now] if now >= 0 else 0) == was
    assert replace(after, phrase=before.phrase, score=before.score).sweep is before.sweep


def test_a_class_is_named_by_a_phrase_of_its_own():
    first = first_phrases(VOCABULARY)
    assert first[0] == NO_PHRASE
    assert OWNER[first[1:]].tolist() == list(range(1, 17))
