"""Classes of embeddings: compiled and in NumPy."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from afov import native, text_bank
from afov.text_bank import TextBank
from afov.vocabulary import Vocabulary


def bank(width: int) -> TextBank:
    vocabulary = Vocabulary.load("nuscenes16")
    rows = np.random.default_rng(0).normal(size=(len(vocabulary.phrases), width))
    return TextBank(vocabulary, (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float32))


@pytest.mark.parametrize("count", [0, 1, 700])
@pytest.mark.parametrize("width", [21, 128])
def test_compiled_classes_are_numpys(count: int, width: int) -> None:
    if native.library() is None:
        pytest.skip("the compiled library was not built")
    rows = np.random.default_rng(1).normal(size=(count, width)).astype(np.float32)
    rows[::9] = 0
    mine, theirs = rows.copy(), rows.copy()
    class_id, score = bank(width).classify(mine, 0.05)
    with mock.patch.object(text_bank, "library", lambda: None):
        expected_id, expected_score = bank(width).classify(theirs, 0.05)
    np.testing.assert_allclose(mine, theirs, atol=1e-6)
    np.testing.assert_allclose(score, expected_score, atol=1e-5)
    np.testing.assert_array_equal(class_id, expected_id)
    assert class_id.dtype == expected_id.dtype and score.dtype == expected_score.dtype


def test_the_class_is_the_one_with_the_nearest_phrase() -> None:
    texts = bank(16)
    owner = texts.vocabulary.phrase_class_id
    class_id, score = texts.classify(3 * texts.embeddings[owner > 0], 0.01)
    np.testing.assert_array_equal(class_id, owner[owner > 0])
    likely = texts.probabilities(texts.embeddings, 0.01)
    np.testing.assert_allclose(likely.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(likely[owner > 0].max(1), score, atol=1e-5)
    assert not likely[:, 0].any()
