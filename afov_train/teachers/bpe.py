"""A short byte-pair merge list of our own, in the format of open_clip's tokenizer."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path


def learn_merges(texts: Iterable[str], count: int) -> list[tuple[str, str]]:
    """The `count` most frequent merges (Sennrich et al. 2016), the commonest pair first."""
    words = Counter(w for t in texts for w in t.lower().replace(".", " .").split())
    split = {w: (*w[:-1], w[-1] + "</w>") for w in words}
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, symbols in split.items():
            for pair in pairwise(symbols):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        split = {word: _merged(symbols, best) for word, symbols in split.items()}
    return merges


def _merged(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    result: list[str] = []
    for symbol in symbols:
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return tuple(result)


def write_merges(merges: list[tuple[str, str]], file: Path) -> None:
    """A header line, then a pair a line; no newline at the end, which would become a token."""
    text = "\n".join(["#version: afov", *(" ".join(pair) for pair in merges)])
    # mtime 0: the same merges give the same bytes.
    file.write_bytes(gzip.compress(text.encode(), mtime=0))
