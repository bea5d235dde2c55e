"""Point-pixel pairing: which point falls on which pixel (2405.15286, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from afov.cameras import Camera
from afov.errors import InputError
from afov.frames import CameraImage
from afov.native import call, library

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
    xyz = np.ascontiguousarray(xyz, np.float64)
    # The compiled form has every lens but the fisheye.
    built = library() is not None and image.camera.distortion_model != "equidistant"
    pairs = (_compiled if built else _pair)(xyz, image, min_depth)
    return _visible(pairs, image.camera) if occlusion else pairs


def _pair(xyz: np.ndarray, image: CameraImage, min_depth: float) -> Pairs:
    x, y, z = xyz.T
    with np.errstate(invalid="ignore", over="ignore"):
        # One by one: the order of a matrix product is the library's own.
        rows = [x * a + y * b + z * c + d for a, b, c, d in image.camera_from_lidar[:3]]
        local = np.stack(rows, 1)
        ahead = np.flatnonzero((local[:, 2] > min_depth) & np.isfinite(local).all(1))
        uv, depth = image.camera.project(local[ahead])
        u, v = uv.T
        inside = (u > 0) & (u < image.camera.width - 1) & (v > 0) & (v < image.camera.height - 1)
    inside = np.flatnonzero(inside)
    col, row = np.rint(uv[inside]).astype(np.int64).T
    return Pairs(ahead[inside], row, col, depth[inside])


def _compiled(xyz: np.ndarray, image: CameraImage, min_depth: float) -> Pairs:
    camera = image.camera
    pose, K = (np.ascontiguousarray(m, np.float64) for m in (image.camera_from_lidar, camera.K))
    limits = np.array([min_depth, camera.width, camera.height, camera.valid_radius**2])
    point, row, col = np.empty((3, len(xyz)), np.int64)
    depth = np.empty(len(xyz))
    lens = camera.coefficients if camera.D.any() else None
    found = call("pair_points", xyz, len(xyz), pose, K, lens, limits, point, row, col, depth)
    return Pairs(point[:found], row[:found], col[:found], depth[:found])


def pair_images(
    xyz: np.ndarray, images: Sequence[CameraImage], *, occlusion: bool = False
) -> tuple[list[Pairs], np.ndarray]:
    """The pairs of every image, and (N,) bool: the points that fall on any, hidden or not."""
    xyz = np.ascontiguousarray(xyz, np.float64)
    covered, found = np.zeros(len(xyz), bool), []
    for image in images:
        pairs = pair(xyz, image)
        covered[pairs.point] = True
        found.append(_visible(pairs, image.camera) if occlusion else pairs)
    return found, covered


def transfer(
    xyz: np.ndarray,
    images: Sequence[CameraImage],
    label_maps: Sequence[np.ndarray],
    *,
    none: int = 0,
    occlusion: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Carries labels from pixels to points (2405.15286, official code).

    Args:
        label_maps: per image (H, W) integers, `none` where a pixel has no label.
        occlusion: points that a clearly nearer one hides take no label, but count as covered.

    Returns:
        (N,) int32 labels, `none` where no camera has one for the point; (N,) bool, whether the
        point falls on any image.

    Raises:
        InputError: a map of another size than its camera.
    """
    pairs, covered = pair_images(xyz, images, occlusion=occlusion)
    return carry(len(xyz), images, pairs, label_maps, none), covered


def carry(
    points: int,
    images: Sequence[CameraImage],
    pairs: Sequence[Pairs],
    label_maps: Sequence[np.ndarray],
    none: int,
) -> np.ndarray:
    """`transfer` for pairs that are known: (points,) int32.

    A point that two cameras see takes the later one's label; pixels without one never overwrite.
    """
    labels = np.full(points, none, np.int32)
    for image, found, label_map in zip(images, pairs, label_maps, strict=True):
        size = (image.camera.height, image.camera.width)
        if label_map.shape != size:
            raise InputError(
                f"{image.name}: labels of {label_map.shape} rows and columns, the camera has {size}"
            )
        label = label_map[found.row, found.col]
        labels[found.point[label != none]] = label[label != none]
    return labels


# The depth buffer of the occlusion test. Cells are finer than the gap between two rings of a
# 32-beam sensor (1.3 degrees, about five cells), so gaps that a near surface leaves between its
# rings are closed, and the surface is grown by one cell on every side, because it ends somewhere
# between its last return and the first one that misses it.
CELL = np.deg2rad(0.3)
CLOSED, GROWN = 7, 1  # cells


def _visible(pairs: Pairs, camera: Camera) -> Pairs:
    """Pairs that no clearly nearer point hides: more than 0.5 m and 5% of the depth."""
    cell = max(1.0, CELL * camera.K[0, 0])
    row, col = (pairs.row / cell).astype(np.int64), (pairs.col / cell).astype(np.int64)
    nearest = np.full((int(camera.height / cell) + 1, int(camera.width / cell) + 1), np.inf)
    np.minimum.at(nearest, (row, col), pairs.depth)
    nearest = _slide(np.minimum, nearest, CLOSED, axis=0, beyond=np.inf)
    nearest = _slide(np.maximum, nearest, CLOSED - 2 * GROWN, axis=0, beyond=-np.inf)
    nearest = _slide(np.minimum, nearest, 1 + 2 * GROWN, axis=1, beyond=np.inf)
    seen = pairs.depth <= nearest[row, col] + np.maximum(0.5, 0.05 * pairs.depth)
    return Pairs(pairs.point[seen], pairs.row[seen], pairs.col[seen], pairs.depth[seen])


def _slide(of: np.ufunc, grid: np.ndarray, cells: int, *, axis: int, beyond: float) -> np.ndarray:
    """Minimum or maximum over an odd number of cells around each, along one axis."""
    margin = [(0, 0), (0, 0)]
    margin[axis] = (cells // 2, cells // 2)
    wide = np.pad(grid, margin, constant_values=beyond)
    if axis:
        wide = wide.T
    # Whole rows at a time: a window for each cell takes five times as long.
    count = grid.shape[axis]
    found: np.ndarray = reduce(of, (wide[i : i + count] for i in range(cells)))
    return found.T if axis else found
