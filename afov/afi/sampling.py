"""Farthest-point sampling and nearest neighbours, both exact."""

from __future__ import annotations

import ctypes

import numpy as np

from afov.native import address, library

CELL = 4.0  # metres; decides the speed, never the result


def farthest_points(xyz: np.ndarray, count: int) -> np.ndarray:
    """Each sample is the point farthest from those before; the first is point 0.

    The first n of many samples are the n samples, so that one call serves all levels. Points
    within 3 cm of the origin are never chosen (2405.15286, official code): they are padding there.

    Args:
        xyz: (N, 3) float32, metres.

    Returns:
        (min(count, N),) int64; of equally far points the first.
    """
    count = min(count, len(xyz))
    if not count:
        return np.empty(0, np.int64)
    native = library()
    if native is None:
        return _farthest_points(xyz, count)
    xyz = np.ascontiguousarray(xyz, np.float32)
    chosen = np.empty(count, np.int64)
    native.farthest_points(
        address(xyz), ctypes.c_int64(len(xyz)), ctypes.c_int64(count), address(chosen)
    )
    return chosen


def _farthest_points(xyz: np.ndarray, count: int) -> np.ndarray:
    """The same in NumPy: only cells nearer to the new sample than their farthest point change."""
    cells, order = np.unique(np.floor(xyz / CELL).astype(np.int64), axis=0, return_inverse=True)
    by_cell = np.argsort(order.ravel(), kind="stable")
    bounds = np.searchsorted(order.ravel()[by_cell], np.arange(len(cells) + 1))
    points = xyz[by_cell]
    low = np.minimum.reduceat(points, bounds[:-1])
    high = np.maximum.reduceat(points, bounds[:-1])
    far = np.where((points * points).sum(1) > 1e-3, np.float32(np.inf), np.float32(-1))
    best = np.maximum.reduceat(far, bounds[:-1])
    chosen = np.zeros(count, np.int64)
    center = xyz[0]
    for i in range(1, count):
        gap = np.maximum(np.maximum(low - center, center - high), 0)
        for cell in np.flatnonzero((gap * gap).sum(1) < best):
            part = slice(bounds[cell], bounds[cell + 1])
            offset = points[part] - center
            np.minimum(far[part], np.einsum("nk,nk->n", offset, offset), out=far[part])
            best[cell] = far[part].max()
        top = np.flatnonzero(best == best.max())
        places = [bounds[c] + int(far[bounds[c] : bounds[c + 1]].argmax()) for c in top]
        chosen[i] = min(by_cell[p] for p in places)
        center = xyz[chosen[i]]
    return chosen


def nearest(points: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    """(M, min(count, N)) int64, for each query its nearest points, nearest first; exact.

    Args:
        points: (N, 3) float32; queries: (M, 3) float32; metres.
    """
    count = min(count, len(points))
    if not count:
        return np.empty((len(queries), 0), np.int64)
    native = library()
    if native is None:
        return _nearest(points, queries, count)
    points, queries = (np.ascontiguousarray(a, np.float32) for a in (points, queries))
    found = np.empty((len(queries), count), np.int64)
    sizes = (ctypes.c_int64(n) for n in (len(queries), count))
    native.nearest(
        address(points), ctypes.c_int64(len(points)), address(queries), *sizes, address(found)
    )
    return found


def _nearest(points: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    """The same with SciPy."""
    from scipy.spatial import cKDTree

    found = cKDTree(points).query(queries, np.arange(1, count + 1))[1]
    return np.asarray(found, np.int64)
