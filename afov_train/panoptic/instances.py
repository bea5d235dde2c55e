"""Pseudo-instances: objects without annotation, from the teacher's segments and the points.

What a 2D mask says of the points is blurred at its edges; where one object ends and the next
begins, the points know better (SAL, 2403.13129): a projected mask is replaced by the density
cluster that it overlaps most. Teachers that give one segment per phrase do not tell objects apart
at all; there each cluster is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from afov.frames import Source
from afov.vocabulary import Vocabulary
from afov_train.clusters import dbscan
from afov_train.config import TeachConfig
from afov_train.panoptic.follow import Followed
from afov_train.panoptic.targets import PanopticTarget
from afov_train.progress import track
from afov_train.taught import TaughtSweep, class_of_phrase
from afov_train.teach import teach
from afov_train.teachers.segments import Teacher

# Metres. Height counts a quarter: far away, the rings of a sensor hit one object metres apart.
RADII = (0.5, 0.8, 1.2)
USUAL = 0.8  # of the radii, where no mask chooses
HEIGHT = 0.25
VOTERS = 0.4  # metres: points that near decide on a point's class
LEAST = 3  # points of an instance


def pseudo_instances(
    sweeps: Iterable[TaughtSweep], vocabulary: Vocabulary
) -> Iterator[PanopticTarget]:
    """Labels for one sweep after the other, in time order; an object keeps its id.

    A thing's points that are in no instance are unlabelled.
    """
    followed = Followed()
    for taught in sweeps:
        found = instances(taught, vocabulary)
        ids = followed.ids(
            taught.sweep.xyz, found.instance_id, taught.world_from_lidar, taught.sweep.stamp
        )
        yield PanopticTarget(found.class_id, ids[found.instance_id])


def pseudo_labels(source: Source, teacher: Teacher, config: TeachConfig, folder: Path) -> Path:
    """Teaches a recording and writes TOKEN.npz per frame: class_id, instance_id.

    Returns:
        Their folder, as `--labels` takes it.
    """
    files = teach(source, teacher, config, folder / "teach")
    labels = folder / "instances"
    labels.mkdir(parents=True, exist_ok=True)
    sweeps = track(map(TaughtSweep.load, files), "instances", len(files))
    for file, target in zip(
        files, pseudo_instances(sweeps, teacher.text_bank.vocabulary), strict=True
    ):
        token = file.stem.rsplit("-", 1)[0]  # the teacher's key stands behind it
        np.savez(labels / f"{token}.npz", class_id=target.class_id, instance_id=target.instance_id)
    return labels


def instances(taught: TaughtSweep, vocabulary: Vocabulary) -> PanopticTarget:
    """The objects of one sweep, counted from 1."""
    xyz = taught.sweep.xyz * np.array([1, 1, HEIGHT], np.float32)
    thing = np.array([False, *(c.thing for c in vocabulary.labelled)])
    class_id = taught.class_id(vocabulary)
    class_id[~np.isfinite(xyz).all(1)] = 0
    things = np.flatnonzero(thing[class_id])
    class_id[things] = agreed(xyz[things], class_id[things])
    masks = thing_masks(taught, vocabulary)
    number, count = np.zeros(len(class_id), np.uint16), 0
    for one in np.unique(class_id[things]):
        points = things[class_id[things] == one]
        mine = [mask.among(points) for mask in masks if mask.class_id == one]
        levels = {r: dbscan(xyz[points], r) for r in (RADII if mine else (USUAL,))}
        for inside in separated(levels, mine):
            count += 1
            number[points[inside]] = count
    class_id[things[number[things] == 0]] = 0
    # Of an object under smaller ones nothing may be left.
    left = np.unique(np.append(number, np.uint16(0)), return_inverse=True)[1]
    return PanopticTarget(class_id, left[:-1].astype(np.uint16))


def agreed(xyz: np.ndarray, class_id: np.ndarray) -> np.ndarray:
    """(N,) class ids: every point takes the class of most points around it, itself included.

    An object that the teacher calls a truck here and a bus there is not cut along that line.
    """
    if not len(xyz):
        return class_id
    from scipy.spatial import cKDTree

    one, other = cKDTree(xyz).query_pairs(VOTERS, output_type="ndarray").T
    every = np.arange(len(xyz))
    votes = np.zeros((len(xyz), int(class_id.max()) + 1), np.int64)
    voter = np.concatenate((every, one, other))
    np.add.at(votes, (np.concatenate((every, other, one)), class_id[voter]), 1)
    return votes.argmax(1).astype(class_id.dtype)


@dataclass(frozen=True)
class ThingMask:
    """One segment of one image, on the points: indices inside it, and of all its camera sees."""

    class_id: int
    inside: np.ndarray
    seen: np.ndarray

    def among(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """inside and seen as (P,) bool over some points (P,)."""
        return np.isin(points, self.inside), np.isin(points, self.seen)


def thing_masks(taught: TaughtSweep, vocabulary: Vocabulary) -> list[ThingMask]:
    """The images' segments of things; none where the teacher does not tell objects apart.

    It does where one image has two segments of the same phrase.
    """
    point, camera, segment = taught.pairs[:, 0], taught.pairs[:, 1], taught.pairs[:, 4]
    met, first = np.unique(segment, return_index=True)
    named = np.stack((camera[first], taught.segment_phrase[met]), 1)
    if len(np.unique(named, axis=0)) == len(named):
        return []
    thing = np.array([False, *(c.thing for c in vocabulary.labelled)])
    class_id = class_of_phrase(taught.segment_phrase, vocabulary)
    return [
        ThingMask(int(class_id[one]), point[segment == one], point[camera == camera[at]])
        for one, at in zip(met, first, strict=True)
        if thing[class_id[one]]
    ]


def separated(
    levels: dict[float, np.ndarray], masks: Sequence[tuple[np.ndarray, np.ndarray]]
) -> list[np.ndarray]:
    """The objects among the points of one class, (P,) bool each, smaller ones after larger ones.

    Two masks, of two cameras, that one cluster replaces are one object. A cluster that no mask
    touches is an object as well.

    Args:
        levels: (P,) clusters by radius. masks: inside and seen, (P,) bool.
    """
    found = [cleaned(inside, seen, [*levels.values()]) for inside, seen in masks if inside.any()]
    usual = levels[USUAL]
    taken = np.any(found, axis=0) if found else np.zeros(len(usual), bool)
    alone = np.setdiff1d(usual, usual[taken])
    found += [usual == cluster for cluster in alone]
    objects = {inside.tobytes(): inside for inside in found if inside.sum() >= LEAST}
    return sorted(objects.values(), key=lambda inside: -int(inside.sum()))


def cleaned(inside: np.ndarray, seen: np.ndarray, levels: Sequence[np.ndarray]) -> np.ndarray:
    """(P,) bool: the cluster that a mask overlaps most, over all radii.

    Judged by IoU on the points that the mask's camera sees; where none exceeds a half (several
    objects touch), the mask itself, without what lies apart from most of it.
    """
    best, overlap = None, 0.5
    for level in levels:
        cluster = level == np.bincount(level[inside]).argmax()
        iou = (cluster & inside).sum() / ((cluster & seen) | inside).sum()
        if iou > overlap:
            best, overlap = cluster, iou
    return inside & cluster if best is None else best
