"""Follow: which objects of a sweep are those of the sweeps before, by overlap in the world."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from afov.transforms import transform_points
from afov_train.clusters import extents

MARGIN = 0.5  # metres around each box: what a sensor sees of an object changes
OVERLAP = 0.1  # IoU of two boxes, at least
MEMORY = 1.0  # seconds without being seen
STEADY = 0.5  # share of the old velocity in the new one
MOST = 65_535  # ids; then they begin anew


@dataclass
class _Object:
    """box: (4,) low and high corner in the world's x y, metres; velocity (2,) m/s; stamp: ns."""

    number: int
    box: np.ndarray
    velocity: np.ndarray
    stamp: int

    def at(self, stamp: int) -> np.ndarray:
        """(4,) where the box is by then."""
        return self.box + np.tile(self.velocity, 2) * (stamp - self.stamp) / 1e9


@dataclass
class Followed:
    """The objects seen lately; `ids` is called sweep by sweep, in time order.

    Two sweeps' objects are the same where their boxes from above overlap most, after each has
    moved on at its velocity (one assignment for all of them). Without poses every sweep's objects
    are new ones.
    """

    objects: list[_Object] = field(default_factory=list)
    count: int = 0

    def ids(
        self, xyz: np.ndarray, instance_id: np.ndarray, world_from_lidar: np.ndarray, stamp: int
    ) -> np.ndarray:
        """(I + 1,) uint16: the lasting id of each of the sweep's instances; 0 stays 0.

        Args:
            xyz: (N, 3), metres, LiDAR frame. instance_id: (N,) from 0 (none) to I.
            world_from_lidar: (4, 4), NaN where it is not known. stamp: nanoseconds.
        """
        placed = bool(np.isfinite(world_from_lidar).all())
        boxes = _boxes(transform_points(world_from_lidar, xyz), instance_id) if placed else None
        number = np.zeros(int(instance_id.max(initial=0)) + 1, np.uint16)
        if boxes is None:
            self.objects = []
            number[1:] = [self._new() for _ in number[1:]]
            return number
        self.objects = [o for o in self.objects if 0 <= stamp - o.stamp <= MEMORY * 1e9]
        expected = np.array([o.at(stamp) for o in self.objects]).reshape(-1, 4)
        matched = dict(zip(*_assigned(boxes, expected), strict=True))
        for k, box in enumerate(boxes):
            if k in matched:
                known = self.objects[matched[k]]
                _move(known, box, stamp)
            else:
                known = _Object(self._new(), box, np.zeros(2), stamp)
                self.objects.append(known)
            number[k + 1] = known.number
        return number

    def _new(self) -> int:
        self.count += 1
        return 1 + (self.count - 1) % MOST


def _boxes(xyz: np.ndarray, instance_id: np.ndarray) -> np.ndarray:
    """(I, 4) float64: low x y and high x y of each instance, counted from 1, with a margin."""
    count = int(instance_id.max(initial=0))
    low, high = extents(xyz[:, :2], instance_id.astype(int) - 1, count)
    return np.concatenate((low - MARGIN, high + MARGIN), 1)


def _assigned(boxes: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows that overlap, together as much as can be."""
    from scipy.optimize import linear_sum_assignment

    low = np.maximum(boxes[:, None, :2], expected[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], expected[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    area, other = ((b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, expected))
    iou = shared / (area[:, None] + other - shared)
    i, j = linear_sum_assignment(-np.where(iou >= OVERLAP, iou, 0))
    kept = iou[i, j] >= OVERLAP
    return i[kept], j[kept]


def _move(known: _Object, box: np.ndarray, stamp: int) -> None:
    """The object is here now; its velocity follows slowly."""
    seconds = (stamp - known.stamp) / 1e9
    if seconds > 0:
        moved = (box - known.box).reshape(2, 2).mean(0) / seconds
        known.velocity = STEADY * known.velocity + (1 - STEADY) * moved
    known.box, known.stamp = box, stamp
