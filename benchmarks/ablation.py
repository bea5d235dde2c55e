"""What each part of the method is worth, on simulated drives whose test streets are others.

    python benchmarks/ablation.py [--out DIR] [--seeds 3] [--steps 100]

Each row is trained once per seed; mean and spread of mIoU and accuracy over all points of the test
drive go to ablation.csv and, as a table, to ablation.md. What is done is not done again.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

warnings.filterwarnings("ignore")

from afov.afi import Mode  # noqa: E402
from afov.frames import Frame  # noqa: E402
from afov.metrics import confusion, mean_iou  # noqa: E402
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
from afov_train.evaluate import accuracy  # noqa: E402
from afov_train.export import export_student  # noqa: E402
from afov_train.network.unet import UNet, build_network  # noqa: E402
from afov_train.pipeline import load_trunk  # noqa: E402
from afov_train.pretrain import pretrain  # noqa: E402
from afov_train.simulation.command import write  # noqa: E402
from afov_train.simulation.config import SimConfig  # noqa: E402
from afov_train.supervise import supervised_sweeps  # noqa: E402
from afov_train.teach import class_of_phrase, look, project, teach  # noqa: E402
from afov_train.teachers import build_teacher  # noqa: E402

CONFIG = TrainConfig()
CLASSES = 16


@dataclass
class Bench:
    """The drives, taught in every way, and what was measured so far."""

    out: Path
    steps: int
    vocabulary: Vocabulary
    bank: TextBank
    taught: dict[str, list[Path]]
    test: list[Frame]
    rows: dict[tuple[str, int], tuple[float, float]]

    def record(self, row: str, seed: int, matrix: np.ndarray) -> None:
        """Keeps a result at once."""
        self.rows[row, seed] = (100 * mean_iou(matrix), 100 * accuracy(matrix))
        with (self.out / "ablation.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["row", "seed", "mIoU", "accuracy"])
            writer.writerows((r, s, *figures) for (r, s), figures in self.rows.items())
        print(f"{row:48s} seed {seed}  mIoU {self.rows[row, seed][0]:.1f}", flush=True)

    def judge(self, network: UNet, bank: TextBank, seed: int, rows: dict[Mode, str]) -> None:
        """Exports, labels the test drive, counts."""
        sweep = self.test[0].sweep
        folder = self.out / "model"
        export_student(
            network, config=CONFIG.network, grid=CONFIG.grid, text_bank=bank, sweep=sweep,
            temperature=CONFIG.distill.temperature, provenance={}, folder=folder,
        )  # fmt: skip
        student = Student.open(folder)
        for mode, row in rows.items():
            matrix = np.zeros((CLASSES + 1, CLASSES + 1), np.int64)
            for frame in self.test:
                assert frame.truth is not None
                labels = student.corrected(student.label(frame.sweep), frame.sweep, mode)
                matrix += confusion(frame.truth.class_id, labels.class_id, CLASSES)
            self.record(row, seed, matrix)


def prepare(out: Path, steps: int) -> Bench:
    """Simulates the drives, asks the teacher once, teaches in every way."""
    out.mkdir(parents=True, exist_ok=True)
    for name, config in (
        ("train", SimConfig(11, 30, 1, rate=0.5)), ("test", SimConfig(2011, 6, 2, rate=0.5)),
    ):  # fmt: skip
        if not (out / f"{name}.mcap").exists():
            write("mcap", out / f"{name}.part", config)
            (out / f"{name}.part").rename(out / f"{name}.mcap")
    vocabulary = Vocabulary.load("nuscenes16")
    seen = replace(CONFIG.teacher, overlap=0.0)
    teacher = build_teacher(seen, vocabulary, out / "teacher")
    drive, usual = out / "train.mcap", TeachConfig()
    ways = {
        "usual": usual,
        "no occlusion test": replace(usual, occlusion=False),
        "cameras alone": replace(usual, reach=0.0),
        "score over 0.5": replace(usual, min_score=0.5),
    }
    taught = {n: teach(BagSource(drive), teacher, way, out / "teach") for n, way in ways.items()}
    truth = BagSource(drive, truth=True)
    taught["truth"] = supervised_sweeps(truth, vocabulary, 1.0, out / "truth")
    taught["a tenth"] = taught["truth"][::10]
    test = list(BagSource(out / "test.mcap", truth=True))
    bench = Bench(out, steps, vocabulary, teacher.text_bank, taught, test, {})
    if (out / "ablation.csv").exists():
        for row in csv.DictReader((out / "ablation.csv").open()):
            figures = float(row["mIoU"]), float(row["accuracy"])
            bench.rows[row["row"], int(row["seed"])] = figures
    if ("teacher, points that cameras see", 0) not in bench.rows:
        matrix = np.zeros((CLASSES + 1, CLASSES + 1), np.int64)
        for frame in test:
            assert frame.truth is not None
            phrase, where = project(frame, look(teacher, frame), usual)
            said = class_of_phrase(phrase, vocabulary)
            matrix += confusion(frame.truth.class_id[where], said[where], CLASSES)
        bench.record("teacher, points that cameras see", 0, matrix)
    return bench


def trained(
    bench: Bench,
    seed: int,
    labels: str,
    *,
    start: Path | None = None,
    config: DistillConfig | None = None,
    save: str | None = None,
) -> tuple[UNet, TextBank]:
    """A network distilled from `labels`, from random weights or from `start`."""
    config = replace(config or DistillConfig(steps=bench.steps), seed=seed)
    bank = closed_bank(bench.vocabulary) if config.head == "closed" else bench.bank
    torch.manual_seed(seed)
    network = build_network(CONFIG.network, bank.embeddings.shape[1])
    if start is not None:
        load_trunk(network, start)
    folder = bench.out / (save or "work")
    distill(network, bench.taught[labels], bank, CONFIG.network, CONFIG.grid, config, folder)
    return network, bank


def tmp(bench: Bench, seed: int) -> Path:
    """Weights after TMP, half as many steps as distillation takes."""
    torch.manual_seed(seed)
    network = build_network(CONFIG.network, bench.bank.embeddings.shape[1])
    config = PretrainConfig(steps=bench.steps // 2, seed=seed)
    folder = bench.out / f"tmp-{seed}"
    pretrain(
        network, bench.taught["usual"], bench.bank, CONFIG.network, CONFIG.grid, config, folder
    )
    return folder / "network.safetensors"


def one_seed(bench: Bench, seed: int) -> None:
    """Every row once."""
    few = DistillConfig(steps=bench.steps // 2, head="closed", class_weight="none")
    frozen = OptimizerConfig(learning_rate=0.0, head_learning_rate=0.02)
    probe = replace(few, optimizer=frozen)
    longer = DistillConfig(steps=bench.steps + bench.steps // 2)

    def once(row: str, work: Callable[[], tuple[UNet, TextBank]], **more: str) -> None:
        if (row, seed) not in bench.rows:
            rows: dict[Mode, str] = {"off": row}
            rows.update(more)  # type: ignore[arg-type]
            bench.judge(*work(), seed, rows)

    once(
        "distillation from random weights", lambda: trained(bench, seed, "usual"),
        paper="+ AFI as published", refined="+ AFI refined",
    )  # fmt: skip
    once(
        "as many steps as TMP + distillation", lambda: trained(bench, seed, "usual", config=longer)
    )
    once(
        "TMP, then distillation",
        lambda: trained(bench, seed, "usual", start=tmp(bench, seed), save=f"afov-{seed}"),
        paper="TMP, then distillation, + AFI as published",
        refined="TMP, then distillation, + AFI refined",
    )
    beside = DistillConfig(steps=bench.steps, tmp=0.2)
    once("TMP's losses beside distillation", lambda: trained(bench, seed, "usual", config=beside))
    closed = DistillConfig(steps=bench.steps, head="closed")
    once("closed head", lambda: trained(bench, seed, "usual", config=closed))
    for name in ("no occlusion test", "cameras alone", "score over 0.5"):
        once(f"pseudo-labels: {name}", lambda name=name: trained(bench, seed, name))  # type: ignore[misc]
    once("full supervision", lambda: trained(bench, seed, "truth"))
    afov = bench.out / f"afov-{seed}/network.safetensors"
    starts = {"random": None, "TMP": tmp(bench, seed), "AFOV": afov}
    for name, start in starts.items():
        once(
            f"3 labelled sweeps, from {name}",
            lambda start=start: trained(bench, seed, "a tenth", start=start, config=few),  # type: ignore[misc]
        )
        once(
            f"linear probe of {name}",
            lambda start=start: trained(bench, seed, "truth", start=start, config=probe),  # type: ignore[misc]
        )


def table(bench: Bench) -> str:
    """Markdown: mean and spread per row, in the order of their first appearance."""
    lines = ["| | mIoU | accuracy | seeds |", "|---|---|---|---|"]
    for row in dict.fromkeys(name for name, _ in bench.rows):
        figures = np.array([f for (name, _), f in bench.rows.items() if name == row])
        mean, spread = figures.mean(0), figures.std(0)
        cells = [f"{m:.1f} ± {s:.1f}" for m, s in zip(mean, spread, strict=True)]
        lines.append(f"| {row} | {' | '.join(cells)} | {len(figures)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """All seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("ablation"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    bench = prepare(options.out, options.steps)
    for seed in range(options.seeds):
        one_seed(bench, seed)
        (options.out / "ablation.md").write_text(table(bench))
    print(table(bench))


if __name__ == "__main__":
    main()
