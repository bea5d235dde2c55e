"""Panoptic quality against nuScenes' devkit, SemanticKITTI's published example, and sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nuscenes.eval.panoptic.panoptic_seg_evaluator import PanopticEval

from afov.panoptic_quality import (
    PanopticQuality,
    no_sweeps,
    panoptic_quality,
    panoptic_summary,
)
from afov.splits import Split
from afov.vocabulary import Category, Vocabulary

CLASSES = 4
Scene = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Truth and a prediction that is the truth with faults: runs of points relabelled."""
    size = draw(st.integers(1, 120))
    seed = draw(st.integers(0, 2**32 - 1))
    faults = draw(st.integers(0, 12))
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(0, CLASSES + 1, size), rng.integers(1, 9, size))[:size]
    instance = np.repeat(rng.integers(0, 5, size), rng.integers(1, 9, size))[:size]
    said, number = truth.copy(), instance * 7 % 5  # ids of a prediction are its own
    for _ in range(faults):
        begin, length = rng.integers(0, size), rng.integers(1, 15)
        part = slice(begin, begin + length)
        if rng.random() < 0.5:
            said[part] = rng.integers(0, CLASSES + 1)
        number[part] = rng.integers(0, 5)
    return truth, instance, said, number


def ours(scenes_: list[Scene], min_points: int, classes: int = CLASSES) -> PanopticQuality:
    return sum(
        (panoptic_quality(*scene, classes, min_points) for scene in scenes_), no_sweeps(classes)
    )


def officially(scenes_: list[Scene], min_points: int, offset: int = 2**32) -> PanopticEval:
    """SemanticKITTI's evaluator is this code with an offset of 100,000."""
    judge = PanopticEval(CLASSES + 1, ignore=[0], offset=offset, min_points=min_points)
    for truth, instance, said, number in scenes_:
        judge.addBatch(said, number, truth, instance)
    return judge


@given(st.lists(scenes(), min_size=1, max_size=4), st.sampled_from([1, 4, 15]))
@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize("offset", [2**32, 100_000])
def test_every_figure_is_the_official_evaluators(
    offset: int, scenes_: list[Scene], min_points: int
) -> None:
    quality, judge = ours(scenes_, min_points), officially(scenes_, min_points, offset)
    pq, sq, rq, *per_class = judge.getPQ()
    mean_iou, ious = judge.getSemIoU()
    # They count a class that is absent as 0.
    mine = [np.nan_to_num(v) for v in (quality.pq, quality.sq, quality.rq)]
    for figure, (mean, theirs) in zip(mine, zip((pq, sq, rq), per_class, strict=True), strict=True):
        np.testing.assert_allclose(figure, theirs[1:], atol=1e-9)
        assert figure.mean() == pytest.approx(mean, abs=1e-9)
    np.testing.assert_allclose(np.nan_to_num(quality.iou), ious[1:], atol=1e-9)
    assert np.nan_to_num(quality.iou).mean() == pytest.approx(mean_iou, abs=1e-9)


@given(scenes(), st.sampled_from([1, 4]))
@settings(deadline=None)
def test_segments_are_sets_of_points(scene: Scene, min_points: int) -> None:
    """Kirillov's definition, set by set."""
    truth, instance, said, number = scene
    counted = [k for k in range(len(truth)) if truth[k]]
    for c in range(1, CLASSES + 1):
        true = [
            {k for k in counted if truth[k] == c and instance[k] == i} for i in np.unique(instance)
        ]
        found = [{k for k in counted if said[k] == c and number[k] == i} for i in np.unique(number)]
        true, found = [s for s in true if s], [s for s in found if s]
        pairs = [(a, b) for a in true for b in found if len(a & b) / len(a | b) > 0.5]
        missed = [a for a in true if a not in [p for p, _ in pairs] and len(a) >= min_points]
        false = [b for b in found if b not in [p for _, p in pairs] and len(b) >= min_points]
        quality = panoptic_quality(*scene, CLASSES, min_points)
        overlaps = [len(a & b) / len(a | b) for a, b in pairs]
        assert quality.met[c - 1] == len(pairs)
        assert quality.met_iou[c - 1] == pytest.approx(sum(overlaps))
        assert quality.missed[c - 1] == len(missed) and quality.false[c - 1] == len(false)
        if pairs or missed or false:
            quotient = sum(overlaps) / (len(pairs) + len(missed) / 2 + len(false) / 2)
            assert quality.pq[c - 1] == pytest.approx(quotient)
        else:
            assert np.isnan([quality.pq[c - 1], quality.sq[c - 1], quality.rq[c - 1]]).all()


