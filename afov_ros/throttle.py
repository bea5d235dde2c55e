"""Warnings: the first of its kind at once, then one in a while."""

from __future__ import annotations

import re
import threading
import time

QUIET = 5.0  # seconds between two of one kind
KINDS = 50  # that are told apart: garbage has no end of names


def kind_of(text: str) -> str:
    """The text without its names and numbers."""
    return re.sub(r"'[^']*'|\d+", "…", text)[:80]


class Throttle:
    """Says which texts are worth telling."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}
        self._lock = threading.Lock()

    def worth_telling(self, text: str) -> bool:
        """Whether none of its kind was told for a while; the answer counts as telling."""
        kind, now = kind_of(text), time.monotonic()
        with self._lock:
            if kind not in self._told and len(self._told) >= KINDS:
                kind = ""
            worth = now - self._told.get(kind, -QUIET) >= QUIET
            if worth:
                self._told[kind] = now
            return worth
