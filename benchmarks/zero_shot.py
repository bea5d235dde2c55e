"""What a student finds outside the 16 classes: the simulator's other objects, by their phrase.

    python benchmarks/zero_shot.py --bag demo/test.mcap --model demo/model [--model ...] [--teacher]
    python benchmarks/zero_shot.py --bag demo/test.mcap --drive demo/drive.mcap --out zero

The phrases come from the vocabulary's absorbers (an animal, a stroller, a police car, ...): they
take pixels from the teacher's answers and label nothing. A point is found when such a phrase is
nearer to its embedding than every other phrase. Beside precision and recall against the
simulator's truth stand the average precision of the margin by which the phrase wins, that of its
cosine alone (what `~/query` compares with a threshold), and chance: the share of such points.

`--teacher` adds what the 2D model itself finds on the points that cameras see: no student can be
asked for more. `--drive` trains students first, 225 steps: as afov-train does, with
`--distill.tmp 0.5`, with `--distill.absorbed`, and from truth that names these objects, which shows
what the network could know of them at all.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from afov.frames import Frame
from afov.metrics import confusion, mean_iou
from afov.sources.bags import BagSource
from afov.student import Student, at_points
from afov.text_bank import TextBank
from afov.vocabulary import Vocabulary
from afov_train.config import DistillConfig, TeachConfig, TrainConfig
from afov_train.distill import distill
from afov_train.export import export_student
from afov_train.network.unet import build_network
from afov_train.supervise import labelled
from afov_train.taught import TaughtSweep
from afov_train.teach import look, teach, teach_sweep
from afov_train.teachers import build_teacher
from afov_train.teachers.segments import Teacher

# Absorber: the raw classes of nuScenes lidarseg that it names.
UNSEEN = {
    "animal": 1, "stroller": 7, "wheelchair": 8, "debris": 10, "pushable": 11, "bicycle_rack": 13,
    "ambulance": 19, "police_car": 20,
}  # fmt: skip
USUAL = TrainConfig()
CONFIG = replace(USUAL, teacher=replace(USUAL.teacher, overlap=0.0))
# Row: settings of the distillation; whether from truth.
ROWS = {
    "default": (DistillConfig(), False),
    "tmp": (DistillConfig(tmp=0.5), False),
    "absorbed": (DistillConfig(absorbed=True), False),
    "truth": (DistillConfig(absorbed=True), True),
}


def likeness(bank: TextBank, embeddings: np.ndarray) -> np.ndarray:
    """(V, classes and absorbers): the cosine of each one's best phrase."""
    starts = np.cumsum([0, *(len(c.phrases) for c in bank.vocabulary.classes[:-1])])
    return np.maximum.reduceat(embeddings @ bank.embeddings.T, starts, axis=1)


