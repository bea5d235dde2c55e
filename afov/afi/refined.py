"""AFI, refined: labels travel along locally flat directions, and nowhere else.

The published AFI lets unlabelled points vote, erases small objects and damages correct labels.
Here the idea is kept and three things change: what travels is the network's probabilities, so
that unlabelled points carry nothing; two places exchange only if each lies on the other's plane;
and a point takes part only as far as it lies on the plane of its own place, so that a cone on the
road stays a cone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from afov.afi.sampling import nearest


@dataclass(frozen=True)
class RefinedConfig:
    """How far labels travel, and what stops them."""

    place: float = 0.5
    """Metres, side of a place up to 10 m from the sensor; twice that up to 20 m, and so on, as
    the gaps between the rings grow."""
    neighbours: int = 12
    steps: int = 30
    """Exchanges between neighbouring places: the reach grows with the square root."""
    flat: float = 0.04
    """Sine of the angle by which a neighbour may leave the plane (about 2.3 degrees)."""
    turn: float = 0.03
    """1 - cosine between the normals of two places (about 14 degrees)."""
    thick: float = 0.1
    """Metres between a point and its place's plane."""
    doubt: float = 0.1
    """Added to the network's probabilities: a point that is sure of its class gives it up when
    another is 1 + 1 / doubt times as likely around it."""


# For labels without probabilities: errors come in whole patches and nothing says how sure they are.
HARD = RefinedConfig(steps=100, thick=0.07, doubt=0.25)


@dataclass(frozen=True)
class Places:
    """Cells of space that hold points, and the plane of each.

    Attributes:
        center: (P, 3) float32. normal: (P, 3) float32. inverse: (N,) int64, each point's place.
        near: (P, K) int64, neighbouring places, each place itself first.
    """

    center: np.ndarray
    normal: np.ndarray
    inverse: np.ndarray
    near: np.ndarray


def refine(
    xyz: np.ndarray, probabilities: np.ndarray, config: RefinedConfig | None = None
) -> np.ndarray:
    """Corrects the class probabilities of one sweep.

    Args:
        xyz: (N, 3) float32, metres, LiDAR frame.
        probabilities: (N, C), rows sum to 1; zeros where a point has no label.

    Returns:
        (N, C) float32; rows sum to 1, or are zero where no label came by. Points that are not
        finite keep theirs.
    """
    config = config or RefinedConfig()
    p = np.asarray(probabilities, np.float32)
    result = p.copy()
    finite = np.flatnonzero(np.isfinite(xyz).all(1) & (np.abs(xyz) < 1e4).all(1))
    if not len(finite):
        return result
    xyz, p = np.ascontiguousarray(xyz[finite], np.float32), p[finite]
    places = cut(xyz, config)
    around = travel(places, p, config)[places.inverse]
    height = ((xyz - places.center[places.inverse]) * places.normal[places.inverse]).sum(1)
    trust = np.exp(-((height / config.thick) ** 2))[:, None]
    labelled = p.sum(1, keepdims=True) > 0
    context = trust * around + (1 - trust) * np.where(labelled, p, around)
    score = context * (p + config.doubt)
    # Where nothing came by, what the network said stands.
    score = np.where(score.sum(1, keepdims=True) > 0, score, p)
    result[finite] = score / np.maximum(score.sum(1, keepdims=True), 1e-12)
    return result


def cut(xyz: np.ndarray, config: RefinedConfig) -> Places:
    """Cuts a sweep into places and fits a plane to each from the places around it."""
    distance = np.linalg.norm(xyz[:, :2], axis=1)
    level = np.clip(np.rint(np.log2(np.maximum(distance / 10, 1))), 0, 3).astype(np.int64)
    cell = np.floor(xyz / (config.place * 2.0**level)[:, None]).astype(np.int64) + (1 << 18)
    key = ((cell[:, 0] << 40) | (cell[:, 1] << 21) | (cell[:, 2] << 2)) + level
    _, inverse, count = np.unique(key, return_inverse=True, return_counts=True)
    sums = [np.bincount(inverse, xyz[:, k]) for k in range(3)]
    center = (np.stack(sums, 1) / count[:, None]).astype(np.float32)
    near = nearest(center, center, config.neighbours + 1)
    offset = center[near] - center[near].mean(1, keepdims=True)
    _, axes = np.linalg.eigh(offset.transpose(0, 2, 1) @ offset)
    return Places(center, np.ascontiguousarray(axes[:, :, 0]), inverse, near)


def flatness(places: Places, config: RefinedConfig) -> np.ndarray:
    """(P, K) float32: 1 where two places lie on each other's plane, falling to 0."""
    offset = places.center[places.near] - places.center[:, None]
    unit = offset / np.maximum(np.linalg.norm(offset, axis=2, keepdims=True), 1e-6)
    here, there = places.normal[:, None], places.normal[places.near]
    leaves_here, leaves_there = (unit * here).sum(2), (unit * there).sum(2)
    turn = 1 - np.abs((here * there).sum(2))
    return np.exp(
        -((leaves_here / config.flat) ** 2)
        - (leaves_there / config.flat) ** 2
        - (turn / config.turn) ** 2
    )


def travel(places: Places, p: np.ndarray, config: RefinedConfig) -> np.ndarray:
    """(P, C): the mean label around each place, after so many exchanges along flat directions."""
    from scipy.sparse import csr_array

    count = len(places.center)
    weight = flatness(places, config)
    weight[places.near == np.arange(count)[:, None]] = 0
    starts = np.arange(0, weight.size + 1, weight.shape[1])
    links = csr_array((weight.ravel(), places.near.ravel(), starts), (count, count))
    links = links + links.T
    points = np.bincount(places.inverse, minlength=count)
    member = csr_array((1 / points[places.inverse], (places.inverse, np.arange(len(p)))))
    x = (member @ p).astype(np.float32)
    given = (1 / (links.sum(1) + 1)).astype(np.float32)[:, None]
    links = (links * given).tocsr().astype(np.float32)
    for _ in range(config.steps):
        x = links @ x + given * x
    return x / np.maximum(x.sum(1, keepdims=True), 1e-12)