def test_the_example_of_semantickittis_evaluator() -> None:
    """Grass, sky, persons and a dog taken for a person; the figures that its authors print."""
    runs = [  # points, truth, its instance, prediction, its instance
        (50, 0, 0, 0, 0), (40, 1, 0, 1, 0), (10, 1, 0, 2, 0), (40, 2, 0, 2, 0), (10, 2, 0, 1, 0),
        (50, 4, 22, 3, 35), (150, 3, 33, 3, 8), (50, 3, 42, 3, 8), (100, 3, 11, 3, 95),
    ]  # fmt: skip
    columns = np.repeat([run[1:] for run in runs], [run[0] for run in runs], axis=0).T
    quality = panoptic_quality(*columns, 4, 1)
    figures = [quality.pq.mean(), quality.sq.mean(), quality.rq.mean(), quality.iou.mean()]
    assert figures == pytest.approx([0.4791666667, 0.5520833333, 0.6666666667, 0.5476190476])
    assert quality.pq == pytest.approx([0.6666666667, 0.6666666667, 0.5833333333, 0])


@pytest.fixture
def vocabulary() -> Vocabulary:
    kinds = {"car": True, "road": False, "tree": False, "person": True}
    return Vocabulary("v", tuple(Category(n, (n,), (0, 0, 0), t) for n, t in kinds.items()))


def test_groups_are_means_over_their_classes(vocabulary: Vocabulary) -> None:
    truth = np.repeat([1, 2, 3, 4], 20)
    instance = np.where(np.isin(truth, (1, 4)), 1, 0)
    said = truth.copy()
    said[20:35], said[60:80] = 3, 1  # road for tree, the person for a car
    quality = panoptic_quality(truth, instance, said, np.where(said == 1, 1, 0), 4, 1)
    found = panoptic_summary(quality, vocabulary, Split.of(vocabulary, ("tree", "person")))
    # The car and the person are one segment of 40 points now, of which half is not enough.
    assert quality.pq.tolist() == pytest.approx([0, 0, 20 / 35, 0])
    assert found["things"]["PQ"] == 0 and found["stuff"]["PQ"] == pytest.approx(10 / 35)
    assert found["novel stuff"]["PQ"] == pytest.approx(20 / 35) and found["base"]["PQ"] == 0
    assert found["novel"]["PQ"] == pytest.approx(10 / 35)
    assert found["all"]["PQ-dagger"] == pytest.approx((0 + 5 / 20 + 20 / 35 + 0) / 4)
    assert found["all"]["mIoU"] == pytest.approx((0.5 + 5 / 20 + 20 / 35 + 0) / 4)
    assert set(panoptic_summary(quality, vocabulary)) == {"all", "things", "stuff"}


def test_a_class_that_is_absent_is_in_no_mean(vocabulary: Vocabulary) -> None:
    ones = np.ones(30, int)
    quality = panoptic_quality(ones, ones, ones, ones, 4, 15)
    found = panoptic_summary(quality, vocabulary)
    assert found["all"] == {"PQ": 1, "SQ": 1, "RQ": 1, "PQ-dagger": 1, "mIoU": 1}
    assert np.isnan(found["stuff"]["PQ"]) and np.isnan(quality.pq).tolist() == [0, 1, 1, 1]


def test_an_id_of_sixteen_bits_meets_no_other() -> None:
    """SemanticKITTI's own offset would mix instances from 100,000 on; ours takes 32 bits."""
    truth, instance = np.ones(60, int), np.repeat([1, 100_001, 2**32 - 1], 20)
    quality = panoptic_quality(truth, instance, truth, instance, 1, 1)
    assert quality.met.tolist() == [3] and quality.pq.tolist() == [1]


@pytest.mark.parametrize(
    ("scene", "said"),
    [
        (([1], [0], [1, 1], [0]), "equal lengths"),
        (([5], [0], [1], [0]), "class id outside"),
        (([1], [-1], [1], [0]), "instance id outside"),
        (([1], [0], [1], [2**32]), "instance id outside"),
    ],
)
def test_what_cannot_be_counted_is_refused(scene: tuple[list[int], ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        panoptic_quality(*(np.array(column) for column in scene), CLASSES, 1)
