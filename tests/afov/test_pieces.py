"""Masks in pieces and masks that hold the same, against loops over voxels."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from afov.pieces import distinct, pieces


def flooded(voxels, cells):
    """Voxels whose cells touch, by flooding: sets, each from its first voxel on."""
    left, found = list(voxels), []
    while left:
        piece, edge = set(), [left[0]]
        while edge:
            v = edge.pop()
            piece.add(v)
            near = [
                w
                for w in left
                if w not in piece
                and any(
                    abs(a - c) <= 1 and abs(b - d) <= 1 for a, b in cells[v] for c, d in cells[w]
                )
            ]
            edge += near
        left = [v for v in left if v not in piece]
        found.append(piece)
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 5), st.integers(1, 25), st.floats(1, 12))
def test_a_mask_falls_into_what_touches_and_others_stay_whole(seed, queries, voxels, extent):
    rng = np.random.default_rng(seed)
    inside = rng.random((queries, voxels)) < 0.5
    cut = rng.random(queries) < 0.6
    inverse = np.concatenate((np.arange(voxels), rng.integers(-1, voxels, 2 * voxels)))
    middle = rng.uniform(-extent, extent, (voxels + 1, 3))
    # The points of a voxel lie about it; those of none may be anywhere, or nowhere.
    xyz = (middle[inverse] + rng.normal(0, 0.3, (len(inverse), 3))).astype(np.float32)
    xyz[inverse < 0] = rng.choice([np.nan, np.inf, 3], (np.sum(inverse < 0), 3))
    found, of = pieces(csr_array(inside, dtype=np.float32), cut, xyz, inverse)
    cells = {
        v: {(int(x // 0.5), int(y // 0.5)) for x, y in xyz[inverse == v, :2]} for v in range(voxels)
    }
    wanted = [(q, set(np.flatnonzero(inside[q]))) for q in np.flatnonzero(~cut)]
    for q in np.flatnonzero(cut):
        parts = flooded(np.flatnonzero(inside[q]), cells)
        wanted += [(q, part) for part in parts if len(part) >= 3]
    got = [(int(q), set(np.flatnonzero(row))) for q, row in zip(of, found.toarray(), strict=True)]
    whole = np.sum(~cut)
    assert got[:whole] == wanted[:whole]
    key = lambda one: (one[0], sorted(one[1]))  # noqa: E731
    assert sorted(got[whole:], key=key) == sorted(wanted[whole:], key=key)


def test_two_cars_in_one_mask_are_two_pieces():
    xyz = np.array([[x, y, 0] for x in (0, 0.4, 0.8, 5, 5.4, 5.8) for y in (0, 0.3)], np.float32)
    inside = csr_array(np.ones((1, 12), np.float32))
    found, of = pieces(inside, np.array([True]), xyz, np.arange(12))
    assert found.toarray().tolist() == [[1] * 6 + [0] * 6, [0] * 6 + [1] * 6]
    assert of.tolist() == [0, 0]


def test_far_away_the_points_of_wide_voxels_connect_them():
    """At 50 m voxels of two degrees lie 1.7 m apart, and a car would fall to pieces."""
    y = np.arange(-2, 2, 0.25)
    xyz = np.stack((np.full_like(y, 50), y, 0 * y), 1).astype(np.float32)
    inverse = np.floor((y + 2) / 1.75).astype(np.int64)
    inside = csr_array(np.ones((1, inverse.max() + 1), np.float32))
    found, _ = pieces(inside, np.array([True]), xyz, inverse)
    assert found.toarray().tolist() == [[1] * (inverse.max() + 1)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 8), st.integers(1, 12))
def test_of_masks_that_hold_the_same_only_the_best_is_left(seed, masks, voxels):
    rng = np.random.default_rng(seed)
    inside = rng.random((masks, voxels)) < 0.7
    score = rng.integers(0, 4, masks) / 4
    left = distinct(csr_array(inside, dtype=np.float32), score)
    kept = []
    for m in sorted(range(masks), key=lambda m: -score[m]):
        mine = set(np.flatnonzero(inside[m]))
        others = [set(np.flatnonzero(inside[k])) for k in kept]
        if not any(2 * len(mine & o) > len(mine | o) for o in others):
            kept.append(m)
    assert np.flatnonzero(left).tolist() == sorted(kept)
