"""A sweep of panoptic.py's test drive from above: truth, and one model under two heads.

    python benchmarks/panoptic_picture.py --out panoptic [--row "+ segments"] [--sweep 3] FILE.png

Stuff in its class's colour, darkened; every thing in a colour of its own; grey without a label.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from panoptic import Segments, masks, under
from panoptic_drives import Drives

from afov.frames import Frame
from afov.pictures import beside, birds_eye
from afov.student import Student
from afov.vocabulary import Vocabulary, distinct_color

DIM = 0.45  # of a stuff class's colour


def colors(vocabulary: Vocabulary, class_id: np.ndarray, instance_id: np.ndarray) -> np.ndarray:
    """(N, 3) uint8."""
    found = (vocabulary.palette[class_id] * DIM).astype(np.uint8)
    found[class_id == 0] = 70
    for one in np.unique(instance_id[instance_id > 0]):
        found[instance_id == one] = distinct_color(int(one))
    return found


def truth(frame: Frame) -> Segments:
    """As the simulator has it."""
    assert frame.truth is not None
    return frame.truth.class_id, frame.truth.instance_id


def main() -> None:
    """Three pictures side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--out", type=Path, default=Path("panoptic"))
    parser.add_argument("--row", default="+ segments")
    parser.add_argument("--split", default="nuscenes-b12n4")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sweep", type=int, default=3)
    options = parser.parse_args()
    drives = Drives.open(options.out)
    frame = drives.test()[options.sweep]
    run = options.out / "runs" / f"{options.row}-{options.split}-{options.seed}"
    student = Student.open(run / "model")
    shown = {
        "truth": truth(frame),
        "by the queries alone": masks(under(student, "single"), True, frame),
        "in pieces, by their voxels": masks(under(student, "voxels"), True, frame),
    }
    tiles = []
    for what, (class_id, instance_id) in shown.items():
        title = f"{what}: {len(np.unique(instance_id[instance_id > 0]))} things"
        tint = colors(drives.vocabulary, class_id, instance_id)
        tiles.append(birds_eye(frame.sweep.xyz, tint, title, reach=30.0, size=640))
    beside(tiles).save(options.picture)


if __name__ == "__main__":
    main()
