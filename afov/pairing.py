"""Point-pixel pairing: which point falls on which pixel (2405.15286, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from afov.frames import CameraImage

MIN_DEPTH = 1.0  # metres, as the official code


@dataclass(frozen=True)
class Pairs:
    """Points of a sweep that fall on pixels of one image.

    Attributes:
        point: (M,) int64, index into the sweep.
        row, col: (M,) int64, nearest pixel.
        depth: (M,) float64, metres along the optical axis.
    """

    point: np.ndarray
    row: np.ndarray
    col: np.ndarray
    depth: np.ndarray


def pair(
    xyz: np.ndarray, image: CameraImage, *, min_depth: float = MIN_DEPTH, occlusion: bool = False
) -> Pairs:
    """Pairs points with the pixels they project to.

    A point counts when its depth exceeds `min_depth` and 0 < u < W - 1, 0 < v < H - 1.

    Args:
        xyz: (N, 3) float32, metres, LiDAR frame; points that are not finite pair with nothing.
        occlusion: leave out points that a clearly nearer one hides.
    """
    turn, shift = image.camera_from_lidar[:3, :3], image.camera_from_lidar[:3, 3]
    with np.errstate(invalid="ignore", over="ignore"):
        local = xyz.astype(np.float64) @ turn.T + shift
        ahead = np.flatnonzero((local[:, 2] > min_depth) & np.isfinite(local).all(1))
        uv, depth = image.camera.project(local[ahead])
        u, v = uv.T
        inside = (u > 0) & (u < image.camera.width - 1) & (v > 0) & (v < image.camera.height - 1)
    inside = np.flatnonzero(inside)
    col, row = np.rint(uv[inside]).astype(np.int64).T
    pairs = Pairs(ahead[inside], row, col, depth[inside])
    return _visible(pairs, image) if occlusion else pairs


def _visible(pairs: Pairs, image: CameraImage) -> Pairs:
    """Pairs that no clearly nearer point hides.

    Neighbouring beams stand a degree or so apart, wider than a pixel, so the nearest depth is
    kept in cells of about that size and spread to the cells around.
    """
    focal = image.camera.K[0, 0]
    cell = max(1.0, np.deg2rad(0.9) * focal)
    height = int(image.camera.height / cell) + 3
    width = int(image.camera.width / cell) + 3
    r, c = (pairs.row / cell).astype(int) + 1, (pairs.col / cell).astype(int) + 1
    nearest = np.full((height, width), np.inf)
    np.minimum.at(nearest, (r, c), pairs.depth)
    around = nearest.copy()
    # Only up and down, and only where both sides are nearer: a surface, not an edge beside.
    above, below = nearest[:-2, 1:-1], nearest[2:, 1:-1]
    left, right = nearest[1:-1, :-2], nearest[1:-1, 2:]
    between = np.minimum(np.maximum(above, below), np.maximum(left, right))
    around[1:-1, 1:-1] = np.minimum(around[1:-1, 1:-1], between)
    hidden = pairs.depth > around[r, c] + np.maximum(0.7, 0.06 * pairs.depth)
    seen = ~hidden
    return Pairs(pairs.point[seen], pairs.row[seen], pairs.col[seen], pairs.depth[seen])
