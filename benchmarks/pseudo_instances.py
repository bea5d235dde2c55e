"""How good instances without annotation are, and whether their ids last, against the truth.

    afov-sim --out drive.mcap --seed 31 --streets 2 --frames-per-street 8 --rate 5
    OMP_WAIT_POLICY=PASSIVE python benchmarks/pseudo_instances.py --bag drive.mcap --out pseudo

Rows: labels of every sweep by itself, and labels that sweeps vote on; with every class one
instance, and with objects told apart by clusters. Of truth's objects that are found (IoU over a
half, whatever the class) in one sweep and again later, an id switches where the later one has
another id.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from afov.frames import Truth
from afov.panoptic_quality import (
    NUSCENES_MIN_POINTS,
    no_sweeps,
    panoptic_quality,
    panoptic_summary,
    percent,
)
from afov.sources.bags import BagSource
from afov.vocabulary import Vocabulary
from afov_train.config import TeachConfig
from afov_train.panoptic.instances import pseudo_instances
from afov_train.panoptic.targets import PanopticTarget
from afov_train.taught import TaughtSweep
from afov_train.teach import teach
from afov_train.teachers import build_teacher
from afov_train.teachers.config import TeacherConfig

TEACH = {
    "single": TeachConfig(agreement=False, keep=1.0, vote=0.0, objects=False),
    "voted": TeachConfig(objects=False),
}
ANOTHER_STREET = 1000.0  # metres between two sweeps: truth counts its objects anew


def one_per_class(
    sweeps: Iterable[TaughtSweep], vocabulary: Vocabulary
) -> Iterator[PanopticTarget]:
    """What the teacher's segments say of objects by themselves."""
    thing = np.array([False, *(c.thing for c in vocabulary.labelled)])
    for taught in sweeps:
        class_id = taught.class_id(vocabulary)
        yield PanopticTarget(class_id, np.where(thing[class_id], class_id, 0).astype(np.uint16))


def found_as(truth: Truth, target: PanopticTarget) -> dict[int, int]:
    """The id of each true object of enough points that is found."""
    ids = {}
    for one in np.unique(truth.instance_id[(truth.class_id > 0) & (truth.instance_id > 0)]):
        inside = truth.instance_id == one
        said = np.bincount(target.instance_id[inside])
        said[0] = 0
        best = int(said.argmax())
        union = (inside | (target.instance_id == best)).sum()
        if inside.sum() >= NUSCENES_MIN_POINTS and said[best] > union / 2:
            ids[int(one)] = best
    return ids


def main() -> None:
    """Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bag", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("pseudo"))
    options = parser.parse_args()
    vocabulary = Vocabulary.load("nuscenes16")
    teacher = build_teacher(TeacherConfig(overlap=0.0), vocabulary, options.out / "teacher")
    frames = list(BagSource(options.bag, truth=True))
    lines = [
        "| labels | objects | PQ things | SQ | RQ | PQ stuff | ids kept | switched | ms a sweep |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, config in TEACH.items():
        files = teach(BagSource(options.bag), teacher, config, options.out / name)
        sweeps = [TaughtSweep.load(file) for file in files]
        for way in (one_per_class, pseudo_instances):
            began = time.process_time()
            targets = list(way(sweeps, vocabulary))
            cost = 1000 * (time.process_time() - began) / len(sweeps)
            quality, kept, switched = no_sweeps(16), 0, 0
            last: dict[int, int] = {}
            place = frames[0].world_from_lidar
            for frame, target in zip(frames, targets, strict=True):
                truth, world = frame.truth, frame.world_from_lidar
                assert truth is not None and world is not None and place is not None
                if np.linalg.norm(world[:3, 3] - place[:3, 3]) > ANOTHER_STREET:
                    last = {}
                place = world
                quality += panoptic_quality(
                    truth.class_id, truth.instance_id, target.class_id, target.instance_id, 16,
                    NUSCENES_MIN_POINTS,
                )  # fmt: skip
                now = found_as(truth, target)
                kept += sum(last[one] == said for one, said in now.items() if one in last)
                switched += sum(last[one] != said for one, said in now.items() if one in last)
                last |= now
            means = panoptic_summary(quality, vocabulary)
            figures = [percent(means["things"][f]) for f in ("PQ", "SQ", "RQ")]
            cells = [name, way.__name__, *figures, percent(means["stuff"]["PQ"]), kept, switched]
            lines.append(f"| {' | '.join(map(str, cells))} | {cost:.0f} |")
    table = "\n".join(lines) + "\n"
    (options.out / "pseudo_instances.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
