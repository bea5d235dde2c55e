"""AFI: the published one to the last digit, ours on the faults of the published one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afov.afi import interact, paper
from afov.afi.ground import near_ground
from afov.afi.refined import HARD, RefinedConfig, refine
from afov.afi.sampling import _farthest_points, _nearest, farthest_points, nearest
from afov.native import library

CASES = ("a_clump20", "b_clump20_sectors0")
ONE_HOT = np.eye(17, dtype=np.float32)
ONE_HOT[0] = 0  # unlabelled says nothing


@pytest.fixture(scope="module", params=CASES)
def golden(request, shared):
    return np.load(shared / f"golden/afi_scene0061_{request.param}.npz")


@pytest.fixture(scope="module")
def published(golden):
    return paper.interact(golden["points"], golden["labels_in"])


def test_labels_and_scores_are_the_official_codes(golden, published):
    assert (published.labels == golden["labels_out"]).mean() >= 0.999
    error = np.abs(published.scores - golden["scores_out"]).max(1)
    assert (error < 1e-5).mean() >= 0.999


def test_every_level_is_the_official_codes(golden, published):
    assert np.array_equal(np.sort(published.ground), np.sort(golden["ground_idx"]))
    for number, level in enumerate(published.levels, 1):
        assert np.array_equal(level.index, golden[f"fps{number}_idx"])
        for name, ours in (
            ("lga{}_percentage", level.P), ("lga{}_direction", level.D),
            ("lga{}_features", level.F), ("lga{}_influence", level.I), ("enc{}_x", level.x),
        ):  # fmt: skip
            assert np.abs(ours - golden[name.format(number)]).max() < 1e-5, (name, number)
    for number, x in enumerate(published.decoded, 1):
        assert np.abs(x - golden[f"dec{number}_x"]).max() < 1e-5


def test_the_compiled_loops_are_there_and_say_what_numpy_says(golden):
    assert library() is not None, "the package was built without its compiled loops"
    points = golden["points"]
    assert np.array_equal(_farthest_points(points, 300), farthest_points(points, 300))
    centers = points[farthest_points(points, 200)]
    ours, theirs = nearest(centers, points, 6), _nearest(centers, points, 6)
    distance = [np.linalg.norm(centers[n] - points[:, None], axis=2) for n in (ours, theirs)]
    assert np.allclose(*distance, atol=1e-6)


coordinates = st.lists(
    st.tuples(*[st.integers(-6, 6).map(lambda v: v / 2)] * 3), min_size=1, max_size=120
)


@settings(max_examples=60, deadline=None)
@given(coordinates, st.integers(1, 40))
def test_sampling_and_neighbours_are_those_of_brute_force(points, count):
    """On a coarse grid, where equal distances and double points abound."""
    xyz = np.array(points, np.float32)
    square = ((xyz[:, None] - xyz) ** 2).sum(2)
    far = np.where((xyz**2).sum(1) > 1e-3, np.inf, -1)
    expected = [0]
    for _ in range(min(count, len(xyz)) - 1):
        far = np.minimum(far, square[expected[-1]])
        expected.append(int(far.argmax()))
    assert farthest_points(xyz, count).tolist() == expected
    found = nearest(xyz, xyz, count)
    assert np.array_equal(np.sort(square, 1)[:, :count], np.take_along_axis(square, found, 1))
    assert all(len(set(row)) == len(row) for row in found.tolist())


@pytest.mark.parametrize("count", [0, 1, 2, 3, 30, 60, 200, 1400])
@pytest.mark.parametrize("mode", ["paper", "refined"])
def test_any_cloud_goes_through(count, mode):
    """Empty rings, clouds smaller than a level, lines, piles on one spot, faulty points."""
    rng = np.random.default_rng(count)
    p = rng.dirichlet(np.ones(20), count).astype(np.float32)
    line = np.linspace(0, 30, count, dtype=np.float32)[:, None] * np.float32([1, 0.5, 0])
    pile = np.ones((count, 3), np.float32)
    wild = rng.normal(0, 10, (count, 3)).astype(np.float32)
    wild[::7] = np.nan
    wild[1::7] = np.inf
    for xyz in (line, pile, wild):
        out = interact(mode, xyz, p)
        assert out.shape == p.shape and out.dtype == np.float32 and np.isfinite(out).all()
        faulty = ~np.isfinite(xyz).all(1)
        assert np.array_equal(out[faulty], p[faulty])


def test_ground_near_the_vehicle_is_one_plane_and_none_where_there_is_none():
    rng = np.random.default_rng(0)
    angle, rho = rng.uniform(-np.pi, np.pi, 500), rng.uniform(2.2, 4.8, 500)
    flat = np.stack((rho * np.cos(angle), rho * np.sin(angle), -1.8 + 0.02 * rho), 1)
    box = flat[:50] + np.array([0, 0, 0.35])
    points = np.concatenate((flat, box)).astype(np.float32)
    assert set(near_ground(points)) == set(range(500))
    assert len(near_ground(points + np.float32([0, 0, 5]))) == 0
    assert len(near_ground(points[:2])) == 0


def test_a_column_of_unlabelled_votes_for_nothing(golden):
    """Points that are called unlabelled take their surroundings' label, as zero rows do."""
    labels = golden["labels_in"]
    said, silent = np.eye(17, dtype=np.float32)[labels], ONE_HOT[labels]
    assert (labels == 0).any()
    got = interact("refined", golden["points"], said)
    assert np.array_equal(got, refine(golden["points"], silent)) and not got[:, 0].any()


