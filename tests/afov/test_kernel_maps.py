"""Kernel maps against a dictionary of coordinates."""

from __future__ import annotations

from itertools import product
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afov import kernel_maps as module
from afov import native
from afov.kernel_maps import kernel_maps

coordinates = st.lists(
    st.tuples(*[st.integers(-9, 9)] * 3), min_size=0, max_size=60, unique=True
).map(lambda c: np.array(sorted(c), np.int32).reshape(-1, 3))


@pytest.mark.parametrize("kernel", [3, 5])
@settings(max_examples=40, deadline=None)
@given(coords=coordinates)
def test_neighbours_are_those_that_a_dictionary_finds(kernel, coords):
    maps = kernel_maps(coords, kernel)
    place = {tuple(c): i for i, c in enumerate(coords.tolist())}
    reach = range(-(kernel // 2), kernel // 2 + 1)
    expected = [
        [place.get((x + i, y + j, z + k), len(coords)) for i, j, k in product(reach, repeat=3)]
        for x, y, z in coords.tolist()
    ]
    assert maps.stem.tolist() == expected


@settings(max_examples=60, deadline=None)
@given(coords=coordinates)
def test_parents_and_children_tell_the_same_story(coords):
    maps = kernel_maps(coords)
    for level, (up, down) in enumerate(zip(maps.up, maps.down, strict=True)):
        count = len(maps.subm[level])
        assert len(up) == count and len(down) == len(maps.subm[level + 1])
        assert all(down[u // 8, u % 8] == i for i, u in enumerate(up))
        assert (down < count).sum() == count
    parents = {tuple(c) for c in (coords // 2).tolist()}
    assert len(maps.subm[1]) == len(parents)


@pytest.mark.parametrize("kernel", [3, 5])
@settings(max_examples=40, deadline=None)
@given(coords=coordinates)
def test_compiled_maps_are_numpys(kernel, coords):
    if native.library() is None:
        pytest.skip("the compiled library was not built")
    with mock.patch.object(module, "library", lambda: None):
        expected = kernel_maps(coords, kernel)
    for a, b in zip(tables(kernel_maps(coords, kernel)), tables(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def tables(maps):
    return (*maps.subm, maps.stem, *maps.down, *maps.up)
