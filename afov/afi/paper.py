"""AFI as published (2405.15286, section 3.4, and its official code): labels along flat directions.

Every quantity bears the paper's letter: P the share of a direction, D its mean offset, F its
feature, I the influence of a centre, S how well an offset follows the directions of one end,
R the reach of both ends along it.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from afov.afi.ground import near_ground
from afov.afi.sampling import farthest_points, nearest
from afov.native import address, library

SIZES = (1365, 455, 151, 50)  # centres of the four levels
AGGREGATED, DECODED = 20, 6  # neighbours
GAMMA = 0.995  # cosine of 5.7 degrees: what still counts as the same direction
EGO = 2.0  # metres around the sensor that are left to guess
FLAT = slice(11, 15)  # the ids of nuScenes' ground classes, the only ones that ground may take


def fibonacci_sphere(count: int) -> np.ndarray:
    """(count, 3) float32 unit directions, poles at +-y."""
    place = np.arange(count)
    y = 1 - 2 * place / (count - 1)
    angle = np.pi * (3 - np.sqrt(5)) * place
    radius = np.sqrt(1 - y * y)
    return np.stack((np.cos(angle) * radius, y, np.sin(angle) * radius), 1).astype(np.float32)


FAINT, EPSILON = 1e-8, 1e-9
AXES = fibonacci_sphere(20)


@dataclass(frozen=True)
class Level:
    """The centres of one level and what they know of their surroundings.

    Attributes:
        index: (S,) int64, each centre among the points of the level below; xyz: (S, 3) float32.
        P: (S, A) float32, share of each direction. D: (S, A, 3) float32, metres, mean offset.
        F: (S, A, C) float32, features met in each direction. I: (S,) float32, influence.
        x: (S, C) float32, the centre's own feature after pooling.
    """

    index: np.ndarray
    xyz: np.ndarray
    P: np.ndarray
    D: np.ndarray
    F: np.ndarray
    I: np.ndarray  # noqa: E741
    x: np.ndarray


@dataclass(frozen=True)
class Interaction:
    """Scores and labels after AFI; the levels from fine to coarse, `decoded` likewise.

    Attributes:
        labels: (N,) uint8. scores: (N, C) float32, rows sum to at most 1.
        ground: (G,) int64, points taken for ground near the vehicle.
        decoded: (S_l, C) float32 per level but the coarsest.
    """

    labels: np.ndarray
    scores: np.ndarray
    ground: np.ndarray
    levels: tuple[Level, ...]
    decoded: tuple[np.ndarray, ...]


def interact(xyz: np.ndarray, labels: np.ndarray, classes: int = 16) -> Interaction:
    """Corrects the labels of one sweep.

    As published, label 0 is a class like any other: what is unlabelled votes and spreads.

    Args:
        xyz: (N, 3) float32, metres, LiDAR frame, all finite.
        labels: (N,) uint8 in 0..classes.
    """
    one_hot = np.eye(classes + 1, dtype=np.float32)[labels]
    ground = near_ground(xyz)
    one_hot[ground] = 0
    one_hot[np.linalg.norm(xyz[:, :2], axis=1) < EGO] = 0
    levels: list[Level] = []
    points, x = xyz, one_hot
    order = farthest_points(xyz, SIZES[0])
    for size in SIZES:
        if size >= len(points):
            break  # a cloud smaller than a level: the coarsest level is what there is
        # The farthest n of a level are its first n, in the order in which they were chosen.
        index = np.arange(size) if levels else order
        levels.append(aggregate(points, x, index, levels[-1] if levels else None))
        points, x = levels[-1].xyz, levels[-1].x
    decoded: list[np.ndarray] = []
    for place in reversed(range(len(levels))):
        finer_xyz = levels[place - 1].xyz if place else xyz
        finer_x = levels[place - 1].x if place else one_hot
        x = decode(finer_xyz, finer_x, levels[place], x)
        decoded.insert(0, x)
    scores = x
    allowed = np.zeros(classes + 1, bool)
    allowed[FLAT] = True
    scores[ground] *= allowed
    corrected = np.where(scores.any(1), scores.argmax(1), labels).astype(np.uint8)
    return Interaction(corrected, scores, ground, tuple(levels), tuple(decoded[1:]))


def aggregate(xyz: np.ndarray, x: np.ndarray, index: np.ndarray, below: Level | None) -> Level:
    """One level up: local geometric aggregation around the points of `index`."""
    centers = xyz[index]
    near = nearest(xyz, centers, AGGREGATED)
    o = xyz[near] - centers[:, None]
    # (S, K, A): the direction each neighbour lies in; the centre itself falls into the first.
    inside = ((o @ AXES.T).argmax(2)[:, :, None] == np.arange(len(AXES))).astype(np.float32)
    count = inside.sum(1)
    count[:, 0] -= 1
    spread = inside.transpose(0, 2, 1)
    F = over(spread @ x[near], EPSILON)
    D = spread @ o / np.maximum(count, 1)[:, :, None]
    if below is None:
        P, I = count / np.maximum(count.sum(1, keepdims=True), 1), np.ones(len(index), np.float32)  # noqa: E741
    else:
        w = agreement(o, below, index, near)
        total = w.sum(1)
        P = (spread @ w[:, :, None])[:, :, 0] / (total + 1e-7)[:, None]
        I = total / max(total.mean(), 1e-12)  # noqa: E741
    length = np.linalg.norm(D, axis=2)
    v = np.divide(P, length, out=np.zeros_like(P), where=length > 0)
    pooled = (over(v, EPSILON)[:, None] @ F)[:, 0]
    own = I[:, None] * pooled + 0.1 * x[index]
    silent = ~own.any(1)
    own[silent] = FAINT * x[near[silent]].max(1)
    return Level(index, centers, P, D, F, I, over(own, EPSILON))


def agreement(o: np.ndarray, below: Level, index: np.ndarray, near: np.ndarray) -> np.ndarray:
    """(S, K) w = S_i S_j R: do both ends of an offset lie on one straight stretch?"""
    length = np.linalg.norm(below.D, axis=2)
    axes = below.D / np.maximum(length, 1e-9)[:, :, None]
    distance = np.linalg.norm(o, axis=2)
    u = o / np.maximum(distance, 1e-9)[:, :, None]
    cos_i = u @ axes[index].transpose(0, 2, 1)
    cos_j = np.einsum("skd,skad->ska", u, axes[near])
    P_i, P_j = below.P[index][:, None], below.P[near]
    l_i, l_j = length[index][:, None], length[near]
    S_i, S_j = ((P * (abs(c) > GAMMA)).sum(2) for P, c in ((P_i, cos_i), (P_j, cos_j)))
    ahead_i, ahead_j = ((l * (c > GAMMA)).max(2) for l, c in ((l_i, cos_i), (l_j, cos_j)))  # noqa: E741
    behind_i, behind_j = ((l * (c < -GAMMA)).max(2) for l, c in ((l_i, cos_i), (l_j, cos_j)))  # noqa: E741
    R = (ahead_i + behind_i + ahead_j + behind_j) / np.maximum(distance + behind_i + ahead_j, 1e-9)
    return S_i * S_j * R


def decode(xyz: np.ndarray, x: np.ndarray, level: Level, coarse: np.ndarray) -> np.ndarray:
    """One level down: points take from the centres on whose directions they lie."""
    from scipy.sparse import csr_array

    near = nearest(level.xyz, xyz, DECODED)
    w = following(xyz, level, near)
    c = (0.3 if len(xyz) == 3 * len(level.xyz) else 0.01) * w.sum(1).mean()
    # Without label and direction: faintly, the mean of the centres around. 600 / 601 comes from
    # the official code's two guards against division by zero.
    w += np.float32(FAINT * 600 / 601 / near.shape[1])
    starts = np.arange(0, near.size + 1, near.shape[1])
    taken = csr_array((w.ravel(), near.ravel(), starts), (len(xyz), len(coarse))) @ coarse
    return over(taken + c * x, EPSILON)


def following(xyz: np.ndarray, level: Level, near: np.ndarray) -> np.ndarray:
    """(M, K) float32 w_mj: the share of the directions of centre j along which point m lies."""
    length = np.linalg.norm(level.D, axis=2, keepdims=True)
    axes = np.ascontiguousarray((level.D / np.maximum(length, 1e-9)).transpose(0, 2, 1))
    w = np.zeros(near.shape, np.float32)
    native = library()
    if native is not None:
        arrays = (np.ascontiguousarray(a) for a in (xyz, level.xyz, axes, level.P, near))
        kept = list(arrays)
        sizes = (ctypes.c_int64(n) for n in (*near.shape, len(AXES)))
        native.following(*map(address, kept), *sizes, ctypes.c_float(GAMMA), address(w))
        return w
    g = xyz[:, None] - level.xyz[near]
    g /= np.maximum(np.linalg.norm(g, axis=2, keepdims=True), 1e-9)
    for a in range(len(AXES)):
        cos = np.einsum("mkd,mkd->mk", g, axes[near, :, a])
        w += level.P[near, a] * (abs(cos) > GAMMA)
    return w


def over(x: np.ndarray, epsilon: float) -> np.ndarray:
    """Rows over their sum."""
    return x / (x.sum(-1, keepdims=True) + np.float32(epsilon))
