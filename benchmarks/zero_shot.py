"""What a student finds that it was never taught: the simulator's objects outside the 16 classes.

    python benchmarks/zero_shot.py --bag demo/test.mcap --model demo/model [--model ...] [--teacher]

The phrases come from the vocabulary's absorbers (an animal, a stroller, a police car, ...): they
take pixels from the teacher's answers and label nothing, so no point was ever trained towards them.
A point is found when such a phrase is nearer to its embedding than every other phrase. Beside
precision and recall against the simulator's truth stand the average precision of the margin by
which the phrase wins, and chance: the share of such points. `--teacher` adds what the 2D model
itself finds on the points that cameras see: no student can be asked for more.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from sklearn.metrics import average_precision_score

from afov.frames import Frame
from afov.sources.bags import BagSource
from afov.student import Student, at_points
from afov.text_bank import TextBank
from afov.vocabulary import Vocabulary
from afov_train.config import TeachConfig, TrainConfig
from afov_train.teach import look, teach_sweep
from afov_train.teachers import build_teacher
from afov_train.teachers.segments import Teacher

# Absorber: the raw classes of nuScenes lidarseg that it names.
UNSEEN = {
    "animal": 1, "stroller": 7, "wheelchair": 8, "debris": 10, "pushable": 11, "bicycle_rack": 13,
    "ambulance": 19, "police_car": 20,
}  # fmt: skip


def margins(bank: TextBank, embeddings: np.ndarray) -> np.ndarray:
    """(V, unseen classes): each one's best phrase's cosine less the best of all other classes."""
    cosine = embeddings @ bank.embeddings.T
    names = np.array([c.name for c in bank.vocabulary.classes for _ in c.phrases])
    best = [cosine[:, names == name].max(1) - cosine[:, names != name].max(1) for name in UNSEEN]
    return np.stack(best, 1)


def of_student(student: Student, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Margins of the points that are in a voxel, and which those are."""
    labels = student.label(frame.sweep)
    known = np.flatnonzero(labels.inverse >= 0)
    return at_points(margins(student.text_bank, labels.voxel_embedding), labels.inverse)[
        known
    ], known


def of_teacher(teacher: Teacher, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Margins of the points that are in a segment, and which those are."""
    bank = teacher.text_bank
    taught = teach_sweep(frame, look(teacher, frame), TeachConfig(), bank.vocabulary)
    known, last = np.unique(taught.pairs[:, 0], return_index=True)
    return margins(bank, taught.segment_feature)[taught.pairs[last, 4]], known


def table(find: Callable[[Frame], tuple[np.ndarray, np.ndarray]], bags: list[Path]) -> str:
    """Markdown, a row per unseen class."""
    found, raw = [], []
    for bag in bags:
        for frame in BagSource(bag, truth=True):
            margin, known = find(frame)
            assert frame.truth is not None
            found.append(margin)
            raw.append(frame.truth.raw[known])
    truth, every = np.concatenate(raw), np.concatenate(found)
    lines = [
        "| | points | precision | recall | average precision | chance |",
        "|---|---|---|---|---|---|",
    ]
    for margin, (name, number) in zip(every.T, UNSEEN.items(), strict=True):
        true = truth == number
        if not true.any():
            continue
        hit = (margin > 0) & true
        precision = hit.sum() / max((margin > 0).sum(), 1)
        figures = (precision, hit.sum() / true.sum(), average_precision_score(true, margin))
        cells = " | ".join(f"{100 * f:.1f}%" for f in figures)
        lines.append(f"| {name} | {true.sum()} | {cells} | {100 * true.mean():.2f}% |")
    return "\n".join(lines)


def main() -> None:
    """A table per model, and one of the teacher."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bag", type=Path, action="append", required=True)
    parser.add_argument("--model", type=Path, action="append", default=[])
    parser.add_argument("--teacher", action="store_true")
    options = parser.parse_args()
    for model in options.model:
        student = Student.open(model)
        print(f"{model}\n\n{table(partial(of_student, student), options.bag)}\n", flush=True)
    if options.teacher:
        with TemporaryDirectory() as cache:
            vocabulary = Vocabulary.load("nuscenes16")
            teacher = build_teacher(TrainConfig().teacher, vocabulary, Path(cache))
            print(f"teacher\n\n{table(partial(of_teacher, teacher), options.bag)}\n")


if __name__ == "__main__":
    main()
