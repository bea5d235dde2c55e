"""Base and novel classes: which of a vocabulary have labels in training, and which never do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from afov.errors import InputError
from afov.vocabulary import Vocabulary

# Of the sizes that 2401.02402 reports. It draws its own at random and publishes no list that we
# know of; of its novel classes pedestrian, bus and vegetation are reported, the rest is our choice.
NOVEL = {
    "nuscenes-b12n4": ("bus", "pedestrian", "sidewalk", "vegetation"),
    "nuscenes-b11n5": ("motorcycle", "traffic_cone", "truck", "other_flat", "terrain"),
    "semantickitti-b14n5": ("person", "truck", "fence", "parking", "vegetation"),
}
DRAWN = re.compile(r"b\d+n(\d+)-(\d+)")  # the name of a random split: sizes, seed


def is_split(word: str) -> bool:
    """Whether a word is meant as the name of a split, and not of a class."""
    return word in NOVEL or re.fullmatch(r"(\w+-)?b\d+n\d+(-\d+)?", word) is not None


@dataclass(frozen=True)
class Split:
    """A vocabulary's labelled classes, parted in two.

    Attributes:
        base: classes whose labels training sees, in the vocabulary's order.
        novel: classes that training never sees named, in the vocabulary's order.
    """

    name: str
    base: tuple[str, ...]
    novel: tuple[str, ...]

    @classmethod
    def of(cls, vocabulary: Vocabulary, novel: Sequence[str], name: str = "named") -> Split:
        """The split with these novel classes.

        Raises:
            InputError: a class that the vocabulary does not label, or no class left on one side.
        """
        names = vocabulary.names[1:]
        for one in novel:
            if one not in names:
                near = difflib.get_close_matches(one, names, 1, 0.0)[0]
                raise InputError(
                    f"split {name}: vocabulary {vocabulary.name} has no class {one!r}; did you "
                    f"mean {near!r}?"
                )
        parts = (tuple(n for n in names if (n in novel) == new) for new in (False, True))
        split = cls(name, *parts)
        if not split.base or not split.novel:
            raise InputError(
                f"split {name}: {len(split.base)} base and {len(split.novel)} novel classes, "
                "expected at least one of each"
            )
        return split

    @classmethod
    def named(cls, vocabulary: Vocabulary, name: str) -> Split:
        """One of the lists in `NOVEL`, or what `random` calls so: b12n4-0.

        Raises:
            InputError: no such split, or one of another vocabulary.
        """
        if drawn := DRAWN.fullmatch(name):
            split = cls.random(vocabulary, int(drawn[1]), int(drawn[2]))
            if split.name != name:
                raise InputError(
                    f"split {name!r}: vocabulary {vocabulary.name} has "
                    f"{len(vocabulary.labelled)} classes; did you mean {split.name!r}?"
                )
            return split
        if name not in NOVEL:
            near = difflib.get_close_matches(name, NOVEL, 1, 0.0)[0]
            raise InputError(
                f"split {name!r}: expected one of {', '.join(NOVEL)}, or sizes and seed "
                f"(b12n4-0); did you mean {near!r}?"
            )
        return cls.of(vocabulary, NOVEL[name], name)

    @classmethod
    def random(cls, vocabulary: Vocabulary, novel: int, seed: int) -> Split:
        """A split drawn from a seed: `novel` classes, a thing and a stuff class at least.

        Raises:
            InputError: fewer than two novel classes, or a vocabulary that lacks things or stuff
                for both sides.
        """
        order = np.random.default_rng((seed, novel)).permutation(len(vocabulary.labelled))
        drawn = [vocabulary.labelled[i] for i in order]
        things, stuff = ([c for c in drawn if c.thing == thing] for thing in (True, False))
        if not 2 <= novel <= len(drawn) - 2 or len(things) < 2 or len(stuff) < 2:
            raise InputError(
                f"a random split of {vocabulary.name}: {novel} novel of {len(drawn)} classes "
                f"({len(things)} things), expected things and stuff on both sides"
            )
        # One of each kind is novel, one of each is base; the others come as they were drawn.
        first, last = (things[0], stuff[0]), (things[-1], stuff[-1])
        between = [c for c in drawn if c not in first and c not in last]
        chosen = [c.name for c in (*first, *between)][:novel]
        return cls.of(vocabulary, chosen, f"b{len(drawn) - novel}n{novel}-{seed}")

    @classmethod
    def asked(cls, vocabulary: Vocabulary, novel: Sequence[str], flag: str) -> Split:
        """What a flag asks for: a split by its name, or the one with these novel classes.

        Raises:
            InputError: as `named` and `of`.
        """
        if len(novel) == 1 and is_split(novel[0]):
            return cls.named(vocabulary, novel[0])
        return cls.of(vocabulary, novel, flag)

    def is_novel(self, vocabulary: Vocabulary) -> np.ndarray:
        """(K + 1,) bool by class id; unlabelled, id 0, is not."""
        return np.array([False, *(name in self.novel for name in vocabulary.names[1:])])
