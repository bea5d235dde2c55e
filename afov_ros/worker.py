"""One thread for one kind of work, always on the newest of what came."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any


class Worker:
    """Calls `work` with what is put in; what it has no time for is dropped, the oldest first.

    A thread of its own and not an executor's: torch and malloc keep memory for each thread that
    they meet, and an executor hands out a different one each time.

    Args:
        work: must not raise.
        capacity: items that may wait.
    """

    def __init__(self, work: Callable[[Any], None], capacity: int = 1) -> None:
        self._work = work
        self._waiting: deque[Any] = deque(maxlen=capacity)
        self._changed, self._stopped = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, item: Any) -> bool:
        """Whether there was room; if not, the oldest that waited is dropped."""
        with self._changed:
            room = len(self._waiting) < (self._waiting.maxlen or 1)
            self._waiting.append(item)
            self._changed.notify()
            return room

    def stop(self) -> None:
        """Returns when the item in hand is done; those that wait are not begun."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return
                item = self._waiting.popleft()
            self._work(item)