def of_student(student: Student, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Likeness of the points that are in a voxel, and which those are."""
    labels = student.label(frame.sweep)
    known = np.flatnonzero(labels.inverse >= 0)
    rows = likeness(student.text_bank, labels.voxel_embedding)
    return at_points(rows, labels.inverse)[known], known


def of_teacher(teacher: Teacher, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Likeness of the points that are in a segment, and which those are."""
    bank = teacher.text_bank
    taught = teach_sweep(frame, look(teacher, frame), TeachConfig(), bank.vocabulary)
    known, last = np.unique(taught.pairs[:, 0], return_index=True)
    return likeness(bank, taught.segment_feature)[taught.pairs[last, 4]], known


def table(
    find: Callable[[Frame], tuple[np.ndarray, np.ndarray]], vocabulary: Vocabulary, bags: list[Path]
) -> str:
    """Markdown: the mIoU of the classes, then a row per unseen class."""
    found, raw, class_id = [], [], []
    for bag in bags:
        for frame in BagSource(bag, truth=True):
            cosine, known = find(frame)
            assert frame.truth is not None
            found.append(cosine)
            raw.append(frame.truth.raw[known])
            class_id.append(frame.truth.class_id[known])
    truth, every = np.concatenate(raw), np.concatenate(found)
    classes = np.flatnonzero([not c.absorber for c in vocabulary.classes])
    said = every[:, classes].argmax(1) + 1
    matrix = confusion(np.concatenate(class_id), said, len(classes))
    lines = [
        f"{len(classes)} classes: {100 * mean_iou(matrix):.1f} mIoU",
        "",
        "| | points | precision | recall | AP of the margin | AP of the cosine | chance |",
        "|---|---|---|---|---|---|---|",
    ]
    place = {c.name: i for i, c in enumerate(vocabulary.classes)}
    for name, number in UNSEEN.items():
        true = truth == number
        if not true.any():
            continue
        own = every[:, place[name]]
        margin = own - np.delete(every, place[name], axis=1).max(1)
        hit = (margin > 0) & true
        precision, recall = hit.sum() / max((margin > 0).sum(), 1), hit.sum() / true.sum()
        average = (average_precision_score(true, score) for score in (margin, own))
        cells = " | ".join(f"{100 * figure:.1f}" for figure in (precision, recall, *average))
        lines.append(f"| {name} | {true.sum()} | {cells} | {100 * true.mean():.2f} |")
    return "\n".join(lines)


def true_sweeps(drive: Path, vocabulary: Vocabulary, folder: Path) -> list[Path]:
    """Truth as labels, the unseen objects by the first phrase of their absorber."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [c.name for c in vocabulary.classes for _ in c.phrases]
    files = []
    for frame in BagSource(drive, truth=True):
        taught = labelled(frame, vocabulary)
        phrase = taught.phrase.copy()
        for name, number in UNSEEN.items():
            assert frame.truth is not None
            phrase[frame.truth.raw == number] = names.index(name)
        files.append(folder / f"{frame.token}.npz")
        replace(taught, phrase=phrase).save(files[-1])
    return files


def trained(row: str, files: list[Path], bank: TextBank, steps: int, out: Path) -> Student:
    """A student of these sweeps, as a vehicle has it."""
    config = replace(ROWS[row][0], steps=steps)
    torch.manual_seed(config.seed)
    network = build_network(CONFIG.network, bank.embeddings.shape[1])
    distill(network, files, bank, CONFIG.network, CONFIG.grid, config, out / row)
    model = export_student(
        network, config=CONFIG.network, grid=CONFIG.grid, text_bank=bank,
        sweep=TaughtSweep.load(files[0]).sweep, temperature=config.temperature, provenance={},
        folder=out / row / "model",
    )  # fmt: skip
    return Student.open(model)


def main() -> None:
    """A table per model, and one of the teacher."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bag", type=Path, action="append", required=True)
    parser.add_argument("--model", type=Path, action="append", default=[])
    parser.add_argument("--teacher", action="store_true")
    parser.add_argument("--drive", type=Path)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--steps", type=int, default=225)
    parser.add_argument("--out", type=Path, default=Path("zero"))
    options = parser.parse_args()
    vocabulary = Vocabulary.load("nuscenes16")

    def show(name: str, find: Callable[[Frame], tuple[np.ndarray, np.ndarray]]) -> None:
        print(f"{name}\n\n{table(find, vocabulary, options.bag)}\n", flush=True)

    for model in options.model:
        show(str(model), partial(of_student, Student.open(model)))
    if not (options.drive or options.teacher):
        return
    with TemporaryDirectory() as cache:
        kept = options.out / "teacher" if options.drive else Path(cache)
        teacher = build_teacher(CONFIG.teacher, vocabulary, kept)
        if options.drive:
            said = teach(BagSource(options.drive), teacher, TeachConfig(), options.out / "teach")
            true = true_sweeps(options.drive, vocabulary, options.out / "true")
            for row in options.rows:
                files = true if ROWS[row][1] else said
                student = trained(row, files, teacher.text_bank, options.steps, options.out)
                show(row, partial(of_student, student))
        if options.teacher:
            show("teacher", partial(of_teacher, teacher))


if __name__ == "__main__":
    main()
