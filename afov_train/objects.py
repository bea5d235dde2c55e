"""Objects: what stands on the ground as one piece is one thing, and has one label.

A teacher that looks at small images draws coarse outlines: the feet of a pedestrian are road to it,
half of a car is "bonnet of the own car", a bicycle is the wall behind. In the sweep they stand
apart. SAL (2403.13129) cleans masks of instances by such clusters; here they clean classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from afov.vocabulary import Vocabulary
from afov_train.clusters import dbscan, extents
from afov_train.taught import NO_PHRASE, TaughtSweep

CELL = 0.5  # metres: the ground of a place is the lowest point in three by three of these
LIFT = 0.2  # metres above it, where things begin
FAR = 120.0  # metres: what is farther is left as it is
FINE, GAP = 0.2, 0.4  # metres: cells, and how far apart those of one thing are
LARGEST = 15.0  # metres: what is longer is no thing, but a wall or a hedge
SHARE = 0.7  # of the votes, for the winner
HEARD = 0.1  # of the points, that must have voted
FILL = 1.0  # metres, within which labels of the ground flow into its gaps
GROUND = 0.1  # of a class's labels; one that has fewer above the ground is ground


def above_ground(xyz: np.ndarray) -> np.ndarray:
    """(N,) float64 metres above the lowest point around; NaN where not finite, or far away.

    Args:
        xyz: (N, 3) metres, LiDAR frame, z up.
    """
    from scipy.ndimage import minimum_filter

    height = np.full(len(xyz), np.nan)
    near = np.flatnonzero((abs(xyz) < FAR).all(1))  # false for NaN
    if not len(near):
        return height
    column, row = np.floor((xyz[near, :2] + FAR) / CELL).astype(int).T
    side = int(2 * FAR / CELL) + 1
    lowest = np.full((side, side), np.inf)
    np.minimum.at(lowest, (column, row), xyz[near, 2])
    height[near] = xyz[near, 2] - minimum_filter(lowest, 3)[column, row]
    return height


def pieces(xyz: np.ndarray) -> np.ndarray:
    """(N,) int: the piece of each point; cells no more than `GAP` apart are of one piece.

    Cells and not points, because a dense sensor has thousands of points within reach of each.

    Args:
        xyz: (N, 3) metres, finite.
    """
    cells, inverse = np.unique(np.floor(xyz / FINE).astype(int), axis=0, return_inverse=True)
    return dbscan(cells, GAP / FINE + 1e-6)[inverse.reshape(-1)]


def ground_classes(files: Sequence[Path], vocabulary: Vocabulary) -> np.ndarray:
    """(K + 1,) bool: the classes whose labels in a recording lie on the ground; never things."""
    count = np.zeros((2, len(vocabulary.labelled) + 1), np.int64)
    for file in files:
        taught = TaughtSweep.load(file)
        class_id = taught.class_id(vocabulary)
        above = above_ground(taught.sweep.xyz) > LIFT
        count += [np.bincount(class_id[part], minlength=count.shape[1]) for part in (~above, above)]
    ground = (count.sum(0) > 0) & (count[1] < GROUND * count.sum(0))
    ground &= [False, *(not c.thing for c in vocabulary.labelled)]
    return ground


def one_voice(taught: TaughtSweep, ground: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Phrases after each thing above the ground has settled on one.

    Labels of ground classes fall away above the ground, and absorbers (sky, the own bonnet) do not
    vote: the LiDAR hit something. A thing whose voters are of one mind, `SHARE` of their scores,
    takes that class's surest phrase for all of its points; every other keeps what it has. On the
    ground, what has no class takes that of the nearest ground.

    Args:
        ground: (K + 1,) bool, of `ground_classes`.

    Returns:
        (N,) int32 phrases, -1 where none.
    """
    phrase, class_id = taught.phrase.copy(), taught.class_id(vocabulary).astype(int)
    height = above_ground(taught.sweep.xyz)
    below = np.flatnonzero(height <= LIFT)
    phrase[below] = _filled(taught.sweep.xyz[below], phrase[below], class_id[below], ground)
    above = np.flatnonzero(height > LIFT)
    if not len(above):
        return phrase
    phrase[above[ground[class_id[above]]]] = NO_PHRASE
    xyz = taught.sweep.xyz[above].astype(np.float64)
    piece = pieces(xyz)
    size = np.bincount(piece)
    class_id = class_id[above]
    voter = (class_id > 0) & ~ground[class_id]
    who, score = above[voter], np.maximum(taught.score[above[voter]], 1e-3)
    votes = np.zeros((len(size), len(ground)))
    np.add.at(votes, (piece[voter], class_id[voter]), score)
    winner = votes.argmax(1)
    sure = votes.max(1) > SHARE * votes.sum(1)
    sure &= np.bincount(piece[voter], minlength=len(size)) >= HEARD * size
    sure &= _length(xyz, piece, len(size)) < LARGEST
    # The phrase that says it surest: sorted by score, the last to write stays.
    said = np.full(len(size), NO_PHRASE, np.int32)
    fits = class_id[voter] == winner[piece[voter]]
    order = np.argsort(score[fits], kind="stable")
    said[piece[voter][fits][order]] = taught.phrase[who[fits][order]]
    phrase[above] = np.where(sure[piece], said[piece], phrase[above])
    return phrase


def _filled(
    xyz: np.ndarray, phrase: np.ndarray, class_id: np.ndarray, ground: np.ndarray
) -> np.ndarray:
    """Phrases of the ground's points; those of no class take the nearest ground class's."""
    from scipy.spatial import cKDTree

    known, wanted = np.flatnonzero(ground[class_id]), np.flatnonzero(class_id == 0)
    if not len(known) or not len(wanted):
        return phrase
    near = cKDTree(xyz[known]).query(xyz[wanted], distance_upper_bound=FILL)[1]
    filled = phrase.copy()
    filled[wanted] = np.where(
        near < len(known), np.append(phrase[known], NO_PHRASE)[near], phrase[wanted]
    )
    return filled


def _length(xyz: np.ndarray, piece: np.ndarray, count: int) -> np.ndarray:
    """(count,) metres, the longer side of each piece in x and y."""
    low, high = extents(xyz[:, :2], piece, count)
    return (high - low).max(1)
