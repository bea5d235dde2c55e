"""How the node fares: counts, rate and latency, and what is worth a warning."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from operator import sub
from pathlib import Path

import numpy as np

from afov.clouds import unusual_intensity
from afov.frames import Sweep
from afov_ros.throttle import KINDS, kind_of

OK, WARN, ERROR = 0, 1, 2  # levels of diagnostic_msgs/DiagnosticStatus
WINDOW = 10.0  # seconds that rate and latency are taken over
SILENCE = 2.0  # seconds without a cloud, or a pose, that are worth a word
SEQUENCE_GAP = 100_000  # a larger one is another publisher, not loss


class Health:
    """Counts since the node was configured; threads may count at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.labelled = self.refused = self.dropped = self.missed = self.odd = self.jumps = 0
        self.slow = 0
        self.faults: Counter[str] = Counter()
        self.milliseconds = self.latency = 0.0
        self._recent: deque[tuple[float, float]] = deque()
        self._reason = self._oddity = ""
        self._sequence: int | None = None
        self._last_arrival = -SILENCE
        self._last_in_time: float | None = None
        self._told = [0] * 5  # counts at the last verdict

    def arrived(self, sequence: int | None) -> None:
        """A cloud came; gaps in its publisher's numbers are clouds that never reached the node.

        Args:
            sequence: rclpy's publication_sequence_number, None where the middleware has none.
        """
        self._last_arrival = time.monotonic()
        if sequence is None:
            return
        with self._lock:
            if self._sequence is not None and 0 < sequence - self._sequence < SEQUENCE_GAP:
                self.missed += sequence - self._sequence - 1
            self._sequence = sequence

    def drop(self) -> None:
        """A cloud made room for a newer one."""
        with self._lock:
            self.dropped += 1

    def finished(self, seconds: float, latency: float, allowed_ms: float) -> None:
        """A cloud was labelled and published.

        Args:
            seconds: that it took. latency: seconds since its stamp.
        """
        now = time.monotonic()
        with self._lock:
            self.labelled += 1
            self.milliseconds, self.latency = seconds * 1e3, latency
            self._recent.append((now, self.milliseconds))
            while self._recent[0][0] < now - WINDOW:
                self._recent.popleft()
            if self.milliseconds <= allowed_ms:
                self._last_in_time = now
            else:
                self.slow += 1
                # Until one is in time, lateness counts from the first.
                self._last_in_time = self._last_in_time or now

    def refuse(self, reason: str) -> None:
        """A cloud could not be labelled."""
        with self._lock:
            self.refused += 1
            self._reason = reason
            self._count(reason)

    def wonder(self, reason: str) -> None:
        """A cloud was labelled, but something is odd about it."""
        with self._lock:
            self.odd += 1
            self._oddity = reason
            self._count(reason)

    @property
    def counts(self) -> str:
        """What became of the clouds so far."""
        return (
            f"{self.labelled} clouds labelled, {self.refused} refused, {self.dropped} dropped, "
            f"{self.missed} missed"
        )

    @property
    def silent(self) -> bool:
        """Whether no cloud came of late, or never."""
        return time.monotonic() - self._last_arrival >= SILENCE

    def rate(self) -> float:
        """Clouds labelled a second, over the last seconds."""
        with self._lock:
            recent = [t for t, _ in self._recent if t > time.monotonic() - WINDOW]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 2 else 0.0

    def percentiles(self) -> tuple[float, float, float]:
        """p50, p95 and p99 of the milliseconds a cloud took, over the last seconds."""
        with self._lock:
            recent = [ms for _, ms in self._recent] or [0.0]
        p50, p95, p99 = np.percentile(recent, (50, 95, 99))
        return float(p50), float(p95), float(p99)

    def verdict(self, allowed_ms: float, delay_ms: float) -> tuple[int, str]:
        """Level and message since the last verdict; slowness alone is a warning, for long an error.

        Args:
            allowed_ms: a cloud that takes longer is slow.
            delay_ms: as long without one in time is an error.
        """
        with self._lock:
            counts = [self.refused, self.odd, self.slow, self.dropped, self.missed]
            refused, odd, slow, dropped, missed = map(sub, counts, self._told)
            self._told = counts
            since = self._last_in_time
        late = (time.monotonic() - since) * 1e3 if since is not None else 0.0
        found = []
        if late > delay_ms:
            found.append(f"no cloud in time for {late / 1e3:.1f} s")
        if refused:
            found.append(f"{refused} refused: {self._reason}")
        if odd:
            found.append(f"{odd} odd: {self._oddity}")
        if slow:
            found.append(f"{slow} clouds took longer than {allowed_ms:.0f} ms")
        if dropped:
            found.append(f"{dropped} clouds dropped: slower than the sensor")
        if missed:
            found.append(f"{missed} clouds missed: the machine is busy, or the transport lost them")
        level = ERROR if late > delay_ms else WARN if found else OK
        return level, "; ".join([*found, self.counts])

    def _count(self, reason: str) -> None:
        kind = kind_of(reason)
        self.faults[kind if kind in self.faults or len(self.faults) < KINDS else "others"] += 1


def oddities(sweep: Sweep, inputs: tuple[str, ...]) -> list[str]:
    """What is odd about a sweep that can be labelled all the same.

    Args:
        sweep: its intensity brought to 0..255.
        inputs: what the network is told of a point.
    """
    found = []
    if sweep.stamp == 0:
        found.append("a cloud without a stamp; no camera and no transform can be paired with it")
    if not len(sweep):
        found.append("a cloud without points")
    elif not np.isfinite(sweep.xyz).all(1).any():
        found.append("a cloud without any finite point")
    if "intensity" in inputs and (why := unusual_intensity(sweep)):
        found.append(why)
    return found


def resident_mib() -> float:
    """This process's memory, MiB; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * 4096 / 2**20
