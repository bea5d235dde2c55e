"""The losses against the official code's values."""

from __future__ import annotations

import numpy as np
import torch

from afov_train.losses import ce_lovasz


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
