"""CLIP's tokenizer: byte-pair encoding of lower-case text, as open_clip's SimpleTokenizer."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

Merge = tuple[str, str]
ENDINGS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


class Tokenizer:
    """Text to token ids.

    Equals open_clip on plain text; what differs is mojibake ("cafÃ©"), which open_clip repairs.

    Args:
        merges: byte-pair merges, the first one first.
        context_length: tokens of a text, start and end included; longer ones are cut.
    """

    def __init__(self, merges: Sequence[Merge], context_length: int) -> None:
        letters = list(_byte_letters().values())
        symbols = [*letters, *(c + "</w>" for c in letters), *("".join(m) for m in merges)]
        self.context_length = context_length
        self.start, self.end = len(symbols), len(symbols) + 1
        self._ids = {symbol: i for i, symbol in enumerate(symbols)}
        self._ranks = {merge: i for i, merge in enumerate(merges)}
        self._word = lru_cache(4096)(self._split_word)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(T, context_length) int64 token ids, zeros after the end."""
        rows = np.zeros((len(texts), self.context_length), np.int64)
        for row, text in zip(rows, texts, strict=True):
            ids = [self.start, *(i for w in words(clean(text)) for i in self._word(w)), self.end]
            cut = ids[: self.context_length]
            cut[-1] = self.end
            row[: len(cut)] = cut
        return rows

    def _split_word(self, word: str) -> tuple[int, ...]:
        letters = [_byte_letters()[b] for b in word.encode()]
        symbols = [*letters[:-1], letters[-1] + "</w>"]
        while len(symbols) > 1:
            best = min(pairwise(symbols), key=lambda p: self._ranks.get(p, len(self._ranks)))
            if best not in self._ranks:
                break
            symbols = list(_merged(symbols, best))
        return tuple(self._ids[s] for s in symbols)


def clean(text: str) -> str:
    """Lower case, single spaces, HTML entities resolved, typographic variants made plain."""
    text = text.encode("utf-8", "replace").decode()  # lone surrogates
    while (plain := unicodedata.normalize("NFC", html.unescape(text).translate(_plain()))) != text:
        text = plain
    return " ".join(text.split()).lower()


def words(text: str) -> Iterator[str]:
    """Runs of letters, single digits, runs of anything else, and English endings ('s, 're)."""
    at, plain = 0, text.replace("ſ", "s")  # the long s ends a word as well
    while at < len(text):
        ending = next((e for e in ENDINGS if plain.startswith(e, at)), None)
        kind, stop = _kind(text[at]), at + 1
        if ending is not None:
            stop = at + len(ending)
        elif kind in "LP":
            while stop < len(text) and _kind(text[stop]) == kind:
                stop += 1
        if kind != " ":
            yield text[at:stop]
        at = stop


def read_merges(text: str) -> tuple[Merge, ...]:
    """One pair a line, as `write_merges` writes them; a ValueError says which is none."""
    pairs = [tuple(line.split(" ")) for line in text.split("\n") if line]
    for number, pair in enumerate(pairs, start=1):
        if len(pair) != 2 or not all(pair):
            raise ValueError(f"merges, line {number}: expected two symbols")
    return tuple((a, b) for a, b in pairs)


def write_merges(merges: Iterable[Merge]) -> str:
    """One pair a line."""
    return "".join(f"{a} {b}\n" for a, b in merges)


def _merged(symbols: Sequence[str], pair: Merge) -> Iterator[str]:
    """Every occurrence of the pair as one symbol, from the left."""
    at = 0
    while at < len(symbols):
        joined = tuple(symbols[at : at + 2]) == pair
        yield "".join(pair) if joined else symbols[at]
        at += 2 if joined else 1


def _kind(character: str) -> str:
    """L letter, N number, blank, or P for all else."""
    if character.isspace():
        return " "
    first = unicodedata.category(character)[0]
    return first if first in "LN" else "P"


@lru_cache(1)
def _byte_letters() -> dict[int, str]:
    """A printable letter for each byte: itself where it is one, else one from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


@lru_cache(1)
def _plain() -> dict[int, str | None]:
    """What open_clip makes plain before it splits: wide letters, ligatures, quotes, controls."""
    ligatures = (*"ĲĳŉǱǲǳǄǅǆǇǈǉǊǋǌ", *map(chr, range(0xFB00, 0xFB07)))
    wide = [*map(chr, range(0xFF01, 0xFFF0))]
    table: dict[int, str | None] = {
        ord(c): unicodedata.normalize("NFKC", c) for c in (*ligatures, *wide)
    }
    table |= {0xFB05: "\u017ft", 0x3000: " "}
    table |= dict.fromkeys((0x2BC, *range(0x2018, 0x201C)), "'")
    table |= dict.fromkeys(range(0x201C, 0x2020), '"')
    controls = (*range(9), 0x0B, *range(0x0E, 0x20), 0x7F, *range(0x206A, 0x2070), 0xFEFF)
    return table | dict.fromkeys((*controls, *range(0xFFF9, 0xFFFD)))
