"""Names of masks under the model's own vocabulary and under others."""

from __future__ import annotations

import numpy as np
import pytest

from afov.names import Names
from afov.text_bank import TextBank
from afov.vocabulary import Category, Vocabulary

WIDTH = 8


def bank(**classes):
    """Each phrase its own direction; a phrase that stands in two banks has the same one."""
    categories = tuple(
        Category(name, tuple(phrases), (0, 0, 0), thing=name != "road")
        for name, phrases in classes.items()
    )
    vocabulary = Vocabulary("test", categories)
    directions = {p: i for i, p in enumerate(("car", "auto", "bus", "road", "tree", "cat"))}
    rows = np.eye(WIDTH, dtype=np.float32)[[directions[p] for p in vocabulary.phrases]]
    return TextBank(vocabulary, rows)


OWN = bank(car=["car", "auto"], bus=["bus"], road=["road"])
CAR, AUTO, BUS, ROAD, TREE, CAT = np.eye(WIDTH, dtype=np.float32)[:6]


def test_under_the_model_s_own_vocabulary_there_are_no_rivals():
    rows = np.random.default_rng(0).normal(size=(5, WIDTH)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = Names(OWN, OWN, 0.1)
    assert not names.rival.any() and names.classes == OWN.vocabulary.labelled
    assert np.allclose(names.probabilities(rows), OWN.probabilities(rows, 0.1)[:, 1:], atol=1e-6)


def test_a_vocabulary_of_one_class_is_not_true_of_everything():
    names = Names(bank(vehicle=["auto"]), OWN, 0.1)
    rows = np.stack((AUTO, BUS, ROAD))
    assert names.text_bank.probabilities(rows, 0.1)[:, 1].tolist() == [1, 1, 1]
    likely = names.probabilities(rows)
    assert [c.name for c in names.classes] == ["vehicle", "bus", "road"]
    assert np.allclose(likely, np.eye(3), atol=0.01)


def test_what_shares_a_phrase_is_no_rival():
    """The own class `car` would take half of what is an auto."""
    names = Names(bank(vehicle=["auto"], cat=["cat"]), OWN, 0.1)
    assert names.rival.tolist() == [False, True, True]
    assert names.scores(CAR[None]).tolist() == [[0, 0, 0, 0]]
    assert names.probabilities(TREE[None])[0] == pytest.approx([0.25] * 4)


def test_another_word_for_an_own_class_is_that_class_and_a_farther_one_is_not():
    """An omnibus is nearer to the bus than the car is; a cat is not."""

    def asked(to_bus):
        row = to_bus * BUS + np.sqrt(1 - to_bus**2) * TREE
        return TextBank(bank(other=["tree"]).vocabulary, row[None].astype(np.float32))

    near = 0.6 * CAR + 0.8 * BUS  # own classes may be alike, too
    own = TextBank(OWN.vocabulary, np.stack((CAR, AUTO, near, ROAD)))
    for to_bus, rivals in ((0.9, ["car", "road"]), (0.7, ["car", "bus", "road"])):
        names = Names(asked(to_bus), own, 0.1)
        assert [c.name for c in names.classes] == ["other", *rivals]


def test_a_base_class_is_known_by_its_phrases_whatever_it_is_called():
    names = Names(bank(vehicle=["auto"], cat=["cat"], road=["tree"]), OWN, 0.1)
    assert [c.name for c in names.classes] == ["vehicle", "cat", "road", "bus", "road"]
    assert names.learned(["car", "road"]).tolist() == [True, False, False, False, True]
    assert not names.learned([]).any()
    assert names.thing.tolist() == [True, True, False, True, False]
