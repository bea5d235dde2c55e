"""Masks of things made whole and single before they are merged (ours; 2401.02402 has neither).

A query may outline two cars at once, and two queries may outline the same one.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

CELL = 0.5  # metres: what is in touching cells is one piece
LEAST = 3  # voxels of a piece
SAME = 0.5  # IoU of two masks above which they hold one thing


def pieces(
    inside: csr_array, cut: np.ndarray, xyz: np.ndarray, inverse: np.ndarray
) -> tuple[csr_array, np.ndarray]:
    """Masks cut where nothing of them lies between, each piece a mask of its own.

    Args:
        inside: (Q, V), 1 inside of a mask. cut: (Q,) bool, which are to be cut; what is
            smaller than three voxels is no piece.
        xyz: (N, 3), metres, of the points. inverse: (N,) int64, each point's voxel, -1 = none.

    Returns:
        (M, V), 1 inside, and (M,) int64, the query of each: first the masks that are left whole,
        in their order.
    """
    whole = np.flatnonzero(~cut)
    query, voxel = np.repeat(np.arange(len(cut)), np.diff(inside.indptr)), inside.indices
    row = np.searchsorted(whole, query)
    mine = cut[query]
    piece = connected(query[mine], voxel[mine], xyz, inverse)
    row[mine] = len(whole) + piece
    of = np.concatenate((whole, np.zeros(piece.max(initial=-1) + 1, np.int64)))
    of[row] = query
    found = csr_array((inside.data, (row, voxel)), (len(of), inside.shape[1]))
    kept = ~cut[of] | (np.diff(found.indptr) >= LEAST)
    return found[kept], of[kept]


def connected(
    query: np.ndarray, voxel: np.ndarray, xyz: np.ndarray, inverse: np.ndarray
) -> np.ndarray:
    """(E,) int64: the piece of each voxel of each mask, counted through all of them.

    Voxels of a mask are connected where points of theirs lie in cells that touch, in the plane.
    Points, since voxels are wide far away.

    Args:
        query, voxel: (E,) int64, what is inside of which mask. xyz, inverse: as in `pieces`.
    """
    if not len(query):
        return np.zeros(0, np.int64)
    asked = np.zeros(inverse.max() + 2, bool)  # the last one is for the points without a voxel
    asked[voxel] = True
    points = np.flatnonzero(asked[inverse])
    cell = np.floor(xyz[points, :2] / CELL).astype(np.int64)
    cell -= cell.min(0)
    rows, cols = (int(i) + 2 for i in cell.max(0))
    # Which cells a voxel has points in, voxel by voxel.
    has = np.unique(inverse[points] * rows * cols + cell[:, 0] * cols + cell[:, 1])
    of_voxel, has = np.divmod(has, rows * cols)
    begin, end = np.searchsorted(of_voxel, (voxel, voxel + 1))
    entry = np.repeat(np.arange(len(voxel)), end - begin)
    row = np.arange(len(entry)) - np.repeat(np.cumsum(end - begin) - end, end - begin)
    first = query[entry] * rows * cols + has[row]
    # Cells touch where they share a corner: corners are nodes beside the voxels.
    corners = np.concatenate([first + step for step in (0, 1, cols, cols + 1)])
    _, node = np.unique(corners, return_inverse=True)
    edges = (np.ones(len(node), bool), (np.tile(entry, 4), len(voxel) + node))
    graph = coo_array(edges, shape=(len(voxel) + node.max() + 1,) * 2)
    return connected_components(graph, directed=False)[1][: len(voxel)].astype(np.int64)


def distinct(inside: csr_array, score: np.ndarray) -> np.ndarray:
    """(M,) bool: the masks that are left when those go that hold what a better one does, IoU > 0.5.

    Merged, they would hide one another.

    Args:
        inside: (M, V), 1 inside of a mask. score: (M,).
    """
    common = (inside @ inside.T).toarray()
    size = common.diagonal()
    same = common > SAME * (size[:, None] + size - common)
    left = np.ones(len(score), bool)
    for best in np.argsort(-score, kind="stable"):
        if left[best]:
            left &= ~same[best]
            left[best] = True
    return left
