"""Ground truth is in its data set's classes: whoever reads it must speak of the same."""

from __future__ import annotations

from functools import lru_cache

from afov.errors import InputError
from afov.frames import Source
from afov.sources.semantickitti import SemanticKittiSource
from afov.vocabulary import Vocabulary


def check_truth(source: Source, vocabulary: Vocabulary) -> None:
    """Whether the source's class ids mean what the vocabulary's do; phrases may differ.

    Raises:
        InputError: they do not.
    """
    expected = _preset(
        "semantickitti19" if isinstance(source, SemanticKittiSource) else "nuscenes16"
    )
    if vocabulary.names != expected.names:
        raise InputError(
            f"{source.name}: its truth is in the classes of {expected.name}, which vocabulary "
            f"{vocabulary.name} does not have in that order"
        )


_preset = lru_cache(Vocabulary.load)
