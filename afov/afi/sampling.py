"""Farthest-point sampling, exact, looking only at the cells that a new sample can change."""

from __future__ import annotations

import numpy as np

CELL = 4.0  # metres; decides the speed, never the result


def farthest_points(xyz: np.ndarray, count: int) -> np.ndarray:
    """Each sample is the point farthest from those before; the first is point 0.

    A new sample's distance to the nearest older one bounds every point's, so only points nearer
    to it than that can change. Points within 3 cm of the origin are never chosen (2405.15286,
    official code): they are padding there.

    Args:
        xyz: (N, 3) float32, metres.

    Returns:
        (min(count, N),) int64; of equally far points the first.
    """
    count = min(count, len(xyz))
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
    """(M, min(count, N)) int64, for each query its nearest points, nearest first; exact."""
    from scipy.spatial import cKDTree

    count = min(count, len(points))
    found = cKDTree(points).query(queries, np.arange(1, count + 1), workers=2)[1]
    return np.asarray(found)
