"""Compiled training convolutions: values and gradients of spconv's, and of float64 brute force."""

from __future__ import annotations

import copy
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afov.native import call, library
from afov.unet import Shape
from afov_train.losses import ce_lovasz
from afov_train.network import convolution, unet
from afov_train.network.convolution import convolve, rows, side_by_side
from afov_train.network.unet import UNet

pytestmark = pytest.mark.skipif(library() is None, reason="no compiled library")

# Widths that fill vectors and widths that do not, one block and several, both stems.
SHAPES = (
    Shape(3, 8, (8, 24, 16, 40, 16, 24, 8, 16), (1, 1, 1, 1, 1, 1, 1, 1)),
    Shape(5, 5, (6, 11, 7, 13, 9, 3, 17, 10), (2, 1, 2, 1, 1, 2, 1, 2)),
)
coordinates = st.lists(st.tuples(*[st.integers(-5, 5)] * 3), min_size=1, max_size=60, unique=True)


def batch_of(*sweeps):
    """(V, 4) int32."""
    parts = [np.pad(sorted(c), ((0, 0), (1, 0)), constant_values=i) for i, c in enumerate(sweeps)]
    return torch.from_numpy(np.concatenate(parts).astype(np.int32))


def street(seed, count=700, reach=9):
    drawn = np.random.default_rng(seed).integers(-reach, reach, (count, 3))
    return {tuple(c) for c in drawn.tolist()}


def brute_force(x, weight, coords, coarse, kind):
    """Every output voxel asks every input voxel where it lies; float64."""
    fine = coords.double()
    if kind == "subm":
        reach, source, target = round(weight.shape[1] ** (1 / 3)) // 2, fine, fine
        step = source[None] - target[:, None]
        inside = (step.abs() <= reach).all(-1)
        index = (step + reach) @ torch.tensor([(2 * reach + 1) ** 2, 2 * reach + 1, 1.0]).double()
    else:
        child = fine[:, None] - 2 * coarse.double()[None]
        inside = ((child >= 0) & (child <= 1)).all(-1)
        index = child @ torch.tensor([4.0, 2.0, 1.0]).double()
        inside, index = (inside.T, index.T) if kind == "down" else (inside, index)
    out = x.new_zeros(len(inside), len(weight))
    for k in range(weight.shape[1]):
        out = out + (inside & (index == k)).double() @ x @ weight[:, k].T
    return out


@settings(max_examples=25, deadline=None)
@given(
    coords=coordinates,
    cin=st.sampled_from((3, 8, 16, 37)),
    cout=st.sampled_from((1, 8, 24, 53)),
    kind=st.sampled_from(("subm", "stem", "down", "up")),
)
def test_value_and_gradients_are_those_of_brute_force(coords, cin, cout, kind):
    rng = torch.Generator().manual_seed(cin + cout)
    voxels = np.array(sorted(coords), np.int32)
    coarse = torch.from_numpy(np.unique(voxels >> 1, axis=0))
    maps = rows(torch.zeros(0), batch_of(coords), 5).maps
    over = {"subm": maps["subm0"], "stem": maps["stem5"], "down": maps["down0"]}.get(kind)
    over = over or maps["down0"].inverse
    offsets = {"subm": 27, "stem": 125}.get(kind, 8)
    count = len(coarse) if kind == "up" else len(voxels)
    x = torch.randn(count, cin, generator=rng).requires_grad_()
    weight = torch.randn(cout, offsets, cin, generator=rng).requires_grad_()
    exact = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    got = convolve(x, weight, over)
    kind = "subm" if kind == "stem" else kind
    expected = brute_force(*exact, torch.from_numpy(voxels), coarse, kind)
    along = torch.randn(got.shape, generator=rng)
    got.backward(along)
    expected.backward(along.double())
    for mine, true in (
        (got.detach(), expected.detach()),
        (x.grad, exact[0].grad),
        (weight.grad, exact[1].grad),
    ):
        scale = 1 + float(true.abs().max())
        assert mine.shape == true.shape and float((mine - true).abs().max()) < 1e-5 * scale


