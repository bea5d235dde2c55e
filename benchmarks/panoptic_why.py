"""Where a row of `panoptic.py` loses its objects: no mask, a wrong name, or too low a score.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/panoptic_why.py --out panoptic \\
        --split nuscenes-b12n4 --rows "+ object loss" "+ voxel loss" [--head voxels]

For every segment of the test drive's truth (15 points and more): the query whose mask overlaps it
most, whatever the others claim; whether that is a match (IoU > 0.5); how many are named right; and
of the matched, named and scored above the threshold. With the head `voxels` the masks are the
pieces that go into merging, all of which are above it. Last, the share of a segment's points whose
largest mask is that of a base stuff class's own query. The runs are those that panoptic.py left.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np

warnings.filterwarnings("ignore")

from panoptic import under  # noqa: E402
from panoptic_drives import Drives  # noqa: E402

from afov.frames import Frame  # noqa: E402
from afov.model_parts import Head  # noqa: E402
from afov.names import Names  # noqa: E402
from afov.panoptic import SCORE, scores  # noqa: E402
from afov.panoptic_quality import NUSCENES_MIN_POINTS  # noqa: E402
from afov.splits import Split  # noqa: E402
from afov.student import Student  # noqa: E402


class Best(NamedTuple):
    """The query that overlaps a segment of the truth most.

    Attributes:
        class_id: of the truth. iou: of the query's mask. named: as the truth has it.
        kept: its score is above the threshold.
        taken: share of the segment whose largest mask is of a base stuff class's own query.
    """

    class_id: int
    iou: float
    named: bool
    kept: bool
    taken: float


def best_queries(student: Student, frame: Frame) -> list[Best]:
    """One for each segment of a frame's truth."""
    head, sweep, truth = student.panoptic, frame.sweep, frame.truth
    assert head is not None and truth is not None
    voxels, rows, _ = student.embed(sweep)
    image = head.tower.look(sweep.xyz, frame.images).of_voxels(voxels.inverse, len(voxels))
    answers = head.answers(rows, image, sweep.xyz[voxels.representative])
    stuff = sum(not c.thing for c in student.vocabulary.labelled if c.name in head.files.base)
    own = answers.mask.argmax(0) >= len(answers.mask) - stuff
    names = Names(student.text_bank, student.text_bank, student.model.temperature)
    said = head.said(rows, image)
    answers, likely = head.named(answers, said, sweep.xyz, voxels.inverse, names)
    thing = np.array([False, *(c.thing for c in student.vocabulary.labelled)])
    score = scores(likely, names.thing)
    judged = (voxels.inverse >= 0) & (truth.class_id > 0)
    voxel = voxels.inverse[judged]
    inside, own = (answers.mask > 0)[:, voxel], own[voxel]
    class_id = truth.class_id[judged].astype(np.int64)
    key = class_id * 65536 + np.where(thing[class_id], truth.instance_id[judged], 0)
    found = []
    for one, points in zip(*np.unique(key, return_counts=True), strict=True):
        if points < NUSCENES_MIN_POINTS:
            continue
        common = inside[:, key == one].sum(1)
        iou = common / (inside.sum(1) + points - common)
        if not len(iou):
            found.append(Best(int(one) // 65536, 0.0, False, False, 0.0))
            continue
        query, known = iou.argmax(), int(one) // 65536
        right = int(likely[query].argmax()) + 1 == known
        kept, taken = bool(score[query] > SCORE), float(own[key == one].mean())
        found.append(Best(known, float(iou[query]), right, kept, taken))
    return found


def line(row: str, what: str, found: list[Best]) -> str:
    """A row of the table."""
    matched = [f for f in found if f.iou > 0.5]
    shares = (
        len(matched) / max(len(found), 1),
        sum(f.named for f in found) / max(len(found), 1),
        sum(f.named and f.kept for f in matched) / max(len(found), 1),
        sum(f.taken for f in found) / max(len(found), 1),
    )
    iou = float(np.median([f.iou for f in found])) if found else np.nan
    cells = " | ".join(f"{share:.0%}" for share in shares)
    return f"| {row} | {what} | {len(found)} | {iou:.2f} | {cells} |"


def groups(split: Split, drives: Drives) -> dict[str, np.ndarray]:
    """(K + 1,) bool by class id."""
    novel = split.is_novel(drives.vocabulary)
    thing = np.array([False, *(c.thing for c in drives.vocabulary.labelled)])
    stuff = ~thing & (np.arange(len(thing)) > 0)
    return {
        "base things": thing & ~novel,
        "base stuff": stuff & ~novel,
        "novel things": thing & novel,
        "novel stuff": stuff & novel,
    }


def main() -> None:
    """A line for each row and group of classes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("panoptic"))
    parser.add_argument("--split", default="nuscenes-b12n4")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="+", required=True)
    parser.add_argument("--head", choices=get_args(Head), help="names masks; by default the row's")
    options = parser.parse_args()
    drives = Drives.open(options.out)
    (split,) = (s for s in drives.splits if s.name == options.split)
    frames = drives.test()
    print(
        "| | | segments | best mask's IoU, median | a mask matches | named right | both, and kept "
        "| held by base stuff's queries |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in options.rows:
        run = options.out / "runs" / f"{row}-{split.name}-{options.seed}"
        student = Student.open(run / "model")
        if options.head:
            row, student = f"{row}, head {options.head}", under(student, options.head)
        found = [best for frame in frames for best in best_queries(student, frame)]
        for what, chosen in groups(split, drives).items():
            print(line(row, what, [f for f in found if chosen[f.class_id]]), flush=True)


if __name__ == "__main__":
    main()
