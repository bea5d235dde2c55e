"""Labelled clouds, point by point."""

from __future__ import annotations

import numpy as np

from afov.frames import Sweep
from afov.labelled import inside_box, labelled_points, similar_points
from afov.student import Labels
from afov.text_bank import TextBank
from afov.vocabulary import Vocabulary, distinct_color

XYZ = np.array([[1, 0, 0], [0, 2, 0], [np.nan, 0, 0], [0, 0, 3]], np.float32)
SWEEP = Sweep(XYZ, ("x", "y", "z"), 0, "lidar")
# Two voxels; the point that is not finite lies in none.
LABELS = Labels(
    np.array([1, 2, 0, 1], np.uint8),
    np.array([0.9, 0.4, 0, 0.9], np.float32),
    np.array([[1, 0], [0.6, 0.8]], np.float32),
    np.array([0, 1, -1, 0]),
    {},
)


def test_a_point_of_a_semantic_model_carries_its_vocabulary_and_no_instance() -> None:
    vocabulary = Vocabulary.of_phrases(["car", "tree"])
    points = labelled_points(SWEEP, LABELS, vocabulary, 0.5, version=513)
    assert points["vocabulary"].tolist() == [513] * 4
    assert points["class_id"].tolist() == [1, 255, 255, 1]
    assert points["instance_id"].tolist() == [0] * 4
    assert points.dtype.itemsize == 32


def test_similar_points_are_those_above_the_threshold_and_never_the_unknown() -> None:
    row = np.array([0.6, 0.8], np.float32)
    rivals = np.array([[1, 0], [0, 1]], np.float32)
    points, highest = similar_points(SWEEP, LABELS, row, rivals, 0.7)
    assert points["y"].tolist() == [2.0] and highest == 1.0
    points, _ = similar_points(SWEEP, LABELS, row, rivals, -1.0)
    assert points["z"].tolist() == [0.0, 0.0, 3.0]
    np.testing.assert_allclose(points["similarity"], [0.6, 1.0, 0.6], atol=1e-6)
    # The first voxel is the first rival's, the second one's best rival is the second.
    np.testing.assert_allclose(points["margin"], [-0.4, 0.2, -0.4], atol=1e-6)
    alone, _ = similar_points(SWEEP, LABELS, row, rivals[:0], 0.7)
    assert alone["margin"] == 2.0  # no rival: as far from all others as can be


def test_a_phrase_has_no_rival_in_its_own_class() -> None:
    bank = TextBank(Vocabulary.of_phrases(["car", "tree"]), np.eye(2, dtype=np.float32))
    assert bank.rivals("car").tolist() == [[0, 1]]
    assert bank.rivals("lorry").tolist() == [[1, 0], [0, 1]]


def test_a_box_turns_with_its_frame() -> None:
    quarter = np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    ahead = (0.5, -0.1, -0.1, 3.0, 0.1, 0.1)
    assert inside_box(XYZ, np.eye(4), ahead).tolist() == [True, False, False, False]
    # What lies to the right of the sensor lies ahead of a frame that is turned to it.
    right = np.array([[0, -2, 0]], np.float32)
    assert inside_box(right, quarter, ahead).all() and not inside_box(right, np.eye(4), ahead).any()


def test_phrases_make_a_vocabulary_with_colours_of_their_own() -> None:
    vocabulary = Vocabulary.of_phrases(["fork lift", "pallet"])
    assert vocabulary.names == ("unlabelled", "fork lift", "pallet")
    assert vocabulary.phrases == ("fork lift", "pallet")
    colors = [np.array(distinct_color(i)) for i in range(12)]
    gaps = [np.abs(a - b).max() for i, a in enumerate(colors) for b in colors[:i]]
    assert min(gaps) > 30
