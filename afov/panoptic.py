"""Panoptic inference: from masks and how likely each is of each class to instances of voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# P3Former's numbers.
THING = 2.0  # times the score of a thing
SCORE = 0.4  # a query with less holds nothing
VISIBLE = 0.8  # of a mask, which must win against the others
SEEN, UNSEEN = 0.4, 0.8  # exponent of the image features' belief (FC-CLIP, 2308.02487, eq. 7)


@dataclass(frozen=True)
class Panoptic:
    """What is where, in the order of the voxels.

    Attributes:
        class_id: (V,) uint8, 0 where no mask is kept.
        score: (V,) float32, probability of the class of the voxel's query.
        instance_id: (V,) uint16, things counted from 1; 0 = stuff, or no mask.
        query: (V,) int64, -1 where no mask is kept.
    """

    class_id: np.ndarray
    score: np.ndarray
    instance_id: np.ndarray
    query: np.ndarray


def panoptic(
    probability: np.ndarray, mask: np.ndarray, thing: np.ndarray, rivals: int = 0
) -> Panoptic:
    """Each voxel to the query that claims it most, score times mask (P3Former).

    A thing's score counts twice; queries that score 0.4 or less hold nothing; a mask of which
    others take more than a fifth is dropped, and its voxels stay without a label. Stuff of one
    class is one segment, however many queries hold it.

    Args:
        probability: (Q, K) float32, of each class; column k is the class with id k + 1.
        mask: (Q, V) float32 logits. thing: (K,) bool.
        rivals: so many classes, the last ones, take their voxels and label nothing.
    """
    best, likely = probability.argmax(1), probability.max(1)
    score = scores(probability, thing)
    kept = np.flatnonzero(score > SCORE)
    voxels = mask.shape[1]
    query = np.full(voxels, -1, np.int64)
    if len(kept) and voxels:
        of_mask = sigmoid(mask[kept])
        claimed = (score[kept, None].astype(np.float32) * of_mask).argmax(0)
        inside = of_mask > 0.5
        visible = inside[claimed, np.arange(voxels)]
        shown = np.bincount(claimed, visible, minlength=len(kept))
        whole = inside.sum(1)
        asked = best[kept] < len(thing) - rivals
        stays = asked & (whole > 0) & (shown >= VISIBLE * whole)
        query = np.where(stays[claimed], kept[claimed], -1)
    number = np.zeros(len(probability) + 1, np.uint16)  # the last row is "no query"
    held = np.unique(query[query >= 0])
    things = held[thing[best[held]]]
    number[things] = np.arange(1, len(things) + 1)
    return Panoptic(
        np.append(best + 1, 0).astype(np.uint8)[query],
        np.append(likely, 0).astype(np.float32)[query],
        number[query],
        query,
    )


def scores(probability: np.ndarray, thing: np.ndarray) -> np.ndarray:
    """(Q,): the probability of each query's likeliest class, twice that of a thing."""
    likely = probability.max(1)
    return np.where(thing[probability.argmax(1)], THING * likely, likely)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def ensemble(
    learned: np.ndarray, pooled: np.ndarray, some: np.ndarray, base: np.ndarray
) -> np.ndarray:
    """(Q, K): FC-CLIP's geometric mean of what was learned and what is said inside a mask.

    learned^0.6 pooled^0.4 for classes seen in training, learned^0.2 pooled^0.8 for others.

    Args:
        learned, pooled: (Q, K) probabilities. some: (Q,) bool, whether a mask holds any voxel that
            says something; where it does not, `learned` stands alone.
        base: (K,) bool, seen in training.
    """
    share = np.where(base, SEEN, UNSEEN)
    return np.where(some[:, None], learned ** (1 - share) * pooled**share, learned)
