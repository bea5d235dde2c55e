"""What each part of the method is worth, on simulated drives whose test streets are others.

    python benchmarks/ablation.py [--out DIR] [--seeds 3] [--steps 225]

The teacher looks at images at about a third of their size, so that it errs as the paper's
teachers do on nuScenes (mIoU 40 to 60 on the points that cameras see). The ladder from plain
distillation to full supervision comes first, for every seed, then the other rows. Each is trained
once per seed, on a core of its own. What is measured goes at once to ablation.csv (mIoU and
accuracy over all points of the test drive, IoU of every class), which a second call goes on from,
and in the end as a table of means and spreads to ablation.md.
"""

from __future__ import annotations

import argparse
import csv
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

warnings.filterwarnings("ignore")

from trained_rows import mean_and_spread, side_by_side  # noqa: E402

from afov.afi import Mode  # noqa: E402
from afov.frames import Frame  # noqa: E402
from afov.metrics import accuracy, confusion, iou, mean_iou  # noqa: E402
from afov.sources.bags import BagSource  # noqa: E402
from afov.student import Student  # noqa: E402
from afov.text_bank import TextBank  # noqa: E402
from afov.vocabulary import Vocabulary  # noqa: E402
from afov_train.config import (  # noqa: E402
    DistillConfig,
    OptimizerConfig,
    PretrainConfig,
    TeachConfig,
    TrainConfig,
)  # fmt: skip
from afov_train.distill import closed_bank, distill  # noqa: E402
from afov_train.export import export_student  # noqa: E402
from afov_train.network.unet import UNet, build_network, load_trunk  # noqa: E402
from afov_train.pretrain import pretrain  # noqa: E402
from afov_train.simulation.command import write  # noqa: E402
from afov_train.simulation.config import SimConfig  # noqa: E402
from afov_train.supervise import supervised_sweeps  # noqa: E402
from afov_train.taught import NO_PHRASE, TaughtSweep, class_of_phrase  # noqa: E402
from afov_train.teach import look, project, teach  # noqa: E402
from afov_train.teachers import build_teacher  # noqa: E402
from afov_train.teachers.segments import Teacher  # noqa: E402

USUAL = TrainConfig()
CONFIG = replace(USUAL, teacher=replace(USUAL.teacher, overlap=0.0, scales=(0.35,)))
CLASSES = 16
PAPER = TeachConfig(occlusion=False, agreement=False, keep=1.0, vote=0.0, objects=False, reach=0.0)
SWITCHES: dict[str, dict[str, Any]] = {
    "occlusion test": {"occlusion": True},
    "agreement of cameras": {"agreement": True},
    "the surest 90% of each class": {"keep": 0.9},
    "votes of neighbouring sweeps": {"vote": 1.1},
    "things with one voice": {"objects": True},
    "reach past the cameras": {"reach": 2.0},
}
ALL = {name: value for change in SWITCHES.values() for name, value in change.items()}


