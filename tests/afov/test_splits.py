"""Base and novel classes."""

from __future__ import annotations

import pytest

from afov.errors import InputError
from afov.splits import NOVEL, Split, is_split
from afov.vocabulary import Vocabulary

NUSCENES = Vocabulary.load("nuscenes16")
KITTI = Vocabulary.load("semantickitti19")


@pytest.mark.parametrize(("vocabulary", "novel"), [(NUSCENES, 4), (NUSCENES, 5), (KITTI, 5)])
def test_random_splits_hold_things_and_stuff_on_both_sides(vocabulary, novel):
    things = {c.name for c in vocabulary.labelled if c.thing}
    drawn = [Split.random(vocabulary, novel, seed) for seed in range(50)]
    for split in drawn:
        assert len(split.novel) == novel and set(split.base).isdisjoint(split.novel)
        assert sorted((*split.base, *split.novel)) == sorted(vocabulary.names[1:])
        for side in (split.base, split.novel):
            assert 0 < len(things.intersection(side)) < len(side)
    assert drawn[3] == Split.random(vocabulary, novel, 3)
    assert {name for s in drawn for name in s.novel} == set(vocabulary.names[1:])
    assert len({s.novel for s in drawn}) > 40


@pytest.mark.parametrize("name", NOVEL)
def test_named_lists_have_the_sizes_in_their_names(name):
    vocabulary = NUSCENES if name.startswith("nuscenes") else KITTI
    split = Split.named(vocabulary, name)
    assert name.endswith(f"b{len(split.base)}n{len(split.novel)}")


@pytest.mark.parametrize("seed", [0, 7])
def test_a_split_goes_by_its_name(seed):
    drawn = Split.random(NUSCENES, 4, seed)
    assert Split.named(NUSCENES, drawn.name) == drawn == Split.asked(NUSCENES, [drawn.name], "x")
    listed = Split.named(KITTI, "semantickitti-b14n5")
    assert Split.asked(KITTI, ["semantickitti-b14n5"], "x") == listed
    assert Split.asked(KITTI, listed.novel, "x").base == listed.base
    assert not any(is_split(name) for v in (NUSCENES, KITTI) for name in v.names)


def test_novel_classes_by_id():
    split = Split.of(NUSCENES, ("vegetation", "barrier"))
    assert split.novel == ("barrier", "vegetation")  # the vocabulary's order
    novel = split.is_novel(NUSCENES)
    assert novel.shape == (17,) and novel.nonzero()[0].tolist() == [1, 16]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Split.of(NUSCENES, ("pedestrain",)), "no class 'pedestrain'; .* 'pedestrian'?"),
        (lambda: Split.of(NUSCENES, ("sky",)), "nuscenes16 has no class 'sky'"),
        (lambda: Split.of(NUSCENES, ()), "16 base and 0 novel classes"),
        (lambda: Split.of(NUSCENES, NUSCENES.names[1:]), "0 base and 16 novel"),
        (lambda: Split.named(NUSCENES, "nuscenes-b12n5"), "did you mean 'nuscenes-b12n4'?"),
        (lambda: Split.named(KITTI, "b12n4-0"), "19 classes; did you mean 'b15n4-0'?"),
        (lambda: Split.named(NUSCENES, "b15n1-0"), "things and stuff on both sides"),
        (lambda: Split.asked(NUSCENES, ("b12n4",), "--novel"), "split 'b12n4': expected one of"),
        (lambda: Split.asked(NUSCENES, ("buss",), "--novel"), "--novel: .* no class 'buss'"),
        (lambda: Split.named(KITTI, "nuscenes-b12n4"), "semantickitti19 has no class 'bus'"),
        (lambda: Split.random(NUSCENES, 1, 0), "things and stuff on both sides"),
        (lambda: Split.random(NUSCENES, 15, 0), "things and stuff on both sides"),
        (lambda: Split.random(Vocabulary.of_phrases(["a", "b", "c", "d"]), 2, 0), "(4 things)"),
    ],
)
def test_a_wrong_split_is_explained(make, said):
    with pytest.raises(InputError, match=said.replace("(4", r"\(4").replace("s)", r"s\)")):
        make()
