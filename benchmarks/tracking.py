"""How often things change their ids, against the truth of a simulated drive whose rays are cast.

    python benchmarks/tracking.py [--sweeps 100] [--rate 10] [--seed 5]

Perfect detections, of which some are dropped or noisy: what is counted is the tracker's own doing.
A thing that was away for more than the tracker waits may come back under another id; such a return
is counted apart. Casting the rays takes about a second and a half a sweep.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np

from afov.frames import Frame
from afov.instances import instances
from afov.tracking import UNSEEN, Tracker, lasting_ids
from afov.vocabulary import Vocabulary
from afov_train.simulation.config import SimConfig
from afov_train.simulation.drive import street_frames

# (points that a thing must have, share of detections dropped, noise of each point in metres)
CASES = ((30, 0.0, 0.0), (10, 0.0, 0.0), (10, 0.1, 0.0), (10, 0.3, 0.1), (1, 0.0, 0.0))


def counted(frames: Sequence[Frame], least: int, drop: float, noise: float) -> str:
    """A row of the table."""
    rng, tracker, vocabulary = np.random.default_rng(0), Tracker(), Vocabulary.load("nuscenes16")
    last: dict[int, tuple[int, int]] = {}
    detections = switches = returns = 0
    took = []
    for index, frame in enumerate(frames):
        assert frame.truth is not None
        truth = frame.truth.instance_id.copy()
        for thing, points in zip(*np.unique(truth, return_counts=True), strict=True):
            if points < least or rng.random() < drop:
                truth[truth == thing] = 0
        shape = frame.sweep.xyz.shape
        xyz = frame.sweep.xyz + rng.normal(0, noise, shape).astype(np.float32)
        began = time.perf_counter()
        sure = np.ones(len(xyz), np.float32)
        found = instances(xyz, frame.truth.class_id, sure, truth, vocabulary)
        tracked = tracker.update(frame.sweep.stamp, found, frame.world_from_lidar)
        lasting_ids(truth, found, tracked)
        took.append(1e3 * (time.perf_counter() - began))
        for one, now in zip(found, tracked, strict=True):
            name, seen = last.get(one.id, (now.id, index))
            detections += 1
            returns += name != now.id and index - seen > UNSEEN
            switches += name != now.id and index - seen <= UNSEEN
            last[one.id] = now.id, index
    return (
        f"| {least} | {drop:.0%} | {noise} | {detections} | {len(last)} | {switches} | {returns} | "
        f"{np.median(took):.1f} |"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sweeps", type=int, default=100)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    config = SimConfig(args.seed, 1, args.sweeps, args.rate, width=64, height=36, workers=1)
    frames = street_frames(config, 0)
    print("| least points | dropped | noise, m | detections | things | switches | after long "
          "absence | ms a sweep |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for case in CASES:
        print(counted(frames, *case))


if __name__ == "__main__":
    main()
