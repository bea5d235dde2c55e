"""The losses against the official code's values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from afov_train.losses import (
    _falling,
    best_cosine,
    ce_lovasz,
    soft_targets,
    superpoint_means,
    tmp_losses,
)


def test_value_and_gradient_are_the_official_codes(shared):
    golden = np.load(shared / "golden/af_loss_1.npz")
    logits = torch.tensor(golden["logits"]).double().requires_grad_()
    loss = ce_lovasz(logits, torch.tensor(golden["labels"]).long())
    loss.backward()
    assert abs(float(loss.detach()) - float(golden["loss"])) < 1e-6
    assert np.abs(logits.grad.numpy() - golden["grad"]).max() < 1e-6


def test_a_batch_without_labels_costs_nothing():
    logits = torch.randn(5, 4, requires_grad=True)
    loss = ce_lovasz(logits, torch.zeros(5, dtype=torch.long))
    loss.backward()
    assert loss == 0 and logits.grad.abs().sum() == 0


@pytest.fixture(params=[1, 2])
def golden(request, shared):
    return np.load(shared / f"golden/tmp_loss_{request.param}.npz")


def of_golden(golden):
    """Pairs of voxel and segment, and the segments that any voxel falls in, from its own maps."""
    image, row, col = golden["pairing_images"].T
    ids = golden["superpixels"][image, row, col].astype(np.int64)
    table = golden["features"]
    keys = {(int(i), int(k) + 1): n for n, (i, k) in enumerate(table[:, :2])}
    rows = np.array([keys.get((int(i), int(k)), -1) for i, k in zip(image, ids, strict=True)])
    kept = rows >= 0
    met, segment = np.unique(rows[kept], return_inverse=True)
    tensors = (golden["pairing_points"][kept], segment, table[met, 3:], table[met, 2])
    voxel, segment, feature, phrase = map(torch.tensor, tensors)
    return voxel, segment, feature.double(), phrase.long()


def test_tmp_is_the_official_codes_in_value_and_gradient(golden):
    voxel, segment, feature, phrase = of_golden(golden)
    embeddings = torch.tensor(golden["P"]).double().requires_grad_()
    text = torch.tensor(golden["text_embedding"]).double()
    category = torch.tensor(golden["text_category"])
    superpoints = superpoint_means(embeddings, voxel, segment, len(phrase))
    assert np.abs(superpoints.detach().numpy() - golden["superpoints_k"]).max() < 1e-6
    unit = torch.nn.functional.normalize(text, dim=1)
    target = soft_targets(unit, category, phrase)
    assert np.abs(target.numpy() - golden["y"]).max() < 1e-6
    losses = tmp_losses(superpoints, feature, text, category, phrase)
    total = 0.5 * losses[0] + 0.5 * losses[1]
    for loss, name, gradient in zip(
        (*losses, total), ("L_I", "L_T", "total"), ("grad_LI", "grad_LT", "grad_total"), strict=True
    ):
        assert abs(float(loss.detach()) - float(golden[name])) < 1e-6
        found = torch.autograd.grad(loss, embeddings, retain_graph=True)[0]
        assert np.abs(found.numpy() - golden[gradient]).max() < 1e-6


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), max_size=50))
def test_errors_fall_as_torch_sorts_them(values):
    errors = torch.tensor(values, dtype=torch.float32).abs()
    assert torch.equal(_falling(errors), errors.argsort(descending=True, stable=True))


def test_a_class_scores_as_its_nearest_phrase_in_value_and_gradient():
    rng = torch.Generator().manual_seed(0)
    phrases = [3, 1, 5]
    text = normalize(torch.randn(9, 12, generator=rng, dtype=torch.float64), dim=1)
    embeddings = (7 * torch.randn(40, 12, generator=rng, dtype=torch.float64)).requires_grad_()
    cosines = (normalize(embeddings, dim=1) @ text.T).split(phrases, 1)
    expected = torch.stack([cosine.amax(1) for cosine in cosines], 1)
    got = best_cosine(embeddings, text, phrases)
    assert torch.allclose(got, expected, atol=1e-12)
    along = torch.randn(got.shape, generator=rng, dtype=torch.float64)
    (mine,) = torch.autograd.grad(got, embeddings, along)
    (true,) = torch.autograd.grad(expected, embeddings, along)
    assert torch.allclose(mine, true, atol=1e-12)


def test_an_embedding_of_nothing_is_no_error():
    nothing = torch.zeros(2, 4, requires_grad=True)
    best_cosine(nothing, torch.eye(4), [2, 2]).sum().backward()
    assert torch.isfinite(nothing.grad).all()
    assert best_cosine(torch.zeros(0, 4), torch.eye(4), [2, 2]).shape == (0, 2)


def test_under_amp_the_best_cosine_is_that_of_32_bits():
    rng = torch.Generator().manual_seed(3)
    text = normalize(torch.randn(6, 8, generator=rng), dim=1)
    embeddings = torch.randn(20, 8, generator=rng).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        got = best_cosine(embeddings, text, [2, 3, 1])
        got.sum().backward()
    assert got.dtype == torch.float32
    assert torch.allclose(got, best_cosine(embeddings.detach().float(), text, [2, 3, 1]))
    assert torch.isfinite(embeddings.grad).all() and embeddings.grad.dtype == torch.bfloat16
