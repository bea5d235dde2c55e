"""AFI on one sweep: ours against the official code's own arithmetic, in the same run.

    python benchmarks/afi.py [--repeat 9]

The peer does what the official code does where it spends its time: farthest points by a pass over
all points per sample, neighbours by a dense distance matrix and a full sort. Prints medians and
ratios; uses the golden nuScenes sweep beside the project when it is there, a simulated one
otherwise.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from afov.afi import paper
from afov.afi.refined import refine

GOLDEN = Path(__file__).resolve().parents[2] / "shared/golden/afi_scene0061_a_clump20.npz"


def sample() -> tuple[str, np.ndarray, np.ndarray]:
    """What it is, points (N, 3) float32 and labels (N,) uint8."""
    if GOLDEN.exists():
        data = np.load(GOLDEN)
        return "one real nuScenes sweep", data["points"], data["labels_in"]
    from afov_train.simulation.config import SimConfig
    from afov_train.simulation.drive import simulate

    frame = next(iter(simulate(SimConfig(streets=1, frames_per_street=1))))
    assert frame.truth is not None
    return "one simulated sweep", np.ascontiguousarray(frame.sweep.xyz), frame.truth.class_id


def official_cost(xyz: np.ndarray) -> None:
    """Sampling and neighbours of all levels the official way, in torch on all cores."""
    points = torch.from_numpy(xyz)
    fine = points
    for size in paper.SIZES:
        far = torch.full((len(fine),), torch.inf)
        chosen = torch.zeros(size, dtype=torch.long)
        for k in range(1, size):
            far = torch.minimum(far, ((fine - fine[chosen[k - 1]]) ** 2).sum(1))
            chosen[k] = far.argmax()
        centers = fine[chosen]
        torch.cdist(centers, fine).sort(dim=1).indices[:, : paper.AGGREGATED]
        torch.cdist(fine, centers).sort(dim=1).indices[:, : paper.DECODED]
        fine = centers


def median(work: Callable[[], object], repeat: int) -> float:
    """Seconds."""
    work()
    seconds = []
    for _ in range(repeat):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=9)
    repeat = parser.parse_args().repeat
    name, xyz, labels = sample()
    one_hot = np.eye(17, dtype=np.float32)[labels]
    peer = median(lambda: official_cost(xyz), max(repeat // 3, 1))
    rows = {
        "official arithmetic, sampling and neighbours alone": peer,
        "paper": median(lambda: paper.interact(xyz, labels), repeat),
        "refined": median(lambda: refine(xyz, one_hot), repeat),
    }
    print(f"{name}, {len(xyz)} points, {torch.get_num_threads()} threads")
    for row, seconds in rows.items():
        print(f"{row:52s} {1e3 * seconds:7.0f} ms  {peer / seconds:5.1f} x")


if __name__ == "__main__":
    main()
