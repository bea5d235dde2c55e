from __future__ import annotations

import math
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from afov import native
from afov import voxels as module
from afov.errors import InputError
from afov.voxels import VoxelGrid

anything = arrays(
    np.float32,
    st.tuples(st.integers(0, 60), st.just(3)),
    elements=st.one_of(
        st.floats(-60, 60, width=32),
        st.sampled_from([0.0, -0.0, np.nan, np.inf, -np.inf, 1e9, -(2.0**127), 999.0, -0.125]),
    ),
)
grids = st.sampled_from([VoxelGrid(), VoxelGrid("cartesian", (0.1, 0.1, 0.1))])
# A key and a point's number need more than 64 bits.
finest = st.just(VoxelGrid("cartesian", (0.001, 0.001, 0.001)))


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "golden/voxels_scene0061.npz", allow_pickle=False) as data:
        return dict(data)


def test_voxels_are_the_official_codes(golden: dict[str, np.ndarray]) -> None:
    grid = VoxelGrid("cylindrical", (0.1, 1.0, 0.1))
    np.testing.assert_allclose(
        grid.coordinates(golden["points"]), golden["coords_float"], rtol=1e-6, atol=1e-5
    )
    voxels = grid.voxelize(golden["points"])
    assert len(voxels) == golden["num_voxels"]
    assert set(map(tuple, voxels.coords)) == set(map(tuple, golden["voxel_coords"].astype(int)))
    np.testing.assert_array_equal(
        voxels.coords[voxels.inverse], golden["voxel_coords"][golden["inverse"]]
    )
    assert set(voxels.representative) == set(golden["first_index"])


@settings(deadline=None)
@given(grids, anything)
def test_the_inverse_takes_every_point_to_its_voxel(grid: VoxelGrid, xyz: np.ndarray) -> None:
    voxels = grid.voxelize(xyz)
    assert voxels.inverse.shape == (len(xyz),)
    for point, voxel in zip(xyz, voxels.inverse, strict=True):
        x, y, z = map(float, point)
        if not all(abs(v) < 1000 for v in (x, y, z)):
            assert voxel == -1
            continue
        if grid.kind == "cylindrical":
            x, y = math.hypot(x, y), math.degrees(math.atan2(y, x))
        place = np.array([x, y, z]) / grid.size
        # A place on the border of a cell may go either way in float32.
        assert (voxels.coords[voxel] <= place + 1e-3).all()
        assert (place - 1e-3 < voxels.coords[voxel] + 1).all()


@settings(deadline=None)
@given(grids, anything)
def test_voxels_are_sorted_unique_and_led_by_their_first_point(
    grid: VoxelGrid, xyz: np.ndarray
) -> None:
    voxels = grid.voxelize(xyz)
    rows = list(map(tuple, voxels.coords.tolist()))
    assert rows == sorted(set(rows))
    for voxel, point in enumerate(voxels.representative):
        assert point == np.flatnonzero(voxels.inverse == voxel)[0]
    assert voxels.coords.dtype == np.int32 and voxels.inverse.dtype == np.int64


@settings(deadline=None)
@given(st.one_of(grids, finest), anything)
def test_compiled_voxels_are_numpys(grid: VoxelGrid, xyz: np.ndarray) -> None:
    if native.library() is None:
        pytest.skip("the compiled library was not built")
    wide = np.column_stack((xyz, xyz))
    with mock.patch.object(module, "library", lambda: None):
        expected = grid.voxelize(xyz)
    for got in (grid.voxelize(xyz), grid.voxelize(wide[:, :3]), grid.voxelize(wide.T[:3].T)):
        for name in ("coords", "representative", "inverse"):
            a, b = getattr(got, name), getattr(expected, name)
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def test_a_sweep_without_one_usable_point_has_no_voxels() -> None:
    for xyz in (np.zeros((0, 3), np.float32), np.full((4, 3), np.nan, np.float32)):
        voxels = VoxelGrid().voxelize(xyz)
        assert len(voxels) == 0 and voxels.coords.shape == (0, 3)
        assert (voxels.inverse == -1).all()


def test_the_azimuth_does_not_wrap() -> None:
    either_side = np.array([[-5, 1e-3, 0], [-5, -1e-3, 0]], np.float32)
    grid = VoxelGrid(size=(0.1, 1.0, 0.1))
    assert grid.voxelize(either_side).coords[:, 1].tolist() == [-180, 179]


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("spherical", (1.0, 1.0, 1.0)),
        ("cartesian", (0.0, 1.0, 1.0)),
        ("cartesian", (math.nan, 1.0, 1.0)),
        ("cartesian", (1.0, 1.0)),
    ],
)
def test_an_impossible_grid_is_refused(kind: str, size: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="voxel grid"):
        VoxelGrid(kind, size)  # type: ignore[arg-type]
