"""Our tokenizer against open_clip's."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from afov.tokenizer import Tokenizer, read_merges, write_merges

open_clip = pytest.importorskip("open_clip")
ftfy = pytest.importorskip("ftfy")

# Latin, Greek, Cyrillic, Arabic, CJK, digits and marks of several scripts, typography, controls.
LETTERS = "aAeEzZßéüñøαΩжЯعש中文日あアㄱक" + "\u0301\u0308"
OTHERS = "0123456789٣४Ⅷ½²" + "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~" + "“”‘’…—·€☃🚗\u200b\u200d"
TYPOGRAPHY = "ﬁﬃﬅĲŉǆ" + "ＡｂＣ１！ｶ" + "\u3000\u00a0\u2028\t\n\r\x0b\x0c\x00\x1f\x7f\ufeff"
TEXT = st.text(st.sampled_from(LETTERS + OTHERS + TYPOGRAPHY + " " * 12), max_size=60)


@lru_cache(1)
def both() -> tuple[Tokenizer, Any]:
    theirs = open_clip.tokenizer.SimpleTokenizer()
    return Tokenizer(tuple(theirs.bpe_ranks), 77), theirs


@settings(max_examples=1500, deadline=None)
@given(TEXT)
@example("a photo of a bicycle.")
@example("the driver's car, they'll, WE'RE; it'd")
@example("Tom &amp; Jerry &lt;3 &eacute;tat")
@example("café Straße naïve façade")
@example("")
def test_token_ids_are_those_of_open_clip(text: str) -> None:
    # Broken encodings are repaired there; special tokens within a text are special there.
    assume(ftfy.fix_text(text) == ftfy.fix_text(text, fix_encoding=False))
    assume("_of_text>" not in text.lower())
    ours, theirs = both()
    np.testing.assert_array_equal(ours([text])[0], theirs([text])[0].numpy())


def test_a_long_text_is_cut_and_still_ends() -> None:
    ours, theirs = both()
    text = "a very long phrase " * 40
    np.testing.assert_array_equal(ours([text]), theirs([text]).numpy())
    assert ours([text])[0, -1] == ours.end


def test_merges_come_back_as_they_were_written() -> None:
    merges = tuple(both()[1].bpe_ranks)
    assert read_merges(write_merges(merges)) == merges
    with pytest.raises(ValueError, match="line 2"):
        read_merges("a b\nabc\n")