@dataclass
class Bench:
    """The drives, taught in every way, and what was measured so far.

    Attributes:
        out: the folder of all results. work: one that no other process writes to.
    """

    out: Path
    work: Path
    steps: int
    teacher: Teacher
    drive: BagSource
    taught: dict[str, list[Path]]
    test: list[Frame]
    rows: dict[tuple[str, int], list[float]]

    @property
    def bank(self) -> TextBank:
        """Of the teacher."""
        return self.teacher.text_bank

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes."""
        return self.bank.vocabulary

    def record(self, row: str, seed: int, matrix: np.ndarray) -> None:
        """Keeps a result at once: mIoU, accuracy, IoU of every class, all in percent."""
        figures = [mean_iou(matrix), accuracy(matrix), *iou(matrix)]
        self.rows[row, seed] = [100 * float(f) for f in figures]
        with (self.out / "ablation.csv").open("a", newline="") as stream:
            writer = csv.writer(stream)
            if not stream.tell():
                writer.writerow(["row", "seed", "mIoU", "accuracy", *self.vocabulary.names[1:]])
            writer.writerow((row, seed, *self.rows[row, seed]))
        print(f"{row:48s} seed {seed}  mIoU {self.rows[row, seed][0]:.1f}", flush=True)

    def student(self, network: UNet, bank: TextBank) -> Student:
        """The network as a vehicle has it."""
        folder = self.work / "model"
        export_student(
            network, config=CONFIG.network, grid=CONFIG.grid, text_bank=bank,
            sweep=self.test[0].sweep, temperature=CONFIG.distill.temperature, provenance={},
            folder=folder,
        )  # fmt: skip
        return Student.open(folder)

    def judge(self, student: Student, seed: int, rows: dict[Mode, str]) -> None:
        """Labels the test drive, counts."""
        for mode, row in rows.items():
            matrix = np.zeros((CLASSES + 1, CLASSES + 1), np.int64)
            for frame in self.test:
                assert frame.truth is not None
                labels = student.corrected(student.label(frame.sweep), frame.sweep, mode)
                matrix += confusion(frame.truth.class_id, labels.class_id, CLASSES)
            self.record(row, seed, matrix)


def prepare(out: Path, steps: int) -> Bench:
    """Simulates the drives, asks the teacher once, teaches in every way; what is there is kept."""
    work = out / f"process-{os.getpid()}"
    work.mkdir(parents=True, exist_ok=True)
    for name, config in (
        ("train", SimConfig(11, 20, 3, rate=2.0)), ("test", SimConfig(2011, 6, 2, rate=0.5)),
    ):  # fmt: skip
        if not (out / f"{name}.mcap").exists():
            write("mcap", out / f"{name}.part", config)
            (out / f"{name}.part").rename(out / f"{name}.mcap")
    vocabulary = Vocabulary.load("nuscenes16")
    teacher = build_teacher(CONFIG.teacher, vocabulary, out / "teacher")
    drive = BagSource(out / "train.mcap")
    ways: dict[str, dict[str, Any]] = {"paper": {}, "all": ALL, **SWITCHES}
    taught = {
        name: teach(drive, teacher, replace(PAPER, **change), out / "teach")
        for name, change in ways.items()
    }
    truth = BagSource(out / "train.mcap", truth=True)
    taught["truth"] = supervised_sweeps(truth, vocabulary, 1.0, out / "truth")
    taught["a twentieth"] = taught["truth"][::20]
    test = list(BagSource(out / "test.mcap", truth=True))
    return Bench(out, work, steps, teacher, drive, taught, test, recorded(out))


def recorded(out: Path) -> dict[tuple[str, int], list[float]]:
    """What was measured so far."""
    if not (out / "ablation.csv").exists():
        return {}
    with (out / "ablation.csv").open(newline="") as stream:
        rows = [row for row in csv.reader(stream) if row[0] != "row"]
    return {(row[0], int(row[1])): [float(f) for f in row[2:]] for row in rows}


def judge_teacher(bench: Bench) -> None:
    """The 2D model itself, on the points of the test drive that cameras see."""
    row = "teacher, points that cameras see"
    if (row, 0) in bench.rows:
        return
    matrix = np.zeros((CLASSES + 1, CLASSES + 1), np.int64)
    for frame in bench.test:
        assert frame.truth is not None
        phrase, where = project(frame, look(bench.teacher, frame), PAPER)
        said = class_of_phrase(phrase, bench.vocabulary)
        matrix += confusion(frame.truth.class_id[where], said[where], CLASSES)
    bench.record(row, 0, matrix)


def judge_labels(bench: Bench, way: str) -> None:
    """How good labels themselves are, on the points that have one: a row of labels.md."""
    file, head = bench.out / "labels.md", "| pseudo-labels | points with one | mIoU | accuracy |\n"
    if not file.exists():
        file.write_text(f"{head}|---|---|---|---|\n")
    if f"| {way} |" in file.read_text():
        return
    matrix, labelled, points = np.zeros((CLASSES + 1, CLASSES + 1), np.int64), 0, 0
    for said, true in zip(bench.taught[way], bench.taught["truth"], strict=True):
        taught = TaughtSweep.load(said)
        known = taught.phrase != NO_PHRASE
        truth = TaughtSweep.load(true).class_id(bench.vocabulary)
        matrix += confusion(truth[known], taught.class_id(bench.vocabulary)[known], CLASSES)
        labelled, points = labelled + int(known.sum()), points + len(known)
    figures = f"{100 * mean_iou(matrix):.1f} | {100 * accuracy(matrix):.1f}"
    with file.open("a") as stream:
        stream.write(f"| {way} | {labelled / points:.1%} | {figures} |\n")


def trained(
    bench: Bench,
    seed: int,
    labels: str,
    *,
    start: Path | None,
    config: DistillConfig,
    save: str | None,
) -> tuple[UNet, TextBank]:
    """A network distilled from `labels`, from random weights or from `start`."""
    config = replace(config, seed=seed)
    bank = closed_bank(bench.vocabulary) if config.head == "closed" else bench.bank
    torch.manual_seed(seed)
    network = build_network(CONFIG.network, bank.embeddings.shape[1])
    if start is not None:
        load_trunk(network, start)
    folder = bench.out / save if save else bench.work / "training"
    distill(network, bench.taught[labels], bank, CONFIG.network, CONFIG.grid, config, folder)
    return network, bank


def tmp(bench: Bench, seed: int) -> Path:
    """Weights after TMP, which takes a third of a row's steps."""
    torch.manual_seed(seed)
    network = build_network(CONFIG.network, bench.bank.embeddings.shape[1])
    config = PretrainConfig(steps=bench.steps // 3, seed=seed)
    folder = bench.out / f"tmp-{seed}"
    pretrain(
        network, bench.taught["paper"], bench.bank, CONFIG.network, CONFIG.grid, config, folder
    )
    return folder / "network.safetensors"


def once(
    bench: Bench,
    row: str,
    seed: int,
    labels: str,
    config: DistillConfig,
    start: Callable[[], Path] | None = None,
    save: str | None = None,
    afi: bool = False,
) -> None:
    """Trains and judges, unless an earlier run has recorded the row."""
    rows: dict[Mode, str] = {"off": row}
    if afi:
        rows |= {"paper": f"{row} + AFI as published", "refined": f"{row} + AFI refined"}
    if any((name, seed) not in bench.rows for name in rows.values()):
        begin = start() if start else None
        student = bench.student(
            *trained(bench, seed, labels, start=begin, config=config, save=save)
        )
        bench.judge(student, seed, rows)


def second_round(bench: Bench, seed: int) -> list[Path]:
    """The labels of all six, joined by what a student that learnt from them says."""
    config = DistillConfig(steps=bench.steps)
    first = trained(bench, seed, "all", start=None, config=config, save=f"all-{seed}")
    way, folder = replace(PAPER, **ALL), bench.out / "teach"
    return teach(bench.drive, bench.teacher, way, folder, bench.student(*first))


def ladder(bench: Bench, seed: int) -> None:
    """From plain distillation to the complete pipeline, and the ceiling."""
    usual = DistillConfig(steps=bench.steps)
    once(bench, "distillation", seed, "paper", usual, afi=True)
    once(bench, "distillation + all six", seed, "all", usual, save=f"all-{seed}", afi=True)
    again = f"all six, second round of seed {seed}"
    bench.taught[again] = second_round(bench, seed)
    judge_labels(bench, again)
    once(bench, "distillation + all six + second round", seed, again, usual, afi=True)
    once(bench, "full supervision", seed, "truth", usual)


def pretraining(bench: Bench, seed: int) -> None:
    """TMP before distillation, and what few labels make of each beginning."""
    usual = DistillConfig(steps=bench.steps)
    after_tmp = replace(usual, steps=bench.steps - bench.steps // 3)
    few = DistillConfig(steps=bench.steps // 3, head="closed", class_weight="none")
    frozen = OptimizerConfig(learning_rate=0.0, head_learning_rate=0.02)
    probe = replace(few, optimizer=frozen)
    pretrained = partial(tmp, bench, seed)
    save = f"afov-{seed}"
    once(bench, "TMP, distillation", seed, "paper", after_tmp, pretrained, save, afi=True)
    starts: dict[str, Callable[[], Path] | None] = {
        "random weights": None,
        "TMP": pretrained,
        "AFOV": lambda: bench.out / f"afov-{seed}/network.safetensors",
    }
    for name, begin in starts.items():
        once(bench, f"3 labelled sweeps, from {name}", seed, "a twentieth", few, begin)
    for name, begin in starts.items():
        once(bench, f"linear probe of {name}", seed, "truth", probe, begin)


def losses(bench: Bench, seed: int) -> None:
    """The closed head, and TMP's losses beside the open one."""
    usual = DistillConfig(steps=bench.steps)
    once(bench, "distillation, closed head", seed, "paper", replace(usual, head="closed"))
    once(bench, "TMP's losses beside distillation", seed, "paper", replace(usual, tmp=0.2))


def switches(bench: Bench, seed: int) -> None:
    """Every way to better labels by itself."""
    for name in SWITCHES:
        once(bench, f"distillation + {name}", seed, name, DistillConfig(steps=bench.steps))


def table(rows: dict[tuple[str, int], list[float]]) -> str:
    """Markdown: mean and spread per row, in the order of their first appearance."""
    lines = ["| | mIoU | accuracy | seeds |", "|---|---|---|---|"]
    for row in dict.fromkeys(name for name, _ in rows):
        figures = np.array([f[:2] for (name, _), f in rows.items() if name == row])
        lines.append(f"| {row} | {mean_and_spread(figures)} | {len(figures)} |")
    return "\n".join(lines) + "\n"


def work(rows: Callable[[Bench, int], None], out: Path, steps: int, seed: int) -> None:
    """Some rows of one seed, in a process of their own."""
    rows(prepare(out, steps), seed)


def main() -> None:
    """All seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("ablation"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=225)
    options = parser.parse_args()
    bench = prepare(options.out, options.steps)
    judge_teacher(bench)
    for way in ("paper", *SWITCHES, "all"):
        judge_labels(bench, way)
    # The ladder first: an interrupted run has at least that. Short ones last, or a core waits.
    side_by_side(
        [
            partial(work, rows, options.out, options.steps, seed)
            for rows in (ladder, switches, pretraining, losses)
            for seed in range(options.seeds)
        ]
    )
    text = table(recorded(options.out))
    (options.out / "ablation.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
