"""Settings of a simulated drive."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SimConfig:
    """A drive through `streets` streets, none alike."""

    seed: int = 0
    streets: int = 8
    frames_per_street: int = 10
    rate: float = 20.0
    """Sweeps per second that are recorded; the sensor itself turns 20 times."""
    width: int = 800
    """Image size; nuScenes' 1600 x 900 scaled."""
    height: int = 448
    workers: int = 2
    """Processes that cast rays."""
