"""Things over time: the same id from sweep to sweep, and how fast each one moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from afov.frames import Sweep
from afov.instances import Instance, instances
from afov.labelled import published_ids
from afov.student import Labels
from afov.transforms import interpolate, inverse, transform_points
from afov.vocabulary import Vocabulary

WANDER = 0.3, 0.05  # metres, and per metre of extent: what is seen of a thing moves its centroid
SPEED = 4.0, 2.0, 15.0  # metres a second per metre of extent, least, most: fast things are long
PUSH = 5.0  # metres a second squared; how hard things brake and turn
GATE = 4.0  # standard deviations from where a thing was expected
REACH = 5.0  # metres; no thing is found again farther from where it was expected
OTHER_CLASS = 9.0  # squared standard deviations that a change of class weighs
UNSEEN = 10  # sweeps that an id outlives its thing
LAST_ID = 65535
JUMP_NS = 10**9  # a stamp that lies this far before the last one: a recording began anew


@dataclass
class _Track:
    """A thing, in the fixed frame. One Kalman filter of constant velocity for x, y and z alike.

    Attributes:
        position: (3,) metres; velocity: (3,) metres a second.
        covariance: (2, 2) of position and velocity along any axis.
    """

    id: int
    class_id: int
    position: np.ndarray
    velocity: np.ndarray
    covariance: np.ndarray
    seen: int = 1
    unseen: int = 0

    def predict(self, seconds: float) -> None:
        step = np.array([[1, seconds], [0, 1]])
        push = PUSH * np.array([seconds**2 / 2, seconds])
        self.position = self.position + seconds * self.velocity
        self.covariance = step @ self.covariance @ step.T + np.outer(push, push)

    def correct(self, position: np.ndarray, wander: float, class_id: int) -> None:
        gain = self.covariance[:, 0] / (self.covariance[0, 0] + wander**2)
        off = position - self.position
        self.position = self.position + gain[0] * off
        self.velocity = self.velocity + gain[1] * off
        self.covariance = self.covariance - np.outer(gain, self.covariance[0])
        self.class_id, self.seen, self.unseen = class_id, self.seen + 1, 0


class Tracker:
    """Gives each thing an id that it keeps.

    Things are expected where constant velocity brings them; those found are assigned to those
    expected by the least sum of squared Mahalanobis distances (Hungarian). What is not found for a
    few sweeps loses its id. Where a pose is missing the vehicle is taken to go on as it did, for as
    long; without poses nothing stands still, and there are no velocities.
    """

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._stamp: int | None = None
        self._pose: np.ndarray | None = None
        self._motion = np.eye(4), 1.0  # of the vehicle, and the seconds that it took
        self._guessed = 0
        self._last_id = 0

    def update(
        self, stamp: int, found: Sequence[Instance], world_from_lidar: np.ndarray | None
    ) -> list[Instance]:
        """The things of the next sweep under their lasting ids, in the order given.

        Args:
            stamp: nanoseconds; one that jumps back by more than a second begins anew, one that is
                a little earlier (a clock that was set, sweeps out of order) counts as the same, as
                does 0, which a driver sends when it does not know.
            world_from_lidar: (4, 4), to a frame that stands still; None where nobody knows, and
                then the vehicle's own motion is taken for the things'.
        """
        stamp = stamp or self._stamp or 0
        if self._stamp is not None and stamp < self._stamp - JUMP_NS:
            self._tracks, self._pose, self._stamp = [], None, None
        seconds = 0.0 if self._stamp is None else max(0, stamp - self._stamp) / 1e9
        self._stamp, pose = stamp, self._place(world_from_lidar, seconds)
        for track in self._tracks:
            track.predict(seconds)
            track.unseen += 1
        positions = np.array([i.centroid for i in found]).reshape(-1, 3)
        if pose is not None:
            positions = transform_points(pose, positions)
        extents = np.array([np.linalg.norm(np.ptp(i.xyz[:, :2], axis=0)) for i in found])
        wander = WANDER[0] + WANDER[1] * extents
        matched = dict(self._matches(found, positions, wander))
        tracked = []
        for i, (instance, position) in enumerate(zip(found, positions, strict=True)):
            if i in matched:
                track = matched[i]
                track.correct(position, wander[i], instance.class_id)
            else:
                speed = float(np.clip(SPEED[0] * extents[i], *SPEED[1:]))
                track = self._begin(instance, position, np.diag([wander[i] ** 2, speed**2]))
            known = world_from_lidar is not None and track.seen > 1
            velocity = track.velocity if known else None
            tracked.append(replace(instance, id=track.id, velocity=velocity))
        self._tracks = [t for t in self._tracks if t.unseen <= UNSEEN]
        return tracked

    def _place(self, pose: np.ndarray | None, seconds: float) -> np.ndarray | None:
        """Where the LiDAR is, as far as anyone knows; another frame is another world."""
        if pose is None and self._pose is not None and self._guessed < UNSEEN:
            self._guessed += 1
            motion, took = self._motion
            self._pose = self._pose @ interpolate(np.eye(4), motion, seconds / took)
            return self._pose
        if (pose is None) != (self._pose is None):
            self._tracks = []
        elif pose is not None and self._pose is not None and seconds and not self._guessed:
            self._motion = inverse(self._pose) @ pose, seconds
        self._pose, self._guessed = pose, 0
        return pose

    def _matches(
        self, found: Sequence[Instance], positions: np.ndarray, wander: np.ndarray
    ) -> list[tuple[int, _Track]]:
        """(index into `found`, track) of every pair that is near enough."""
        from scipy.optimize import linear_sum_assignment

        if not len(found) or not self._tracks:
            return []
        expected = np.array([t.position for t in self._tracks])
        unsure = np.array([t.covariance[0, 0] for t in self._tracks])
        spread = np.add.outer(wander**2, unsure)
        square = np.square(positions[:, None] - expected).sum(2)
        near = (square <= GATE**2 * spread) & (square <= REACH**2)
        other = np.not_equal.outer([i.class_id for i in found], [t.class_id for t in self._tracks])
        # The logarithm keeps a thing of which little is known from being near to everything.
        cost = square / spread + 3 * np.log(unsure) + OTHER_CLASS * other
        cost = np.where(near, cost, GATE**2)
        pairs = zip(*linear_sum_assignment(cost), strict=True)
        return [(int(i), self._tracks[j]) for i, j in pairs if near[i, j]]

    def _begin(self, instance: Instance, position: np.ndarray, covariance: np.ndarray) -> _Track:
        alive = {t.id for t in self._tracks}
        self._last_id = self._last_id % LAST_ID + 1
        while self._last_id in alive:
            self._last_id = self._last_id % LAST_ID + 1
        track = _Track(self._last_id, instance.class_id, position, np.zeros(3), covariance)
        self._tracks.append(track)
        return track


def lasting_ids(
    instance_id: np.ndarray, found: Sequence[Instance], tracked: Sequence[Instance]
) -> np.ndarray:
    """(N,) uint16: ids within a sweep become those of the tracked things; 0 where there is none.

    Args:
        instance_id: (N,) uint16. found: the sweep's things; tracked: the same under lasting ids.
    """
    table = np.zeros(int(instance_id.max(initial=0)) + 1, np.uint16)
    for before, after in zip(found, tracked, strict=True):
        table[before.id] = after.id
    return table[instance_id]


def follow(
    tracker: Tracker,
    sweep: Sweep,
    labels: Labels,
    vocabulary: Vocabulary,
    threshold: float,
    world_from_lidar: np.ndarray | None,
) -> tuple[Labels, list[Instance]]:
    """A panoptic sweep's labels with ids that last, and its things under these.

    Args:
        labels: with `instance_id`; points below `threshold` belong to no class.
        world_from_lidar: as `Tracker.update`.
    """
    assert labels.instance_id is not None
    ids = published_ids(labels, threshold)
    found = instances(sweep.xyz, ids, labels.score, labels.instance_id, vocabulary)
    tracked = tracker.update(sweep.stamp, found, world_from_lidar)
    return replace(labels, instance_id=lasting_ids(labels.instance_id, found, tracked)), tracked
