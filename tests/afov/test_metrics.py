from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afov.metrics import confusion, iou, mean_iou


def test_counts_and_ious_are_the_official_codes(shared: Path) -> None:
    with np.load(shared / "golden/metrics_1.npz", allow_pickle=False) as golden:
        matrix = confusion(golden["labels"], golden["preds"], 16)
        np.testing.assert_array_equal(matrix, golden["hist"])
        # Its class absent from both sides counts there as 1; here it is left out.
        present = (golden["hist"][1:, 1:].sum(0) + golden["hist"][1:].sum(1)) > 0
        ours = iou(matrix)
        np.testing.assert_allclose(ours[present], golden["per_class_IoU"][present], atol=1e-6)
        assert np.isnan(ours[~present]).all()
        assert mean_iou(matrix) == pytest.approx(golden["per_class_IoU"][present].mean(), abs=1e-6)


pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=60)


@given(pairs)
def test_iou_is_that_of_sets_of_points(labels: list[tuple[int, int]]) -> None:
    truth = np.array([t for t, _ in labels], np.uint8)
    prediction = np.array([p for _, p in labels], np.uint8)
    ours = iou(confusion(truth, prediction, 4))
    for c in range(1, 5):
        is_c = {i for i, (t, _) in enumerate(labels) if t == c}
        said_c = {i for i, (t, p) in enumerate(labels) if p == c and t != 0}
        if is_c | said_c:
            assert ours[c - 1] == len(is_c & said_c) / len(is_c | said_c)
        else:
            assert np.isnan(ours[c - 1])


def test_nothing_to_compare_has_no_mean() -> None:
    nothing = np.zeros(0, np.uint8)
    assert np.isnan(mean_iou(confusion(nothing, nothing, 3)))


@pytest.mark.parametrize(
    ("truth", "prediction"), [([1, 2], [1]), ([4], [1]), ([1], [4]), ([-1], [1]), ([1], [-1])]
)
def test_labels_that_cannot_be_counted_are_refused(truth: list[int], prediction: list[int]) -> None:
    with pytest.raises(ValueError, match=r"label|class id"):
        confusion(np.array(truth), np.array(prediction), 3)
