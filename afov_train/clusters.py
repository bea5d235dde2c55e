"""Density clusters of points (DBSCAN, Ester et al. 1996), on scipy's tree."""

from __future__ import annotations

import numpy as np

NOISE = -1


def dbscan(xyz: np.ndarray, radius: float, least: int = 1) -> np.ndarray:
    """Which cluster each point belongs to.

    A point with `least` points within the radius, itself among them, is a core point; core points
    within the radius of one another are one cluster. Other points belong to the cluster of their
    nearest core point within the radius.

    Args:
        xyz: (N, 3) finite, in the unit of `radius`.

    Returns:
        (N,) int64, counted from 0; -1 where no core point is near.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    count = len(xyz)
    cluster = np.full(count, NOISE, np.int64)
    if not count:
        return cluster
    tree = cKDTree(xyz)
    a, b = tree.query_pairs(radius, output_type="ndarray").T
    near = 1 + np.bincount(a, minlength=count) + np.bincount(b, minlength=count)
    core = near >= least
    joined = core[a] & core[b]
    links = coo_array((np.ones(joined.sum()), (a[joined], b[joined])), (count, count))
    _, component = connected_components(links, directed=False)
    cores = np.flatnonzero(core)
    cluster[cores] = np.unique(component[cores], return_inverse=True)[1]
    others = np.flatnonzero(~core)
    if len(cores) and len(others):
        # Ending a hair beyond the radius: the tree leaves out what lies just at its bound.
        reach = np.nextafter(radius, np.inf)
        _, at = cKDTree(xyz[cores]).query(xyz[others], distance_upper_bound=reach)
        cluster[others] = np.append(cluster[cores], NOISE)[at]
    return cluster


def extents(xy: np.ndarray, cluster: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, D) float64: the lowest and the highest coordinates in each cluster.

    Args:
        xy: (N, D). cluster: (N,) int, below count; -1 is left out.
    """
    low = np.full((count, xy.shape[1]), np.inf)
    high, some = -low, cluster >= 0
    np.minimum.at(low, cluster[some], xy[some])
    np.maximum.at(high, cluster[some], xy[some])
    return low, high
