"""What the rows share: works measured by turns in one run, the machine's facts, the table."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from afov.voxels import VoxelGrid

ROOT = Path(__file__).resolve().parents[1]
NUSCENES = ROOT.parent / "shared/data/nuscenes-one-sample/samples/LIDAR_TOP"
PAPER = VoxelGrid("cylindrical", (0.1, 1.0, 0.1))  # 15,947 voxels of the real sweep
Work = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what, peer: what is measured, and against what.
        ours, theirs: (R,) milliseconds, measured by turns.
        target: the ratio theirs / ours that is asked for; 0 where none is.
        facts: more numbers, for the JSON and the end of the line.
    """

    what: str
    peer: str
    ours: np.ndarray
    theirs: np.ndarray
    target: float = 0.0
    facts: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        low, middle, high = np.percentile(self.theirs / self.ours, (10, 50, 90))
        more = ", ".join(f"{name} {value:.3g}" for name, value in self.facts.items())
        return (
            f"{self.what:30} {np.median(self.ours):8.2f} {self.ours.min():8.2f}  "
            f"{self.peer:30} {np.median(self.theirs):8.2f} {self.theirs.min():8.2f}  "
            f"{middle:5.1f}x ({low:.1f} to {high:.1f}; asked {self.target:g})  {more}"
        )

    def to_dict(self) -> dict[str, object]:
        """For the JSON file."""
        return {
            "what": self.what,
            "peer": self.peer,
            "ours_ms": self.ours.tolist(),
            "theirs_ms": self.theirs.tolist(),
            "ratio": float(np.median(self.theirs / self.ours)),
            "target": self.target,
            **self.facts,
        }


HEAD = (
    f"{'':30} {'median':>8} {'min':>8}  {'against':30} {'median':>8} {'min':>8}  "
    "ratio (10% to 90%)   all in ms"
)


def by_turns(repeat: int, **works: Work) -> dict[str, np.ndarray]:
    """(repeat,) milliseconds of each work; one after the other, so that all meet the same noise."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for i in range(repeat + 2):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if i >= 2:  # the first ones warm caches and allocators up
                times[name].append((time.perf_counter() - began) * 1e3)
    return {name: np.array(values) for name, values in times.items()}


def apart(work: Callable[..., Any], *arguments: object) -> Any:
    """What the work gives in a fresh process, whose threads and memory end with it."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(work, *arguments).result()


def machine() -> dict[str, object]:
    """Facts that a number means nothing without."""
    import torch

    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    square = torch.randn(2048, 2048)
    times = by_turns(7, product=lambda: torch.mm(square, square))["product"]
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "GFLOP/s of a 2048 float32 product": 2 * 2048**3 / times.min() / 1e6,
    }


def real_sweep() -> np.ndarray:
    """(N, 4) float32, x y z intensity: nuScenes' one sample, or a simulated street."""
    if NUSCENES.is_dir():
        return np.fromfile(next(NUSCENES.glob("*.bin")), np.float32).reshape(-1, 5)[:, :4]
    from afov_train.simulation.config import SimConfig
    from afov_train.simulation.drive import simulate

    frame = next(iter(simulate(SimConfig(streets=1, frames_per_street=1))))
    return np.ascontiguousarray(frame.sweep.points[:, :4])


def run(rows: Callable[[int], list[Row]], repeat: int) -> None:
    """A row's own command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=repeat)
    chosen = parser.parse_args().repeat
    print(HEAD)
    for row in rows(chosen):
        print(row)
