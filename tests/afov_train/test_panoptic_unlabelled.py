"""What is not labelled: kept to the images, grouped by them, and given masks; by brute force."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from afov.vocabulary import Vocabulary
from afov_train.losses import ce_lovasz
from afov_train.network.config import NetworkConfig
from afov_train.panoptic.config import PUBLISHED, LossConfig, PanopticConfig
from afov_train.panoptic.decoder import Prediction
from afov_train.panoptic.losses import unlabelled_loss
from afov_train.panoptic.targets import (
    ALIKE,
    LEAST,
    MEMBERS,
    BaseClasses,
    Objects,
    objects_of,
    segments,
)
from afov_train.panoptic.training import PanopticTraining, build_panoptic
from afov_train.teachers.config import TeacherConfig
from afov_train.teachers.open_clip_teacher import OpenClipTeacher

VOCABULARY = Vocabulary.load("nuscenes16")
BASE = ("car", "driveable_surface")
WIDTH = 96  # of the embedded towers
QUERIES = 5  # that are matched, besides the one of the driveable surface


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def focal(x, t):
    p = sigmoid(x)
    return np.where(t > 0, -0.25 * (1 - p) ** 2 * np.log(p), -0.75 * p**2 * np.log(1 - p))


def mask_loss(x, t):
    p = sigmoid(x)
    return focal(x, t).mean() + 2 * (1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))


def scene(seed=0):
    """Labels and image features: a car, the street, two groups without a label, and few more."""
    rng = np.random.default_rng(seed)
    ids = [1 + [c.name for c in VOCABULARY.labelled].index(name) for name in BASE]
    size = [LEAST + 2, 30, MEMBERS + 8, MEMBERS + 1, 3]
    class_id = np.repeat([*ids, 0, 0, 0], size)
    instance_id = np.repeat([4, 0, 0, 0, 0], size)
    image = np.repeat(np.eye(5, WIDTH), size, 0) + rng.normal(0, 0.02, (len(class_id), WIDTH))
    image = unit(image)
    image[[0, 9, 40]] = 0  # 40: without a label and unseen
    order = rng.permutation(len(class_id))
    return class_id[order], instance_id[order], image[order]


def grouped(image):
    """The groups, voxel by voxel."""
    left = [v for v in range(len(image)) if image[v].any()]
    middles, found = list(left), []
    while True:
        near = [[v for v in left if image[m] @ image[v] > ALIKE] for m in middles]
        largest = max(near, key=len, default=[])
        if len(largest) < MEMBERS:
            return found
        found.append(set(largest))
        left = [v for v in left if v not in found[-1]]


def test_unlabelled_loss_and_its_gradient():
    rng = np.random.default_rng(0)
    own, image = rng.normal(0, 3, (30, 6)), unit(rng.normal(size=(30, 6)))
    image[:4] = 0
    unlabelled = rng.random(30) > 0.5
    value, gradient = 0.0, np.zeros_like(own)
    for v in range(4, 30):
        if unlabelled[v]:
            e, f, length = own[v], image[v], np.linalg.norm(own[v])
            value += (1 - e @ f / length) / 26
            gradient[v] = -(f / length - e * (e @ f) / length**3) / 26
    rows = torch.from_numpy(own).requires_grad_()
    got = unlabelled_loss(rows, torch.from_numpy(image), torch.from_numpy(unlabelled))
    got.backward()
    assert got.item() == pytest.approx(value, abs=1e-12)
    assert np.allclose(rows.grad, gradient, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_segments_are_groups_of_alike_image_features(seed):
    rng = np.random.default_rng(seed)
    middle = unit(rng.normal(size=(6, 5)))[rng.integers(0, 6, 300)]
    image = unit(middle + rng.normal(0, 0.2, (300, 5)))
    image[rng.random(300) < 0.1] = 0
    wanted = grouped(image)
    got = segments(torch.from_numpy(image))
    assert len(wanted) > 1
    assert [set(np.flatnonzero(mask)) for mask in got.numpy()] == wanted
    assert not segments(torch.from_numpy(image[: MEMBERS - 1])).numel()
    assert segments(torch.zeros(7, 5)).shape == (0, 7)


def test_no_labelled_voxel_is_in_a_segment():
    class_id, instance_id, image = (torch.from_numpy(v) for v in scene())
    objects = objects_of(class_id, instance_id, BaseClasses.of(VOCABULARY, BASE), image)
    assert len(objects.segments) == 2
    assert not (objects.segments.bool() & (class_id > 0)).any()
    assert torch.equal(objects.judged, objects.labelled | objects.segments.any(0))
    paper = objects_of(class_id, instance_id, BaseClasses.of(VOCABULARY, BASE))
    assert not len(paper.segments) and torch.equal(paper.judged, objects.labelled)


@pytest.fixture(scope="module")
def stages():
    """With segments, and in the paper's form; float64."""
    bank = OpenClipTeacher(TeacherConfig(), VOCABULARY).text_bank
    made = []
    for losses in (LossConfig(), PUBLISHED):
        torch.manual_seed(0)
        base, config = BaseClasses.of(VOCABULARY, BASE), PanopticConfig(losses=losses)
        network = build_panoptic(NetworkConfig(), bank, base, config)
        made.append(PanopticTraining(network, bank, base, config).double())
    return made


