"""Voxels and kernel maps in torch against their NumPy twins, padded and not."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afov.device.levels import NOWHERE, Cells, distinct, levels, pack, unpack
from afov.device.tables import tables
from afov.kernel_maps import kernel_maps
from afov.runtimes.profile import profile_of, step
from afov.voxels import VoxelGrid
from afov.voxels import pack as numpy_pack
from tests.afov.test_kernel_maps import coordinates
from tests.afov.test_kernel_maps import tables as every
from tests.afov.test_voxels import anything, grids

HERE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def as_numpy(y, x):
    """NumPy's arctan2, for torch's differs from it in the last bit."""
    return torch.from_numpy(np.arctan2(y.cpu().numpy(), x.cpu().numpy())).to(HERE)


def cut(grid: VoxelGrid, xyz: np.ndarray) -> list[np.ndarray]:
    """Coordinates, representatives and inverse, as `Voxels` holds them."""
    keys, first, place, count = distinct(Cells(grid, HERE).keys(torch.from_numpy(xyz).to(HERE)))
    return [v.cpu().numpy() for v in (unpack(keys[:count]), first[:count], place)]


def maps_of(coords: np.ndarray, stem: int, sizes=None):
    """Kernel maps in torch, padded to so many rows per level."""
    keys = pack(torch.from_numpy(coords).to(HERE).long())
    found = levels(keys, torch.tensor(len(keys), device=HERE))
    counts = found.counts.tolist()
    return tables(found.padded(tuple(sizes(counts) if sizes else counts)), stem), counts


@settings(deadline=None)
@given(grids, anything)
def test_voxels_are_numpys_given_the_same_azimuth(grid: VoxelGrid, xyz: np.ndarray) -> None:
    expected = grid.voxelize(xyz)
    with mock.patch.object(torch, "atan2", as_numpy):
        got = cut(grid, xyz)
    for a, b in zip(got, (expected.coords, expected.representative, expected.inverse), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [0.1, 0.2])
def test_few_points_of_a_real_sweep_move_with_torchs_azimuth(shared: Path, size: float) -> None:
    raw = next((shared / "data/nuscenes-one-sample/samples/LIDAR_TOP").iterdir())
    xyz = np.ascontiguousarray(np.fromfile(raw, np.float32).reshape(-1, 5)[:, :3])
    grid = VoxelGrid("cylindrical", (size, 10 * size, size))
    expected = grid.voxelize(xyz)
    coords, _, inverse = cut(grid, xyz)
    moved = (coords[inverse] != expected.coords[expected.inverse]).any(1)
    assert moved.sum() <= 3
    cartesian = VoxelGrid("cartesian", (size, size, size))
    assert np.array_equal(cut(cartesian, xyz)[2], cartesian.voxelize(xyz).inverse)


@given(st.lists(st.tuples(*[st.integers(-(10**6), 10**6)] * 3), max_size=40))
def test_keys_are_numpys_and_lead_back(rows) -> None:
    coords = np.array(rows, np.int64).reshape(-1, 3)
    keys = pack(torch.from_numpy(coords))
    np.testing.assert_array_equal(keys.numpy(), numpy_pack(coords))
    np.testing.assert_array_equal(unpack(keys).numpy(), coords)
    assert (keys < NOWHERE - (3 << 42)).all()


@pytest.mark.parametrize("stem", [3, 5])
@settings(max_examples=60, deadline=None)
@given(coords=coordinates)
def test_maps_are_numpys(stem: int, coords: np.ndarray) -> None:
    got, _ = maps_of(coords, stem)
    for a, b in zip(every(got), every(kernel_maps(coords, stem)), strict=True):
        assert a.dtype == torch.int32
        np.testing.assert_array_equal(a.cpu().numpy(), b)


@settings(max_examples=60, deadline=None)
@given(coords=coordinates.filter(len), more=st.lists(st.integers(0, 9), min_size=5, max_size=5))
def test_padding_has_no_neighbours_and_is_nobodys_neighbour(coords, more) -> None:
    sizes = None
    expected = kernel_maps(coords, 5)

    def padded(counts):
        nonlocal sizes
        sizes = [n + m for n, m in zip(counts, more, strict=True)]
        return sizes

    got, counts = maps_of(coords, 5, padded)
    rows = [*counts, counts[0], *counts[1:], *counts[:-1]]
    inside = [*sizes, sizes[0], *sizes[:-1]]
    fine = [*counts, counts[0], *counts[:-1]]
    for i, (a, b) in enumerate(zip(every(got), every(expected), strict=True)):
        a = a.cpu().numpy()
        if i >= 10:  # up: no mark for "none"
            np.testing.assert_array_equal(a[: rows[i]], b)
            assert (a >= 0).all() and (a < 8 * sizes[i - 9]).all()
            continue
        np.testing.assert_array_equal(a[: rows[i]], np.where(b == fine[i], inside[i], b))
        assert (a[rows[i] :] == inside[i]).all()


@given(st.integers(1, 10**7), st.integers(1, 10**7))
def test_steps_are_few_and_near(a: int, b: int) -> None:
    assert a <= step(a) <= max(8, a * 9 / 8)
    assert step(step(a)) == step(a) and (a > b or step(a) <= step(b))
    assert len({step(n) for n in range(1, 4096)}) < 75


@given(st.lists(st.integers(1, 10**6), min_size=5, max_size=5))
def test_padded_levels_hold_the_sweep(counts) -> None:
    profile = profile_of(())
    sizes = profile.padded(tuple(counts))
    assert all(n <= size <= 9 / 4 * n + 16 for n, size in zip(counts, sizes, strict=True))


def test_sweeps_of_a_drive_share_their_shapes() -> None:
    """Sizes that vary by a fifth, each level by some more: few graphs, little padding."""
    profile, rng = profile_of(()), np.random.default_rng(0)
    sizes, padding = set(), []
    for _ in range(500):
        whole = rng.uniform(0.8, 1.2)
        counts = tuple(int(t * whole * rng.uniform(0.95, 1.05)) for t in profile.typical)
        sizes.add(profile.padded(counts))
        padding.append(profile.padded(counts)[0] / counts[0])
    assert len(sizes) <= 8 and np.mean(padding) < 1.15