def judged(golden, labels, out):
    """Shares of noise repaired, of right labels broken, of unlabelled sectors right."""
    clean = golden["labels_clean"]
    known = clean > 0
    right = out == clean
    sector = golden["sector_mask"] & known
    return (
        right[golden["noise_mask"] & known].mean(),
        1 - right[known & (labels == clean)].mean(),
        right[sector].mean() if sector.any() else None,
    )


def test_refined_repairs_more_than_published_and_breaks_less(golden, published):
    labels = golden["labels_in"]
    refined = refine(golden["points"], ONE_HOT[labels], HARD).argmax(1)
    ours, theirs = judged(golden, labels, refined), judged(golden, labels, published.labels)
    assert ours[0] >= theirs[0]
    assert ours[1] < 0.005 < 0.1 < theirs[1]
    if ours[2] is not None:
        assert ours[2] > 0.5 > 0.25 > theirs[2]


def test_refined_leaves_clean_labels_and_small_things_alone(golden):
    clean = golden["labels_clean"]
    for config in (RefinedConfig(), HARD):
        out = refine(golden["points"], ONE_HOT[clean], config).argmax(1)
        known = clean > 0
        assert (out == clean)[known].mean() >= 0.995
        for small in (7, 8):  # pedestrians, cones
            assert (out == clean)[clean == small].mean() > 0.95


def test_refined_repairs_scattered_noise_better_than_published(golden):
    rng = np.random.default_rng(0)
    clean, points = golden["labels_clean"], golden["points"]
    labels, wrong = clean.copy(), rng.random(len(clean)) < 0.19
    labels[wrong] = rng.integers(1, 17, wrong.sum())
    known = clean > 0
    refined = (refine(points, ONE_HOT[labels]).argmax(1) == clean)[known].mean()
    theirs = (paper.interact(points, labels).labels == clean)[known].mean()
    assert refined > theirs > (labels == clean)[known].mean()


def flat_street():
    """Ground with a kerb-high step and a cone on it, 10 cm between points."""
    x, y = np.meshgrid(np.arange(3, 9, 0.1), np.arange(-3, 3, 0.1))
    ground = np.stack((x.ravel(), y.ravel(), np.where(y > 1, 0.15, 0).ravel() - 1.8), 1)
    label = np.where(y.ravel() > 1, 13, 11)
    height = np.arange(0.15, 0.6, 0.05)
    cone = np.stack((np.full(9, 6.0), np.full(9, -1.0), height - 1.8), 1)
    return np.concatenate((ground, cone)).astype(np.float32), np.append(label, [8] * 9)


def test_a_wrong_patch_on_the_road_is_repaired_and_kerb_and_cone_stay():
    xyz, truth = flat_street()
    labels = truth.copy()
    patch = (np.linalg.norm(xyz[:, :2] - [4.5, -1.5], axis=1) < 0.6) & (truth == 11)
    labels[patch] = 4
    out = refine(xyz, ONE_HOT[labels], HARD).argmax(1)
    assert (out == truth)[patch].mean() > 0.9
    assert (out == truth)[truth == 8].all()
    assert (out == truth)[truth == 13].mean() > 0.98


def test_unlabelled_points_carry_nothing_and_take_what_comes_by():
    xyz, truth = flat_street()
    p = ONE_HOT[truth].copy()
    hole = (xyz[:, 0] > 5) & (xyz[:, 0] < 6.5) & (truth != 8)
    p[hole] = 0
    out = refine(xyz, p)
    assert (out.argmax(1) == truth)[hole].mean() > 0.9
    assert np.allclose(out.sum(1), 1, atol=1e-5)
    assert not refine(xyz, np.zeros_like(p)).any()
