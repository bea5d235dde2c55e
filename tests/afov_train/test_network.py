"""The spconv network: batches, negative voxels, far returns, and a gradient on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from afov_train.losses import ce_lovasz
from afov_train.network.config import SHAPES, NetworkConfig
from afov_train.network.unet import build_network

torch.set_num_threads(1)


def sweep(seed, low, high, count=600):
    rng = np.random.default_rng(seed)
    coords = np.unique(rng.integers(low, high, (count, 3)), axis=0).astype(np.int32)
    return torch.from_numpy(rng.normal(size=(len(coords), 3)).astype(np.float32)), coords


def batched(*coords):
    rows = [np.pad(c, ((0, 0), (1, 0)), constant_values=i) for i, c in enumerate(coords)]
    return torch.from_numpy(np.concatenate(rows))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network(NetworkConfig(), 8).eval()


@torch.inference_mode()
def test_a_sweep_in_a_batch_is_the_sweep_alone(network):
    (fa, ca), (fb, cb) = sweep(0, -7, 6), sweep(1, 3, 14)
    together = network(torch.cat((fa, fb)), batched(ca, cb), 2)
    alone = torch.cat((network(fa, batched(ca), 1), network(fb, batched(cb), 1)))
    assert torch.allclose(together, alone, atol=1e-4 * float(alone.abs().max()))


@torch.inference_mode()
@pytest.mark.parametrize("far", [(9000, 179, 9000), (9999, -180, -9999)])
def test_one_far_return_changes_nothing_near(network, far):
    features, coords = sweep(2, -7, 6)
    expected = network(features, batched(coords), 1)
    more = np.concatenate((coords, np.array([far], np.int32)))
    got = network(torch.cat((features, features[:1])), batched(more), 1)[:-1]
    assert torch.allclose(got, expected, atol=1e-4 * float(expected.abs().max()))


def test_every_weight_learns(network):
    fresh = build_network(NetworkConfig(), 8).train()
    features, coords = sweep(3, -7, 6)
    labels = torch.from_numpy(np.arange(len(coords)) % 8)
    ce_lovasz(fresh(features, batched(coords), 1), labels).backward()
    without = [n for n, p in fresh.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_sizes_are_the_papers():
    assert SHAPES["minkunet34c"].layers == (2, 3, 4, 6, 2, 2, 2, 2)
    assert SHAPES["minkunet34c"].planes == (32, 64, 128, 256, 256, 128, 96, 96)
    small = sum(p.numel() for p in build_network(NetworkConfig(), 128).parameters())
    large = sum(p.numel() for p in build_network(NetworkConfig("minkunet34c"), 512).parameters())
    assert small < 4e6 and 37e6 < large < 39e6
