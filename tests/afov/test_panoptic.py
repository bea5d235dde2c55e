"""Panoptic inference against a loop over voxels; image features against a loop over points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afov.image_tower import Seen, nothing_seen, windows
from afov.panoptic import ensemble, panoptic


def by_voxel(probability, mask, thing, rivals):
    """P3Former's inference, spelled out."""
    queries, voxels = mask.shape
    score = [max(row) * (2 if thing[int(np.argmax(row))] else 1) for row in probability]
    kept = [q for q in range(queries) if score[q] > 0.4]
    owner = [-1] * voxels
    m = 1 / (1 + np.exp(-mask.astype(np.float64)))
    for v in range(voxels):
        for q in kept:
            if owner[v] < 0 or score[q] * m[q, v] > score[owner[v]] * m[owner[v], v]:
                owner[v] = q
    result, instance, next_id = [0] * voxels, [0] * voxels, 1
    for q in kept:
        inside = [v for v in range(voxels) if m[q, v] > 0.5]
        visible = [v for v in inside if owner[v] == q]
        mine = [v for v in range(voxels) if owner[v] == q]
        label = int(np.argmax(probability[q]))
        if not inside or len(visible) < 0.8 * len(inside) or label >= len(thing) - rivals:
            continue
        for v in mine:
            result[v] = label + 1
            instance[v] = next_id if thing[label] else 0
        next_id += bool(thing[label] and mine)
    return result, instance


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 6), st.integers(0, 30), st.integers(0, 2))
def test_voxels_go_to_the_query_that_claims_them_most(seed, queries, voxels, rivals):
    rng = np.random.default_rng(seed)
    # Blobs, so that masks are sometimes mostly visible.
    mask = rng.normal(-3, 1, (queries, voxels)).astype(np.float32)
    for row in mask:
        start = rng.integers(0, voxels + 1)
        row[start : start + 8] += rng.uniform(4, 8)
    probability = rng.random((queries, 4)).astype(np.float32) ** 2
    thing = np.array([True, False, True, False])
    found = panoptic(probability, mask, thing, rivals)
    class_id, instance_id = by_voxel(probability, mask, thing, rivals)
    assert found.class_id.tolist() == class_id
    assert found.instance_id.tolist() == instance_id
    assert found.class_id.dtype == np.uint8 and found.instance_id.dtype == np.uint16
    held = found.query >= 0
    assert np.array_equal(held, found.class_id > 0)
    assert np.array_equal(found.score[held], probability[found.query[held]].max(1))
    assert not found.score[~held].any()


def test_stuff_of_one_class_is_one_segment_and_things_are_apart():
    mask = np.full((4, 8), -9, np.float32)
    for q in range(4):
        mask[q, 2 * q : 2 * q + 2] = 9
    probability = np.array([[0.9, 0], [0.9, 0], [0, 0.9], [0, 0.25]], np.float32)
    found = panoptic(probability, mask, np.array([False, True]))
    assert found.class_id.tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    # A thing's score counts twice, so 0.25 is enough; a stuff's 0.25 would not be.
    assert found.instance_id.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    assert panoptic(probability, mask, np.array([False, False])).class_id.tolist()[6:] != [2, 2]


def test_the_ensemble_is_fc_clip_s_geometric_mean():
    rng = np.random.default_rng(0)
    learned, pooled = rng.random((2, 3, 4))
    base = np.array([True, False, True, False])
    got = ensemble(learned, pooled, np.array([True, True, False]), base)
    for q in range(3):
        for k in range(4):
            a = 0.4 if base[k] else 0.8
            wanted = np.exp((1 - a) * np.log(learned[q, k]) + a * np.log(pooled[q, k]))
            assert got[q, k] == pytest.approx(wanted if q < 2 else learned[q, k])


def test_a_voxel_takes_the_mean_of_what_its_points_show():
    rng = np.random.default_rng(0)
    feature = rng.normal(size=(9, 5)).astype(np.float32)
    feature /= np.linalg.norm(feature, axis=1, keepdims=True)
    inverse = rng.integers(-1, 6, 40)
    inverse[inverse == 4] = 5  # a voxel without any point that a camera sees
    point, place = rng.integers(0, 40, 60), rng.integers(0, 9, 60)
    got = Seen(point, place, feature).of_voxels(inverse, 6)
    for v in range(6):
        rows = [feature[t] for p, t in zip(point, place, strict=True) if inverse[p] == v]
        if not rows:
            assert not got[v].any()
            continue
        mean = np.mean(rows, axis=0)
        assert np.allclose(got[v], mean / np.linalg.norm(mean), atol=1e-5)
    assert not nothing_seen(5).of_voxels(inverse, 6).any()


def test_windows_tile_the_image_row_by_row():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    cut = windows(image, 2)
    assert np.array_equal(np.vstack([np.hstack(cut[:3]), np.hstack(cut[3:])]), image)