def of_layer(stage, seed=0):
    """The losses of made up answers to the scene, voxels in the order of the training."""
    class_id, instance_id, image = scene(seed)
    alike = torch.from_numpy(image) if stage.config.losses.segments else None
    of = torch.from_numpy(class_id), torch.from_numpy(instance_id)
    objects = objects_of(*of, stage.base, alike)
    order = (2 * objects.labelled + objects.segments.any(0)).argsort(descending=True, stable=True)
    objects = Objects(
        *(v.double() if v.is_floating_point() else v for v in objects.of_voxels(order))
    )
    rng = np.random.default_rng(1)
    embedding = torch.from_numpy(unit(rng.normal(size=(QUERIES + 1, WIDTH)))).requires_grad_()
    mask = torch.from_numpy(rng.normal(0, 2, (QUERIES + 1, len(order)))).requires_grad_()
    prediction = Prediction(embedding, mask, mask.detach())
    found = stage.of_layer(prediction, objects, torch.from_numpy(image[order]), 0)
    own = torch.from_numpy(rng.normal(size=(len(order), WIDTH))).requires_grad_()
    found["auxiliary"] = stage.auxiliary(own, objects)
    return found, prediction, class_id[order], image[order], own


def test_every_segment_and_every_thing_has_its_own_mask(stages):
    """The value by the cheapest of all assignments, its gradient by differences."""
    losses, prediction, class_id, image, _ = of_layer(stages[0])
    groups = grouped(image * (class_id == 0)[:, None])
    car, street = ((class_id == i).astype(float) for i in stages[0].base.ids)
    judged = (class_id > 0) | np.isin(np.arange(len(class_id)), list(set().union(*groups)))
    wanted = [car, *(np.isin(np.arange(len(class_id)), list(g)).astype(float) for g in groups)]

    def brute(x):
        cost = [[mask_loss(row[judged], t[judged]) for t in wanted] for row in x]
        best = min(
            permutations(range(QUERIES), len(wanted)),
            key=lambda order: sum(cost[q][g] for g, q in enumerate(order)),
        )
        things = (cost[best[0]][0] + mask_loss(x[-1][judged], street[judged])) / 2
        return things, np.mean([cost[q][g] for g, q in enumerate(best) if g]), best

    x = prediction.mask.detach().numpy()
    things, others, best = brute(x)
    assert float(losses["mask"]) == pytest.approx(things, abs=1e-10)
    assert float(losses["segments"]) == pytest.approx(others, abs=1e-10)
    (losses["mask"] + losses["segments"]).backward()
    for query, voxel in ((q, v) for q in (*best, QUERIES) for v in (0, 20, 50, 70)):
        moved = [x.copy(), x.copy()]
        for sign, one in zip((1, -1), moved, strict=True):
            one[query, voxel] += sign * 1e-5
        up, down = (sum(brute(one)[:2]) for one in moved)
        wanted_slope = (up - down) / 2e-5
        assert float(prediction.mask.grad[query, voxel]) == pytest.approx(wanted_slope, abs=1e-8)


def test_base_masks_end_where_segments_begin(stages):
    """In the paper's form nothing keeps the street's mask from what is not labelled."""
    slopes = []
    for stage in stages:
        losses, prediction, class_id, image, _ = of_layer(stage)
        losses["mask"].backward()
        inside = list(set().union(*grouped(image * (class_id == 0)[:, None])))
        slopes.append(prediction.mask.grad[-1, inside])
        assert ("segments" in losses) == bool(stage.config.losses.segments)
    assert (slopes[0] > 0).all() and not slopes[1].any()


def cosines(stage, rows, nameless):
    """Of every base class by its best phrase, and of every segment."""
    text, owner = stage.text.numpy(), np.repeat(np.arange(len(BASE)), stage.phrases)
    named = [(rows @ text[owner == k].T).max(1) for k in range(len(BASE))]
    return np.stack([*named, *(rows @ f for f in nameless)], 1)


def test_a_segment_is_a_class_without_a_name(stages):
    """For queries and voxels: its image feature stands where the others have their text."""
    stage = stages[0]
    losses, prediction, class_id, image, own = of_layer(stage)
    groups = [sorted(g) for g in grouped(image * (class_id == 0)[:, None])]
    nameless = [unit(image[g].sum(0, keepdims=True))[0] for g in groups]
    rows = own.detach().numpy()
    cosine = cosines(stage, unit(rows), nameless) / stage.config.temperature
    target = np.full(len(class_id), -1)
    for k, i in enumerate(stage.base.ids):
        target[class_id == i] = k
    for u, g in enumerate(groups):
        target[g] = len(BASE) + u
    known = target >= 0
    logits = torch.from_numpy(np.pad(cosine[known], ((0, 0), (1, 0)), constant_values=-1e4))
    wanted = ce_lovasz(logits, torch.from_numpy(1 + target[known]))
    assert float(losses["auxiliary"].detach()) == pytest.approx(float(wanted), abs=1e-8)

    embedding = prediction.embedding.detach().numpy()
    decoder, x = stage.network.decoder, cosines(stage, embedding, nameless)
    x = np.exp(decoder.log_scale.item()) * x + decoder.bias.item()
    masks = [target == k for k in (0, *range(len(BASE), len(BASE) + len(groups)))]
    mask = prediction.mask.detach().numpy()[:, known]
    best = min(
        permutations(range(QUERIES), len(masks)),
        key=lambda o: sum(mask_loss(mask[q], m[known]) for q, m in zip(o, masks, strict=True)),
    )
    t = np.zeros_like(x)
    t[[*best, QUERIES], [0, *range(len(BASE), x.shape[1]), 1]] = 1
    assert float(losses["classes"].detach()) == pytest.approx(focal(x, t).sum() / t.sum(), abs=1e-8)
    answers = prediction.mask.detach().numpy()
    alike = [
        1 - embedding[q] @ unit(image[answers[q] > 0].sum(0, keepdims=True))[0]
        for q in (*best, QUERIES)
    ]
    assert float(losses["object"].detach()) == pytest.approx(np.mean(alike), abs=1e-8)
