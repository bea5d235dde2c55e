"""Questions are compared by the classes that all of them hold."""

from __future__ import annotations

import numpy as np
import pytest

from afov.vocabulary import Category, Vocabulary
from afov_train.evaluation import Evaluation
from afov_train.report import read_losses


@pytest.fixture
def evaluation():
    names = ("road", "car", "tree")
    classes = tuple(Category(n, (n,), (0, 0, i), False) for i, n in enumerate(names))
    near = np.array([[0, 9, 9, 9], [0, 8, 0, 2], [0, 0, 0, 0], [0, 2, 0, 8]])
    far = np.array([[0, 0, 0, 0], [0, 6, 2, 2], [0, 0, 0, 0], [0, 0, 0, 0]])
    return Evaluation(Vocabulary("v", classes), {"near": near, "far": far}, 3)


def test_a_stray_point_counts_against_its_own_class_alone(evaluation):
    assert evaluation.common.tolist() == [True, False, False]
    assert evaluation.mean_iou("far") == pytest.approx((0.6 + 0 + 0) / 3)
    assert evaluation.mean_iou_of_common("far") == pytest.approx(0.6)
    assert evaluation.mean_iou_of_common("near") == pytest.approx(8 / 12)
    assert evaluation.accuracy("far") == pytest.approx(0.6)


def test_the_table_says_what_it_compares(evaluation, tmp_path):
    rows = {row[0]: row[1:] for row in evaluation.rows()}
    assert rows["mIoU of 1 common"] == ["66.7", "60.0"]
    assert rows["car"] == ["-", "0.0"]
    evaluation.save(tmp_path)
    assert (tmp_path / "metrics.csv").read_text().count("\n") == len(evaluation.rows())


def test_losses_of_an_interrupted_training_are_one_curve(tmp_path):
    for start, rows in ((0, ["9,2.5", "19,2.0"]), (20, ["9,1.5"])):
        part = tmp_path / f"from-{start}"
        part.mkdir()
        (part / "metrics.csv").write_text("step,loss\n" + "\n".join(rows))
    assert read_losses(tmp_path) == {"loss": [(9, 2.5), (19, 2.0), (29, 1.5)]}
    assert read_losses(tmp_path / "none") == {}
