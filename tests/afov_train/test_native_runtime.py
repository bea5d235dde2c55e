"""The compiled network against torch, on any coordinates."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afov import native, runtimes
from afov.errors import InputError
from afov.kernel_maps import kernel_maps
from afov.runtimes import native_runtime
from afov.runtimes.integer_runtime import IntegerRuntime
from afov.runtimes.native_runtime import NativeRuntime
from afov.runtimes.torch_runtime import TorchRuntime
from afov.unet import Shape
from afov_train.network.unet import UNet
from afov_train.student_onnx import folded
from tests.afov_train.conftest import lived_in

pytestmark = pytest.mark.skipif(native.library() is None, reason="no compiled library")

# Widths that fill vectors and widths that do not, one block and several, both stems.
SHAPES = (
    Shape(3, 8, (8, 24, 16, 40, 16, 24, 8, 16), (1, 1, 1, 1, 1, 1, 1, 1)),
    Shape(5, 5, (6, 11, 7, 13, 9, 3, 17, 10), (2, 1, 2, 1, 1, 2, 1, 2)),
)
coordinates = st.lists(
    st.tuples(*[st.integers(-9, 9)] * 3), min_size=0, max_size=200, unique=True
).map(lambda c: np.array(sorted(c), np.int32).reshape(-1, 3))


class Model:
    """As much of a model folder as a runtime reads."""

    def __init__(self, shape):
        self.shape, self.weights = shape, folded(lived_in(UNet(shape, 3, 21)).eval())


@pytest.fixture(scope="module", params=SHAPES, ids=["wide", "odd"])
def model(request):
    return Model(request.param)


def difference(model, coords, runtime=NativeRuntime):
    """The largest difference between the two, relative to the largest value."""
    features = np.random.default_rng(0).normal(size=(len(coords), 3)).astype(np.float32)
    maps = kernel_maps(coords, model.shape.stem)
    expected = TorchRuntime(model).run(features, maps)
    got = runtime(model).run(features, maps)
    assert got.shape == expected.shape and got.dtype == np.float32
    return np.abs(got - expected).max(initial=0) / np.abs(expected).max(initial=1e-9)


@settings(max_examples=30, deadline=None)
@given(coords=coordinates)
def test_any_coordinates(model, coords):
    assert difference(model, coords) < 1e-4


@pytest.mark.parametrize("voxels", [0, 1])
def test_next_to_nothing(model, voxels):
    assert difference(model, np.zeros((voxels, 3), np.int32)) < 1e-4


def test_a_whole_sweep_on_all_cores(model):
    coords = np.random.default_rng(1).integers(-30, 30, (12000, 3))
    assert difference(model, np.unique(coords, axis=0).astype(np.int32)) < 1e-4


def test_every_width_of_vectors_gives_the_same(model):
    """Sixteen and eight floats to the bit, where the processor has both; four have no FMA."""
    coords = np.unique(np.random.default_rng(5).integers(-9, 9, (3000, 3)), axis=0)
    maps = kernel_maps(coords.astype(np.int32), model.shape.stem)
    features = np.random.default_rng(6).normal(size=(len(coords), 3)).astype(np.float32)
    runtime = NativeRuntime(model)
    found = {}
    try:
        for lanes in (16, 8, 4):
            native.call("use_lanes", lanes)
            found[lanes] = runtime.run(features, maps)
    finally:
        native.call("use_lanes", 16)
    np.testing.assert_array_equal(found[16], found[8])
    np.testing.assert_allclose(found[4], found[8], atol=1e-5 * np.abs(found[8]).max())


@pytest.mark.skipif(not native.integers(), reason="no AVX2")
@settings(max_examples=30, deadline=None)
@given(coords=coordinates)
@pytest.mark.parametrize(("bits", "near"), [(16, 2e-3), (8, 0.15)])
def test_integers_are_near(model, coords, bits, near):
    assert difference(model, coords, partial(IntegerRuntime, bits=bits)) < near


@pytest.mark.skipif(not native.integers(), reason="no AVX2")
@pytest.mark.parametrize("size", [0.0, 1e-10, 1e4])
@pytest.mark.parametrize("bits", [16, 8])
def test_integers_hold_their_sums(model, size, bits):
    """Weights and features at their worst: all of one sign, all of one size."""
    loud = copy.copy(model)
    loud.weights = {k: np.full_like(v, 1 / np.prod(v.shape[:-1])) for k, v in model.weights.items()}
    coords = np.stack(np.meshgrid(*[np.arange(6)] * 3, indexing="ij"), -1).reshape(-1, 3)
    features = np.full((len(coords), 3), size, np.float32)
    maps = kernel_maps(coords.astype(np.int32), loud.shape.stem)
    expected = TorchRuntime(loud).run(features, maps)
    runtime = IntegerRuntime(loud, bits)
    for runtime.vnni in {False, native.vnni()}:
        got = runtime.run(features, maps)
        np.testing.assert_allclose(got, expected, rtol={16: 2e-3, 8: 3e-2}[bits])


@pytest.mark.skipif(not native.vnni(), reason="no AVX-512 VNNI")
@settings(max_examples=30, deadline=None)
@given(
    coords=coordinates,
    stem=st.sampled_from((3, 5)),
    planes=st.lists(st.integers(1, 70), min_size=9, max_size=9),
    size=st.sampled_from((0.0, 1.0, 1e4)),
)
@pytest.mark.parametrize("bits", [16, 8])
def test_every_processor_gives_the_same_bits(bits, coords, stem, planes, size):
    """VNNI against AVX2, for all counts of columns and pairs that a tile may be left with."""
    shape = Shape(stem, planes[0], tuple(planes[1:]), (1, 2, 1, 1, 1, 1, 1, 1))
    runtime = IntegerRuntime(Model(shape), bits)
    features = np.random.default_rng(5).normal(scale=size, size=(len(coords), 3))
    arguments = features.astype(np.float32), kernel_maps(coords, stem)
    assert runtime.vnni
    got = runtime.run(*arguments)
    runtime.vnni = False
    np.testing.assert_array_equal(got, runtime.run(*arguments))


@pytest.mark.skipif(not native.integers(), reason="no AVX2")
@pytest.mark.parametrize("bits", [16, 8])
def test_any_number_of_threads_gives_the_same(model, bits):
    """More threads than cores: they are taken away in the midst of blocks that others need."""
    coords = np.unique(np.random.default_rng(3).integers(-9, 9, (6000, 3)), axis=0)
    maps = kernel_maps(coords.astype(np.int32), model.shape.stem)
    features = np.random.default_rng(4).normal(size=(len(coords), 3)).astype(np.float32)
    runtime = IntegerRuntime(model, bits)
    try:
        native.call("use_threads", 1)
        expected = runtime.run(features, maps)
        native.call("use_threads", 8)
        for _ in range(40):
            np.testing.assert_array_equal(runtime.run(features, maps), expected)
    finally:
        native.call("use_threads", os.cpu_count())


def test_threads_and_forked_children_may_share_it(model):
    coords = np.unique(np.random.default_rng(2).integers(-9, 9, (3000, 3)), axis=0)
    maps = kernel_maps(coords.astype(np.int32), model.shape.stem)
    features = np.ones((len(coords), 3), np.float32)
    runtime = NativeRuntime(model)
    expected = runtime.run(features, maps)
    with ThreadPoolExecutor(4) as threads:
        for got in threads.map(lambda _: runtime.run(features, maps), range(20)):
            np.testing.assert_array_equal(got, expected)
    child = os.fork()
    if not child:
        same = np.array_equal(runtime.run(features, maps), expected)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU goes first")
def test_without_the_library_auto_takes_another():
    assert runtimes.preferred() == ("native8" if native.integers() else "native")
    with mock.patch.object(runtimes, "integers", lambda: False):
        assert runtimes.preferred() == "native"
    with mock.patch.object(runtimes, "library", lambda: None):
        assert runtimes.preferred() == "torch"
    with (
        mock.patch.object(native_runtime, "library", lambda: None),
        pytest.raises(InputError, match="was not built"),
    ):
        NativeRuntime(None)


def test_it_needs_neither_torch_nor_a_compiler():
    code = "import sys, afov.runtimes.native_runtime; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": ""})
