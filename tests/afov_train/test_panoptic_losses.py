"""Losses and matching of the mask decoder against formulas in float64 and brute force."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from afov.vocabulary import Vocabulary
from afov_train.panoptic import losses
from afov_train.panoptic.matching import assign, class_cost, mask_cost
from afov_train.panoptic.targets import LEAST, BaseClasses, objects_of

RNG = np.random.default_rng(0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def focal(x, t):
    p = sigmoid(x)
    return np.where(
        t > 0, -0.25 * (1 - p) ** 2 * np.log(p), -0.75 * p**2 * np.log(1 - p)
    )  # fmt: skip


def dice(x, t):
    p = sigmoid(x)
    return 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)


def masks(count, voxels, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, (count, voxels)), (rng.random((count, voxels)) > 0.6).astype(float)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def features(rows, width=6, seed=0, unseen=()):
    image = unit(np.random.default_rng(seed).normal(size=(rows, width)))
    image[list(unseen)] = 0
    return image


def test_mask_loss_is_focal_plus_twice_dice():
    x, t = masks(3, 50)
    wanted = focal(x, t).mean() + 2 * np.mean([dice(a, b) for a, b in zip(x, t, strict=True)])
    got = losses.mask_loss(torch.from_numpy(x), torch.from_numpy(t))
    assert float(got) == pytest.approx(wanted, abs=1e-10)


def test_class_loss_is_divided_by_the_queries_that_have_an_object():
    x = RNG.normal(0, 2, (7, 4))
    t = np.zeros((7, 4))
    t[[0, 3, 5], [1, 1, 2]] = 1
    got = losses.class_loss(torch.from_numpy(x), torch.from_numpy(t))
    assert float(got) == pytest.approx(focal(x, t).sum() / 3, abs=1e-10)
    alone = losses.class_loss(torch.from_numpy(x), torch.zeros(7, 4).double())
    assert float(alone) == pytest.approx(focal(x, np.zeros((7, 4))).sum(), abs=1e-10)


def test_object_loss_pools_the_covered_voxels_inside_each_mask():
    mask, _ = masks(4, 30)
    mask[3, 5:] = -1  # holds only voxels that no camera sees
    mask[3, :5] = 1
    image = features(30, unseen=range(5))
    embedding = unit(RNG.normal(size=(4, 6)))
    each = []
    for row, e in zip(mask[:3], embedding, strict=False):
        mean = np.mean([image[v] for v in range(5, 30) if row[v] > 0], axis=0)
        each.append(1 - e @ mean / np.linalg.norm(mean))
    got = losses.object_loss(*(torch.from_numpy(v) for v in (embedding, mask, image)))
    assert float(got) == pytest.approx(np.mean(each), abs=1e-10)


def test_voxel_loss_reconstructs_the_covered_voxels():
    mask, _ = masks(4, 20)
    image, embedding = features(20, unseen=(0, 7)), unit(RNG.normal(size=(4, 6)))
    each = []
    for v in set(range(20)) - {0, 7}:
        score = np.exp(mask[:, v])
        made = sum(s * e for s, e in zip(score, embedding, strict=True)) / score.sum()
        each.append(np.abs(made - image[v]).sum())
    got = losses.voxel_loss(*(torch.from_numpy(v) for v in (embedding, mask, image)))
    assert float(got) == pytest.approx(np.mean(each), abs=1e-10)


def test_voxel_loss_is_zero_for_a_perfect_reconstruction():
    image = features(3, seed=3)[[0, 0, 1, 2, 2]]
    mask = torch.full((3, 5), -40.0).double()
    mask[[0, 0, 1, 2, 2], range(5)] = 40
    embedding = torch.from_numpy(features(3, seed=3))
    assert float(losses.voxel_loss(embedding, mask, torch.from_numpy(image))) < 1e-9


def test_centre_loss_asks_for_the_middle_voxel_of_each_thing():
    rng = np.random.default_rng(5)
    xyz, x = rng.uniform(-6, 6, (40, 3)), rng.normal(0, 2, 40)
    t = np.zeros((3, 40))
    for thing, voxels in enumerate((range(9), range(9, 14), [20])):
        t[thing, list(voxels)] = 1
    target = np.zeros(40)
    for mask in t.astype(bool):
        away = np.linalg.norm(xyz[:, :2] - xyz[mask, :2].mean(0), axis=1) ** 2
        fall = np.exp(-(away - away[mask].min()) / 2)
        target[mask] = np.maximum(target, fall)[mask]
    p = sigmoid(x)
    cross = -target * np.log(p) - (1 - target) * np.log(1 - p)
    got = losses.centre_loss(*(torch.from_numpy(v) for v in (x, t, xyz)))
    assert float(got) == pytest.approx(((target - p) ** 2 * cross).sum() / 3, abs=1e-10)
    assert (target == 1).sum() == 3 and not target[21:].any()


def test_nothing_matched_and_nothing_seen_is_zero_with_a_gradient():
    row = torch.randn(0, 6, requires_grad=True)
    everything = torch.randn(3, 6, requires_grad=True)
    blind = torch.zeros(6, 6)
    for value in (
        losses.mask_loss(row, torch.zeros(0, 6)),
        losses.position_loss(row, torch.zeros(0, 6)),
        losses.centre_loss(row[:, 0], torch.zeros(0, 0), torch.zeros(0, 3)),
        losses.object_loss(everything, everything, blind),
        losses.voxel_loss(everything, everything, blind),
    ):
        assert value.item() == 0
        value.backward()


def test_the_losses_reach_masks_and_embeddings():
    mask = torch.randn(4, 20, requires_grad=True)
    embedding = torch.nn.functional.normalize(torch.randn(4, 6), dim=1).requires_grad_()
    image = torch.from_numpy(features(20)).float()
    losses.object_loss(embedding, mask, image).backward()
    assert embedding.grad.abs().sum() > 0 and mask.grad is None, "L_O does not shape masks"
    losses.voxel_loss(embedding, mask, image).backward()
    assert (mask.grad.abs().sum(1) > 0).all(), "L_V reaches every query's mask"


def test_costs_are_the_losses_of_every_pair():
    x, _ = masks(5, 40)
    _, t = masks(3, 40, seed=1)
    wanted = [[focal(a, b).mean() + 2 * dice(a, b) for b in t] for a in x]
    got = mask_cost(torch.from_numpy(x), torch.from_numpy(t))
    assert np.allclose(got, wanted, atol=1e-10)
    logits, classes = RNG.normal(size=(5, 4)), np.array([2, 0, 2])
    wanted = [[focal(r[c], 1) - focal(r[c], 0) for c in classes] for r in logits]
    got = class_cost(torch.from_numpy(logits), torch.from_numpy(classes))
    assert np.allclose(got, wanted, atol=1e-10)


@pytest.mark.parametrize("size", [(5, 3), (3, 3), (3, 5), (4, 0)])
def test_no_assignment_is_cheaper(size):
    cost = np.random.default_rng(7).normal(size=size)
    rows, columns = assign(torch.from_numpy(cost))
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == min(size)
    wide = cost if size[0] >= size[1] else cost.T
    every = permutations(range(len(wide)), wide.shape[1])
    cheapest = min(sum(wide[q, g] for g, q in enumerate(order)) for order in every)
    assert cost[rows, columns].sum() == pytest.approx(cheapest)


def test_labels_become_masks_of_base_classes():
    vocabulary = Vocabulary.load("nuscenes16")
    names = [c.name for c in vocabulary.labelled]
    thing = next(c for c in vocabulary.labelled if c.thing)
    stuff = [c for c in vocabulary.labelled if not c.thing][:2]
    base = BaseClasses.of(vocabulary, [thing.name, *(c.name for c in stuff)])
    a, b, c = (names.index(v.name) + 1 for v in (thing, *stuff))
    # Two things, one of too few voxels, one without an instance; stuff; and what is not labelled.
    size = [1, LEAST, LEAST + 1, LEAST - 1, 1, 1, 1, 1]
    class_id = torch.tensor(np.repeat([0, a, a, a, a, b, b, 0], size))
    instance_id = torch.tensor(np.repeat([0, 3, 9, 7, 0, 0, 5, 4], size))
    objects = objects_of(class_id, instance_id, base)
    of_thing = int(np.flatnonzero(base.ids == a)[0])
    assert objects.classes.tolist() == [of_thing] * 2
    assert objects.masks.tolist() == [
        np.repeat([0, 1, 0, 0, 0, 0, 0, 0], size).tolist(),
        np.repeat([0, 0, 1, 0, 0, 0, 0, 0], size).tolist(),
    ]
    # The other stuff class is not there; its mask is empty, in its own row.
    there = base.ids[base.stuff].tolist().index(b)
    assert objects.stuff[there].tolist() == np.repeat([0, 0, 0, 0, 0, 1, 1, 0], size).tolist()
    assert objects.stuff[1 - there].sum() == 0 and c in base.ids
    judged = np.repeat([False, True, True, False, False, True, True, False], size)
    assert objects.labelled.tolist() == judged.tolist()