@pytest.mark.parametrize("shape", SHAPES, ids=["wide", "odd"])
def test_a_step_is_spconvs(shape):
    """Two sweeps, one far return: loss, every weight's gradient and every batch statistic."""
    far = {(9000, 179, 9000)}
    coords = batch_of(street(0) | far, street(1, 2000))
    torch.manual_seed(0)
    mine = UNet(shape, 3, 21).train()
    theirs = copy.deepcopy(mine)
    features = torch.randn(len(coords), 3)
    labels = torch.arange(len(coords)) % 21
    with mock.patch.object(unet, "compiled", lambda _: False):
        expected = ce_lovasz(theirs(features, coords, 2), labels)
    got = ce_lovasz(mine(features, coords, 2), labels)
    assert abs(got.item() - expected.item()) < 1e-5 * expected.item()
    got.backward()
    expected.backward()
    for (name, a), b in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        near = 2e-3 * float(b.grad.abs().max()) + 1e-7
        assert float((a.grad - b.grad).abs().max()) < near, name
    for (name, a), b in zip(mine.named_buffers(), theirs.buffers(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("cin", [8, 16, 24, 40, 48, 56, 64, 80, 112])
def test_every_width_of_vectors_gives_the_same(cin):
    """Sixteen and eight floats to the bit, where the processor has both; four have no FMA."""
    over = rows(torch.zeros(0), batch_of(street(4)), 3).maps["subm0"]
    x, weight = torch.randn(over.pairs.rows, cin), torch.randn(120 - cin, 27, cin)
    found = {}
    for lanes in (16, 8, 4):
        call("use_lanes", lanes)
        leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
        out = convolve(*leaves, over)
        out.square().sum().backward()
        found[lanes] = out.detach(), *(leaf.grad for leaf in leaves)
    call("use_lanes", 16)
    for wide, eight, four in zip(*found.values(), strict=True):
        assert torch.equal(wide, eight)
        assert float((four - eight).abs().max()) < 1e-5 * float(eight.abs().max())


def test_the_same_bits_on_any_number_of_cores():
    coords = batch_of(street(2, 4000, 20))
    over = rows(torch.zeros(0), coords, 3).maps["subm0"]
    x, weight = torch.randn(len(coords), 24), torch.randn(56, 27, 24)
    found = []
    for threads in (1, 2, 3, 2):
        call("use_threads", threads)
        leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
        out = convolve(*leaves, over)
        out.square().sum().backward()
        found.append((out.detach(), *(leaf.grad for leaf in leaves)))
    call("use_threads", torch.get_num_threads())
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_sweeps_of_a_batch_never_meet():
    one = side_by_side(batch_of({(0, 0, 0), (15, 3, 1)}, {(-7, 0, 0)}, {(0, 0, 0)}).numpy())
    assert np.diff(one[:, 0]).tolist() == [15, 17 + 9, 23]
    assert len(side_by_side(np.zeros((0, 4), np.int32))) == 0
    for wrong in ([[0, 1, 0, 0], [0, 0, 0, 0]], [[0, 1, 0, 0]] * 2, [[1, 0, 0, 0], [0, 1, 0, 0]]):
        with pytest.raises(ValueError, match="lexicographic"):
            side_by_side(np.array(wrong, np.int32))


def test_without_the_library_spconv_trains():
    network = UNet(SHAPES[0], 3, 8).eval()
    coords = batch_of(street(3, 50))
    without = mock.patch.object(convolution, "library", lambda: None)
    with without, mock.patch.object(unet, "convolved", side_effect=AssertionError):
        network(torch.ones(len(coords), 3), coords, 1).sum().backward()
    assert network.stem[0].weight.grad.any()
