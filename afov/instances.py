"""The things of a sweep, one by one: class, points and oriented box."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from afov.vocabulary import Vocabulary

CLOSE = 0.05  # metres; points nearer than this to a side of a box lie on it
SAMPLE = 200  # points at most that choose between a box's directions


@dataclass(frozen=True)
class Box:
    """A box that is turned about z only.

    Attributes:
        center: (3,) float64, metres.
        size: (3,) float64, metres: along its length, across it, and up; length >= width.
        yaw: radians from x to its length, counter-clockwise, in [-pi/2, pi/2): which end is the
            front nobody can tell.
    """

    center: np.ndarray
    size: np.ndarray
    yaw: float

    @property
    def quaternion(self) -> tuple[float, float, float, float]:
        """Its turn as x y z w."""
        return 0.0, 0.0, float(np.sin(self.yaw / 2)), float(np.cos(self.yaw / 2))


@dataclass(frozen=True)
class Instance:
    """One thing in a sweep.

    Attributes:
        id: 1 and up; within the sweep, or over sweeps once it was tracked.
        class_id: of the vocabulary.
        score: mean probability of the class over its points.
        xyz: (M, 3) float32, its finite points, metres, LiDAR frame.
        velocity: (3,) float64, metres a second over ground, in the axes of the fixed frame; None
            where it is not known.
    """

    id: int
    class_id: int
    score: float
    xyz: np.ndarray
    velocity: np.ndarray | None = None

    @cached_property
    def centroid(self) -> np.ndarray:
        """(3,) float64, metres, LiDAR frame."""
        mean: np.ndarray = self.xyz.mean(0, dtype=np.float64)
        return mean

    @cached_property
    def box(self) -> Box:
        """The box around its points; computed when someone asks."""
        return fitted_box(self.xyz)


def instances(
    xyz: np.ndarray,
    class_id: np.ndarray,
    score: np.ndarray,
    instance_id: np.ndarray,
    vocabulary: Vocabulary,
) -> list[Instance]:
    """The things of a sweep, by id; its class is that of most of its points.

    An instance of no thing class (stuff, unlabelled, unknown) is none.

    Args:
        xyz: (N, 3) float32. class_id: (N,) uint8, of the vocabulary; ids that it lacks are unknown.
        score: (N,) float32. instance_id: (N,) uint16, 0 = none.
    """
    things = np.zeros(256, bool)
    things[1 : len(vocabulary.labelled) + 1] = [c.thing for c in vocabulary.labelled]
    rows = np.flatnonzero(instance_id)
    rows = rows[np.isfinite(xyz[rows]).all(1)]
    if not len(rows):
        return []
    rows = rows[np.argsort(instance_id[rows], kind="stable")]
    ids, starts = np.unique(instance_id[rows], return_index=True)
    found = []
    for name, points in zip(ids, np.split(rows, starts[1:]), strict=True):
        best = int(np.bincount(class_id[points]).argmax())
        if things[best]:
            sure = float(score[points][class_id[points] == best].mean())
            found.append(Instance(int(name), best, sure, xyz[points]))
    return found


def fitted_box(xyz: np.ndarray) -> Box:
    """The upright box around points that best follows their sides.

    A LiDAR sees two sides of a car, an L, and around an L the smallest rectangle may as well lie
    along its diagonal. So each edge of the convex hull gives a direction, and that rectangle is
    taken to whose sides the points lie closest (Zhang et al., Efficient L-Shape Fitting, IV 2017,
    criterion "closeness", over the hull's edges instead of fixed angles: the box then turns with
    the points).

    Args:
        xyz: (M, 3), finite, M >= 1, metres.
    """
    points = np.asarray(xyz, np.float64)
    middle = points.mean(0)  # far from the origin floats are coarse
    flat, z = points[:, :2] - middle[:2], points[:, 2]
    along = _directions(flat)
    step = -(-len(flat) // SAMPLE)
    # Rounded: of equals (every side of a triangle) the longest edge wins, whatever floats say.
    u = along[int(_closeness(flat[::step], along).round(3).argmax())]
    axes = np.stack((u, (-u[1], u[0])))
    low, high = (flat @ axes.T).min(0), (flat @ axes.T).max(0)
    if (high - low)[0] < (high - low)[1]:
        axes = np.stack((axes[1], -axes[0]))
        low, high = np.array((low[1], -high[0])), np.array((high[1], -low[0]))
    yaw = float(np.arctan2(axes[0, 1], axes[0, 0]))
    center = np.append(middle[:2] + (low + high) / 2 @ axes, (z.min() + z.max()) / 2)
    size = np.append(high - low, z.max() - z.min())
    return Box(center, size, (yaw + np.pi / 2) % np.pi - np.pi / 2)


def _directions(flat: np.ndarray) -> np.ndarray:
    """(D, 2) unit vectors along the edges of (M, 2) points' convex hull, of the longest first."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        corners = flat[ConvexHull(flat).vertices]
    except (QhullError, ValueError):  # fewer than three points, or all on a line
        corners = flat[[0, int(np.square(flat - flat[0]).sum(1).argmax())]]
    edges = np.roll(corners, -1, 0) - corners
    length = np.linalg.norm(edges, axis=1)
    order = np.argsort(-length, kind="stable")[: np.count_nonzero(length)]
    return edges[order] / length[order, None] if len(order) else np.array([[1.0, 0.0]])


def _closeness(flat: np.ndarray, along: np.ndarray) -> np.ndarray:
    """(D,) how closely (M, 2) points lie to the sides of the rectangle along each direction."""
    across = np.stack((-along[:, 1], along[:, 0]), 1)
    u, v = flat @ along.T, flat @ across.T  # (M, D)
    to_side = [np.minimum(c - c.min(0), c.max(0) - c) for c in (u, v)]
    closeness: np.ndarray = (1 / np.maximum(np.minimum(*to_side), CLOSE)).sum(0)
    return closeness
