"""Approximate flat interaction, published and refined, on simulated sweeps with known faults.

    python benchmarks/afi_noise.py --bag demo/test.mcap

Truth is spoiled in four ways, AFI works on the result, and truth judges: which share of the wrong
labels is repaired, which share of the right ones is broken, and the IoU of the classes that are
easily erased.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from afov.afi import interact
from afov.afi.refined import HARD, refine
from afov.metrics import confusion, iou, mean_iou
from afov.sources.bags import BagSource

CLASSES, CONE, PEDESTRIAN = 16, 8, 7
WRONG = 0.2  # share of the points that are given another class
BLOB = 0.7  # metres: a clump of them
SURE = 0.9  # what a label's own class gets of the probability; HARD is for labels such as these
Corrector = Callable[[np.ndarray, np.ndarray], np.ndarray]
MODES: dict[str, Corrector] = {
    "paper": partial(interact, "paper"),
    "refined": partial(interact, "refined"),
    "refined, HARD": lambda xyz, likely: refine(xyz, likely * (np.arange(CLASSES + 1) > 0), HARD),
}


def independent(xyz: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Any point, any other class."""
    wrong = rng.random(len(truth)) < WRONG
    return np.where(wrong, (truth - 1 + rng.integers(1, CLASSES, len(truth))) % CLASSES + 1, truth)


def clumped(xyz: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Balls of one class, as a teacher errs segment by segment."""
    said, wrong = truth.copy(), np.zeros(len(truth), bool)
    while wrong.mean() < WRONG:
        inside = np.linalg.norm(xyz - xyz[rng.integers(len(xyz))], axis=1) < BLOB
        said[inside] = rng.integers(1, CLASSES + 1)
        wrong |= inside
    return said


def sectors(xyz: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two sectors that no camera covers have no label."""
    angle = np.degrees(np.arctan2(xyz[:, 1], xyz[:, 0]))
    starts = rng.uniform(-180, 180, 2)
    return np.where(((angle[:, None] - starts) % 360 < 35).any(1), 0, truth)


def clean(xyz: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every label right."""
    return truth


def main() -> None:
    """A table: a row per kind of fault and mode."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bag", type=Path, required=True)
    options = parser.parse_args()
    frames = list(BagSource(options.bag, truth=True))
    print(f"{len(frames)} sweeps of {options.bag}, {WRONG:.0%} wrong labels, balls of {BLOB} m\n")
    print("| faults | AFI | repaired | broken | mIoU | cone | pedestrian |")
    print("|---|---|---|---|---|---|---|")
    for spoil in (clumped, independent, sectors, clean):
        matrices = {mode: np.zeros((CLASSES + 1, CLASSES + 1), np.int64) for mode in ("-", *MODES)}
        repaired, broken = dict.fromkeys(MODES, 0), dict.fromkeys(MODES, 0)
        wrong = right = 0
        for number, frame in enumerate(frames):
            assert frame.truth is not None
            known = frame.truth.class_id > 0
            xyz, truth = frame.sweep.xyz[known], frame.truth.class_id[known].astype(int)
            said = spoil(xyz, truth, np.random.default_rng(number))
            hot = np.eye(CLASSES + 1, dtype=np.float32)[said]
            likely = SURE * hot + (1 - SURE) / CLASSES
            likely[said == 0] = 0
            likely[:, 0] = said == 0
            matrices["-"] += confusion(truth, said, CLASSES)
            wrong, right = wrong + (said != truth).sum(), right + (said == truth).sum()
            for mode, correct in MODES.items():
                after = correct(xyz, likely).argmax(1)
                matrices[mode] += confusion(truth, after, CLASSES)
                repaired[mode] += int(((after == truth) & (said != truth)).sum())
                broken[mode] += int(((after != truth) & (said == truth)).sum())
        for mode, matrix in matrices.items():
            per_class = iou(matrix)
            cells = ["-", "-"]
            if mode != "-":
                share = f"{100 * repaired[mode] / wrong:.1f}%" if wrong else "-"
                cells = [share, f"{100 * broken[mode] / right:.1f}%"]
            cells += [
                f"{100 * v:.1f}"
                for v in (mean_iou(matrix), per_class[CONE - 1], per_class[PEDESTRIAN - 1])
            ]
            print(f"| {spoil.__name__} | {mode} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
