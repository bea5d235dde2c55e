"""Settle: labels that neighbouring sweeps, and the recording as a whole, agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from afov.transforms import inverse, transform_points
from afov.vocabulary import Vocabulary
from afov_train.config import TeachConfig
from afov_train.objects import ground_classes, one_voice
from afov_train.progress import track
from afov_train.taught import NO_PHRASE, TaughtSweep, class_of_phrase

# Two sweeps hit the same surface within this: a part of their distance from the sensor, because
# beams spread, and no less than a few centimetres of pose error.
NEAR, SPREAD = 0.1, 0.015  # metres, metres per metre
FAR = 0.6  # metres, at most
VOTERS = 8  # a sensor at 20 Hz would ask forty, who say the same


def settle(
    taught: TaughtSweep,
    others: Sequence[TaughtSweep],
    least: np.ndarray,
    ground: np.ndarray | None,
    config: TeachConfig,
    vocabulary: Vocabulary,
) -> TaughtSweep:
    """Drops unsure labels, lets sweeps and things vote, carries labels past the cameras.

    Args:
        others: the sweeps that vote; none where `config.vote` is 0.
        least: (K + 1,) the score that a label of each class needs, of `least_scores`.
        ground: (K + 1,) of `ground_classes`; None where `config.objects` is false.
    """
    taught = without_unsure(taught, least, vocabulary)
    if others:
        sure = [without_unsure(other, least, vocabulary) for other in others]
        taught = replace(taught, phrase=vote(taught, sure, vocabulary))
    if ground is not None:
        taught = replace(taught, phrase=one_voice(taught, ground, vocabulary))
    phrase = spread(taught.sweep.xyz, taught.phrase, taught.covered, config.reach)
    return replace(taught, phrase=phrase)


def settle_all(
    files: Sequence[Path], config: TeachConfig, vocabulary: Vocabulary, folder: Path
) -> list[Path]:
    """The taught sweeps of one recording, settled together, each in a file of the same name.

    Absorbers that are things vote as classes do: otherwise debris would become the road it lies on.
    """
    vocabulary = vocabulary.widened
    folder.mkdir(parents=True, exist_ok=True)
    least = least_scores(files, config.keep, vocabulary)
    ground = ground_classes(files, vocabulary) if config.objects else None
    load = lru_cache(maxsize=64)(TaughtSweep.load)
    stamps = np.array([_stamp(file) for file in files]) / 1e9
    if config.vote and not _placed(load(files[0])):
        print("no poses (tf up to odom or map), so neighbouring sweeps do not vote")
    settled = []
    for i, file in enumerate(track(files, "settle", len(files))):
        target = folder / file.name
        if not target.exists():
            taught = load(file)
            others = [load(files[j]) for j in voters(stamps, i, config.vote)]
            others = [other for other in others if _placed(other) and _placed(taught)]
            settle(taught, others, least, ground, config, vocabulary).save(target)
        settled.append(target)
    return settled


def voters(stamps: np.ndarray, i: int, seconds: float) -> np.ndarray:
    """Which sweeps vote on the i-th: its neighbours within `seconds`, thinned out where many are.

    Where time jumps back another drive begins, whose poses say nothing about this one.
    """
    starts = np.flatnonzero(np.diff(stamps, prepend=np.inf) < 0)
    drive = np.searchsorted(starts, np.arange(len(stamps)), side="right")
    apart = np.abs(stamps - stamps[i])
    near = np.flatnonzero((drive == drive[i]) & (apart <= seconds) & (apart > 0))
    every = np.linspace(0, len(near) - 1, min(len(near), VOTERS))
    return near[every.round().astype(int)]


def _placed(taught: TaughtSweep) -> bool:
    return bool(np.isfinite(taught.world_from_lidar).all())


def _stamp(file: Path) -> int:
    with np.load(file, allow_pickle=False) as data:
        return int(data["stamp"])


def least_scores(files: Sequence[Path], keep: float, vocabulary: Vocabulary) -> np.ndarray:
    """(K + 1,) float32: per class the score above which the share `keep` of its labels lies.

    One threshold for all would leave nothing of the classes that a teacher is rarely sure of.
    """
    least = np.zeros(len(vocabulary.labelled) + 1, np.float32)
    if keep >= 1:
        return least
    bins = np.zeros((len(least), 1001), np.int64)
    for file in files:
        taught = TaughtSweep.load(file)
        known = taught.phrase != NO_PHRASE
        scores = (taught.score[known].clip(0, 1) * 1000).astype(int)
        np.add.at(bins, (taught.class_id(vocabulary)[known], scores), 1)
    below = np.cumsum(bins, 1) <= (1 - keep) * bins.sum(1, keepdims=True)
    return (below.sum(1) / 1000).astype(np.float32)


def without_unsure(taught: TaughtSweep, least: np.ndarray, vocabulary: Vocabulary) -> TaughtSweep:
    """Labels with a lower score than their class needs become none."""
    unsure = taught.score < least[taught.class_id(vocabulary)]
    return replace(taught, phrase=np.where(unsure, NO_PHRASE, taught.phrase).astype(np.int32))


def vote(here: TaughtSweep, others: Sequence[TaughtSweep], vocabulary: Vocabulary) -> np.ndarray:
    """Where a surface stands still, all sweeps that see it say together what it is.

    A surface stands still where at least half of the other sweeps have a point. What moves has
    left its place by then, keeps its own label and gives none to others.

    Returns:
        (N,) int32 phrases, -1 where none.
    """
    from scipy.spatial import cKDTree

    count, classes = len(here.phrase), len(vocabulary.labelled) + 1
    finite = np.flatnonzero(np.isfinite(here.sweep.xyz).all(1))
    xyz = here.sweep.xyz[finite].astype(np.float64)
    within = np.clip(SPREAD * np.linalg.norm(xyz, axis=1), NEAR, FAR)
    phrases = np.full((len(others) + 1, count), NO_PHRASE, np.int32)
    scores = np.zeros((len(others) + 1, count), np.float32)
    phrases[0], scores[0] = here.phrase, here.score
    hits = np.zeros(count, int)
    for k, other in enumerate(others, 1):
        there = inverse(other.world_from_lidar) @ here.world_from_lidar
        known = np.flatnonzero(np.isfinite(other.sweep.xyz).all(1))
        if not len(known):
            continue
        tree = cKDTree(other.sweep.xyz[known])
        distance, near = tree.query(transform_points(there, xyz), distance_upper_bound=FAR)
        hit = distance < within
        point, met = finite[hit], known[near[hit]]
        hits[point] += 1
        phrases[k, point], scores[k, point] = other.phrase[met], other.score[met]
    still = 2 * hits >= len(others)
    votes = np.zeros((count, classes), np.float32)
    class_id = class_of_phrase(phrases, vocabulary)
    for said, owner, score in zip(phrases, class_id, scores, strict=True):
        voter = np.flatnonzero((said != NO_PHRASE) & still)
        votes[voter, owner[voter]] += np.maximum(score[voter], 1e-3)
    # Of the winner's phrases the surest; a point's own label wins a draw.
    winner = votes.argmax(1)
    own = class_id[0].astype(int)
    drawn = votes[np.arange(count), own] >= votes.max(1)
    winner[drawn & (here.phrase != NO_PHRASE)] = own[drawn & (here.phrase != NO_PHRASE)]
    fits = (class_id == winner) & (phrases != NO_PHRASE)
    best = np.where(fits, scores, -1).argmax(0)
    elected = phrases[best, np.arange(count)]
    return np.where(still & (votes.max(1) > 0), elected, here.phrase).astype(np.int32)


def spread(xyz: np.ndarray, phrase: np.ndarray, covered: np.ndarray, reach: float) -> np.ndarray:
    """Carries labels on to points that no camera sees, from the nearest labelled point.

    No camera ever sees the ground close to the vehicle; a student that is never told about it
    calls it anything. A difference in height counts eightfold, so that ground labels ground.

    Args:
        xyz: (N, 3) metres; phrase: (N,) int32, -1 where none; covered: (N,) bool.
        reach: metres.

    Returns:
        (N,) int32.
    """
    from scipy.spatial import cKDTree

    finite = np.isfinite(xyz).all(1)
    known = np.flatnonzero(finite & (phrase != NO_PHRASE))
    wanted = np.flatnonzero(finite & ~covered & (phrase == NO_PHRASE))
    if not len(known) or not len(wanted):
        return phrase
    metric = np.array([1, 1, 8])
    near = cKDTree(xyz[known] * metric).query(xyz[wanted] * metric, distance_upper_bound=reach)[1]
    result = phrase.copy()
    result[wanted] = np.append(phrase[known], NO_PHRASE)[near]  # len(known): none within reach
    return result
