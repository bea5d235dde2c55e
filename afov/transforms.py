"""Transforms: a tree of coordinate frames, static and timed (REP 105), and rigid motion."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

import numpy as np

from afov.errors import InputError

# A pose may be asked for this long after (or before) the last one known: the newest sweep is
# often a few milliseconds ahead of the newest transform.
SLACK_NS = 100_000_000


def transform_points(matrix: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """(N, 3) points by a (4, 4) rigid matrix, in float64."""
    return xyz.astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a rigid (4, 4) matrix."""
    result = np.eye(4)
    result[:3, :3] = matrix[:3, :3].T
    result[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return result


def matrix_from(
    rotation: np.ndarray, translation: np.ndarray, where: str = "transform"
) -> np.ndarray:
    """(4, 4) float64 from a quaternion x y z w (as ROS orders it) and a translation in metres.

    Raises:
        InputError: numbers that are not finite, or a quaternion of zero length.
    """
    q, t = np.asarray(rotation, np.float64), np.asarray(translation, np.float64)
    length = np.linalg.norm(q)
    if q.shape != (4,) or t.shape != (3,) or not (np.isfinite(t).all() and 1e-6 < length < 1e6):
        raise InputError(
            f"{where}: rotation {q.tolist()} (x y z w), translation {t.tolist()}: expected a "
            "quaternion of length 1 and three finite metres"
        )
    x, y, z, w = q / length
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = t
    return matrix


def quaternion_from(matrix: np.ndarray) -> np.ndarray:
    """(4,) float64 unit quaternion x y z w, w >= 0, of a rotation or rigid matrix."""
    m = matrix[:3, :3]
    # Shepperd: start from the largest of the four, which is never near zero.
    squares = np.array([m[0, 0], m[1, 1], m[2, 2], np.trace(m)])
    i = int(np.argmax(squares))
    q = np.empty(4)
    if i == 3:
        q[:] = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 1 + squares[3]
    else:
        j, k = (i + 1) % 3, (i + 2) % 3
        q[i] = 1 + m[i, i] - m[j, j] - m[k, k]
        q[j], q[k] = m[j, i] + m[i, j], m[k, i] + m[i, k]
        q[3] = m[k, j] - m[j, k]
    q /= np.linalg.norm(q)
    return -q if q[3] < 0 else q


def interpolate(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """Between two rigid matrices: translation along the line, rotation along the great circle."""
    p, q = quaternion_from(a), quaternion_from(b)
    cosine = float(p @ q)
    if cosine < 0:
        q, cosine = -q, -cosine
    angle = np.arccos(min(cosine, 1.0))
    if angle < 1e-6:
        mixed = (1 - share) * p + share * q
    else:
        mixed = np.sin((1 - share) * angle) * p + np.sin(share * angle) * q
    return matrix_from(mixed, (1 - share) * a[:3, 3] + share * b[:3, 3])


@dataclass
class _Edge:
    """A child frame in its parent: one matrix (static), or matrices by time."""

    parent: str
    static: bool
    stamps: list[int] = field(default_factory=list)
    matrices: list[np.ndarray] = field(default_factory=list)

    def at(self, stamp: int, child: str) -> np.ndarray:
        if self.static:
            return self.matrices[0]
        first, last = self.stamps[0], self.stamps[-1]
        if not first - SLACK_NS <= stamp <= last + SLACK_NS:
            raise InputError(
                f"transform {self.parent} -> {child}: asked for at {stamp / 1e9:.3f} s, known from "
                f"{first / 1e9:.3f} to {last / 1e9:.3f} s"
            )
        right = bisect.bisect_left(self.stamps, stamp)
        if right == 0 or right == len(self.stamps):
            return self.matrices[min(right, len(self.stamps) - 1)]
        before, after = self.stamps[right - 1], self.stamps[right]
        share = (stamp - before) / (after - before)
        return interpolate(self.matrices[right - 1], self.matrices[right], share)

    def forget_before(self, stamp: int) -> None:
        """But for the last one, which `stamp` still needs."""
        keep = max(bisect.bisect_right(self.stamps, stamp) - 1, 0)
        del self.stamps[:keep], self.matrices[:keep]


class TransformTree:
    """Coordinate frames and how they stand in each other, over time.

    Names may begin with a slash, as in ROS 1; it makes no difference. Within the buffer, poses are
    interpolated; up to 0.1 s beyond either end the nearest one holds, and further out none does.
    """

    def __init__(self) -> None:
        self._edges: dict[str, _Edge] = {}

    def add_static(self, parent: str, child: str, matrix: np.ndarray) -> None:
        """Sets `child` in `parent` for all time; (4, 4), takes child coordinates to parent's."""
        parent, child = _bare(parent), _bare(child)
        self._check(parent, child)
        self._edges[child] = _Edge(parent, True, [0], [matrix])

    def add(self, parent: str, child: str, stamp: int, matrix: np.ndarray) -> None:
        """Adds the pose of `child` in `parent` at `stamp` (nanoseconds), in any order."""
        parent, child = _bare(parent), _bare(child)
        edge = self._edges.get(child)
        if edge is None or edge.static or edge.parent != parent:
            self._check(parent, child)
            edge = self._edges[child] = _Edge(parent, False)
        place = bisect.bisect_left(edge.stamps, stamp)
        if place < len(edge.stamps) and edge.stamps[place] == stamp:
            edge.matrices[place] = matrix
        else:
            edge.stamps.insert(place, stamp)
            edge.matrices.insert(place, matrix)

    def forget_before(self, stamp: int) -> None:
        """Drops poses older than `stamp`, but for the last one, which `stamp` still needs."""
        for edge in self._edges.values():
            if not edge.static:
                edge.forget_before(stamp)

    def keep_near(self, child: str, stamp: int, span: int) -> None:
        """Of a timed `child`, drops poses more than `span` before or after `stamp`.

        The last one before is kept: the span's beginning still needs it.
        """
        edge = self._edges[_bare(child)]
        edge.forget_before(stamp - span)
        last = bisect.bisect_right(edge.stamps, stamp + span)
        del edge.stamps[last:], edge.matrices[last:]

    def forget_timed(self) -> None:
        """Drops every timed pose; what holds for all time stays."""
        self._edges = {child: edge for child, edge in self._edges.items() if edge.static}

    @property
    def children(self) -> tuple[str, ...]:
        """Frames that have a parent."""
        return tuple(self._edges)

    @property
    def frames(self) -> tuple[str, ...]:
        """Every frame that was named, sorted."""
        return tuple(sorted({*self._edges, *(e.parent for e in self._edges.values())}))

    def knows(self, frame: str) -> bool:
        """Whether the frame was named."""
        frame = _bare(frame)
        return frame in self._edges or any(e.parent == frame for e in self._edges.values())

    def root(self, frame: str) -> str:
        """The top of the tree that `frame` hangs in: map, odom or base_link (REP 105)."""
        return self._path(frame)[-1]

    def moves(self, frame: str) -> bool:
        """Whether any transform between `frame` and its root is timed."""
        return any(not self._edges[f].static for f in self._path(frame)[:-1])

    def lookup(
        self,
        target: str,
        source: str,
        stamp: int,
        *,
        source_stamp: int | None = None,
        fixed: str | None = None,
    ) -> np.ndarray:
        """The matrix that takes `source` coordinates to `target` coordinates.

        Args:
            stamp: nanoseconds, for `target`, and for `source` unless `source_stamp` is given.
            source_stamp: the time of `source`, when it differs.
            fixed: a frame that stands still between the two times; by default the root.

        Returns:
            (4, 4) float64.

        Raises:
            InputError: a frame that does not exist, two frames that are not connected, or a time
                that no transform covers; it lists the frames that exist.
        """
        target, source = _bare(target), _bare(source)
        up_target, up_source = self._path(target), self._path(source)
        if fixed is None:
            common = [f for f in up_source if f in up_target]
            if not common:
                raise InputError(
                    f"frames {target!r} and {source!r} are not connected; frames: {self._listed()}"
                )
            same_time = source_stamp is None or source_stamp == stamp
            fixed = common[0] if same_time else common[-1]
        elif (fixed := _bare(fixed)) not in up_target or fixed not in up_source:
            raise InputError(
                f"fixed frame {fixed!r} is not above both {target!r} and {source!r}; "
                f"frames: {self._listed()}"
            )
        at_source = stamp if source_stamp is None else source_stamp
        return inverse(self._up(target, fixed, stamp)) @ self._up(source, fixed, at_source)

    def _up(self, frame: str, top: str, stamp: int) -> np.ndarray:
        matrix = np.eye(4)
        while frame != top:
            edge = self._edges[frame]
            matrix = edge.at(stamp, frame) @ matrix
            frame = edge.parent
        return matrix

    def _path(self, frame: str) -> list[str]:
        frame = _bare(frame)
        if not self.knows(frame):
            raise InputError(f"no frame {frame!r} in the transforms; frames: {self._listed()}")
        path = [frame]
        while path[-1] in self._edges:
            path.append(self._edges[path[-1]].parent)
        return path

    def _check(self, parent: str, child: str) -> None:
        """A child must not become its own ancestor."""
        frame: str | None = parent
        while frame is not None:
            if frame == child:
                raise InputError(f"transform {parent!r} -> {child!r} closes a loop of frames")
            edge = self._edges.get(frame)
            frame = edge.parent if edge else None

    def _listed(self) -> str:
        return ", ".join(self.frames) or "none at all"


def _bare(frame: str) -> str:
    return frame.lstrip("/")
