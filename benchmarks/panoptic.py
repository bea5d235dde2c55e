"""What each part of open-vocabulary panoptic segmentation is worth (2401.02402).

    OMP_WAIT_POLICY=PASSIVE python benchmarks/panoptic.py [--seeds 3] [--steps 600] [--out panoptic]

Simulated drives: 20 streets of 3 sweeps to learn from, 6 others of 2 to be tested on. The labels of
some classes, things and stuff, are held out (three splits); their names are given at the test
alone. The ladder begins at the paper's baseline and adds a part in each row; beside it stand full
supervision, training without annotation, and cameras off at the test, with and without image
features dropped in training. PQ in percent, mean and spread over splits and seeds.

Everything measured is in panoptic.csv at once; an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

warnings.filterwarnings("ignore")

from afov.frames import Frame  # noqa: E402
from afov.image_tower import ImageTower  # noqa: E402
from afov.model_parts import ImageTowerFiles  # noqa: E402
from afov.panoptic_quality import (  # noqa: E402
    NUSCENES_MIN_POINTS,
    PanopticQuality,
    no_sweeps,
    panoptic_quality,
    panoptic_summary,
    percent,
)  # fmt: skip
from afov.sources.bags import BagSource  # noqa: E402
from afov.splits import Split  # noqa: E402
from afov.student import Student  # noqa: E402
from afov.text_bank import TextBank  # noqa: E402
from afov.vocabulary import Vocabulary  # noqa: E402
from afov.voxels import VoxelGrid  # noqa: E402
from afov_train.config import TeachConfig  # noqa: E402
from afov_train.export import export_student  # noqa: E402
from afov_train.panoptic.config import (  # noqa: E402
    DecoderConfig,
    LossConfig,
    PanopticConfig,
    PanopticTrainConfig,
)  # fmt: skip
from afov_train.panoptic.export import panoptic_files  # noqa: E402
from afov_train.panoptic.instances import pseudo_labels  # noqa: E402
from afov_train.panoptic.sweeps import PanopticSweep, prepare  # noqa: E402
from afov_train.panoptic.targets import BaseClasses, PanopticTarget  # noqa: E402
from afov_train.panoptic.training import build_panoptic, train_panoptic  # noqa: E402
from afov_train.simulation.command import write  # noqa: E402
from afov_train.simulation.config import SimConfig  # noqa: E402
from afov_train.teachers import build_teacher  # noqa: E402
from afov_train.teachers.image_onnx import image_tower  # noqa: E402

USUAL = PanopticTrainConfig()
GRID = VoxelGrid(size=(0.2, 2.0, 0.2))
TEACH = TeachConfig(agreement=True, keep=0.9, vote=1.1)
PLAIN = LossConfig(object=0.0, voxel=0.0)
ALONE = DecoderConfig(fusion=False)
COMPLETE = "+ voxel loss"
# The paper's rows, each with all that stands above it.
LADDER = {
    "baseline": PanopticConfig(decoder=ALONE, head="ensemble", losses=PLAIN),
    "+ fusion": PanopticConfig(head="ensemble", losses=PLAIN),
    "+ single head": PanopticConfig(losses=PLAIN),
    "+ object loss": PanopticConfig(losses=replace(PLAIN, object=LossConfig.object)),
    COMPLETE: PanopticConfig(),
    "single head + voxel loss alone": PanopticConfig(losses=LossConfig(object=0.0)),
}
GROUPS = ("all", "base", "novel", "base things", "base stuff", "novel things", "novel stuff")
FIGURES = ("PQ", "SQ", "RQ", "PQ-dagger", "mIoU")


@dataclass
class Bench:
    """The drives, prepared once, and what was measured so far."""

    out: Path
    steps: int
    vocabulary: Vocabulary
    bank: TextBank
    tower: ImageTowerFiles
    truth: list[Path]
    pseudo: list[Path]
    test: list[Frame]
    rows: dict[tuple[str, str, int], list[float]] = field(default_factory=dict)

    def record(self, row: str, split: Split, seed: int, quality: PanopticQuality) -> None:
        """Keeps a result at once: every figure of every group of classes, in percent."""
        found = panoptic_summary(quality, self.vocabulary, split)
        self.rows[row, split.name, seed] = [100 * found[g][f] for g in GROUPS for f in FIGURES]
        header = ["row", "split", "seed", *(f"{f} {g}" for g in GROUPS for f in FIGURES)]
        with (self.out / "panoptic.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(header)
            writer.writerows((*key, *figures) for key, figures in self.rows.items())
        told = (f"{g} {percent(found[g]['PQ'])}" for g in GROUPS)
        print(f"{row:40s} {split.name}, seed {seed}: PQ {', '.join(told)}", flush=True)
        (self.out / "panoptic.md").write_text(table(self))

    def trained(
        self, files: Sequence[Path], base: BaseClasses, config: PanopticConfig, seed: int
    ) -> Student:
        """A student as a vehicle would open it."""
        config = replace(config, seed=seed, steps=self.steps)
        torch.manual_seed(seed)
        network = build_panoptic(USUAL.network, self.bank, base, config)
        data = self.bank, base, USUAL.network, GRID
        train_panoptic(network, files, *data, config, self.out / "work")
        sweep, images = self.test[0].sweep, self.test[0].images
        names = [self.vocabulary.names[i] for i in base.ids]
        files_ = panoptic_files(
            network, self.tower, config.head, names, USUAL.network.inputs, GRID, sweep, images
        )
        model = export_student(
            network.trunk, config=USUAL.network, grid=GRID, text_bank=self.bank, sweep=sweep,
            temperature=config.temperature, provenance={}, folder=self.out / "model",
            panoptic=files_,
        )  # fmt: skip
        return Student.open(model)

    def judged(self, student: Student, cameras: bool = True) -> PanopticQuality:
        """The test drive, with its images or without."""
        classes = len(self.vocabulary.labelled)
        quality = no_sweeps(classes)
        for frame in self.test:
            labels = student.label(frame.sweep, frame.images if cameras else ())
            assert frame.truth is not None and labels.instance_id is not None
            quality += panoptic_quality(
                frame.truth.class_id, frame.truth.instance_id,
                labels.class_id, labels.instance_id, classes, NUSCENES_MIN_POINTS,
            )  # fmt: skip
        return quality


def prepare_bench(out: Path, steps: int, streets: int) -> Bench:
    """Simulates the drives; the image tower and the teacher look at them once."""
    out.mkdir(parents=True, exist_ok=True)
    for name, config in (
        ("train", SimConfig(11, streets, 3, rate=2.0)),
        ("test", SimConfig(2011, max(streets // 3, 1), 2, rate=0.5)),
    ):
        if not (out / f"{name}.mcap").exists():
            write("mcap", out / f"{name}.part", config)
            (out / f"{name}.part").rename(out / f"{name}.mcap")
    vocabulary = Vocabulary.load(USUAL.vocabulary)
    teacher_config = replace(USUAL.teacher, overlap=0.0)
    teacher = build_teacher(teacher_config, vocabulary, out / "teacher")
    tower = image_tower(teacher_config, USUAL.panoptic.windows)
    every = BaseClasses.of(vocabulary, ())
    truth = prepare(
        BagSource(out / "train.mcap", truth=True), ImageTower(tower), every.ids, None,
        out / "truth",
    )  # fmt: skip
    labels = pseudo_labels(BagSource(out / "train.mcap"), teacher, TEACH, out)
    pseudo = [_relabelled(file, _target(labels, file), out / "pseudo") for file in truth]
    test = list(BagSource(out / "test.mcap", truth=True))
    bench = Bench(out, steps, vocabulary, teacher.text_bank, tower, truth, pseudo, test)
    if (out / "panoptic.csv").exists():
        for row in list(csv.reader((out / "panoptic.csv").open()))[1:]:
            bench.rows[row[0], row[1], int(row[2])] = [float(f) for f in row[3:]]
    return bench


def _target(labels: Path, file: Path) -> PanopticTarget:
    """The pseudo-instances of the sweep in a prepared file."""
    with np.load(labels / f"{file.stem.rsplit('-', 1)[0]}.npz", allow_pickle=False) as data:
        return PanopticTarget(data["class_id"], data["instance_id"])


def _relabelled(file: Path, target: PanopticTarget, folder: Path) -> Path:
    """The same prepared sweep with other labels."""
    folder.mkdir(parents=True, exist_ok=True)
    replace(PanopticSweep.load(file), target=target).save(folder / file.name)
    return folder / file.name


def one_split(bench: Bench, split: Split, seed: int) -> None:
    """Every row once."""
    base = BaseClasses.of(bench.vocabulary, split.base)
    every = BaseClasses.of(bench.vocabulary, ())
    held_out = [
        _relabelled(f, PanopticSweep.load(f).target.of_classes(base.ids), bench.out / split.name)
        for f in bench.truth
    ]

    def once(row: str, files: Sequence[Path], known: BaseClasses, config: PanopticConfig) -> None:
        blind = f"{row}, cameras off at the test"
        both = row == COMPLETE or "without dropout" in row
        if all((r, split.name, seed) in bench.rows for r in ((row, blind) if both else (row,))):
            return
        student = bench.trained(files, known, config, seed)
        bench.record(row, split, seed, bench.judged(student))
        if both:
            bench.record(blind, split, seed, bench.judged(student, cameras=False))

    for row, config in LADDER.items():
        once(row, held_out, base, config)
    once(f"{COMPLETE}, without dropout", held_out, base, PanopticConfig(drop=0.0))
    once("full supervision", bench.truth, every, LADDER[COMPLETE])
    once("without annotation", bench.pseudo, every, LADDER[COMPLETE])


def pseudo_quality(bench: Bench, split: Split) -> None:
    """How good the pseudo-instances themselves are, on the drive that they label."""
    row = "the pseudo-instances themselves"
    if (row, split.name, 0) in bench.rows:
        return
    classes = len(bench.vocabulary.labelled)
    quality = no_sweeps(classes)
    for one, other in zip(bench.truth, bench.pseudo, strict=True):
        truth, said = PanopticSweep.load(one).target, PanopticSweep.load(other).target
        quality += panoptic_quality(
            truth.class_id, truth.instance_id, said.class_id, said.instance_id, classes,
            NUSCENES_MIN_POINTS,
        )  # fmt: skip
    bench.record(row, split, 0, quality)


def table(bench: Bench) -> str:
    """Markdown: PQ and mIoU, mean and spread per row, in the order of their first appearance."""
    shown = [("PQ", group) for group in GROUPS] + [("mIoU", "base"), ("mIoU", "novel")]
    lines = [
        f"| | {' | '.join(f'{f} {g}' for f, g in shown)} | splits x seeds |",
        "|---" * (len(shown) + 2) + "|",
    ]
    places = [GROUPS.index(g) * len(FIGURES) + FIGURES.index(f) for f, g in shown]
    for row in dict.fromkeys(name for name, _, _ in bench.rows):
        found = np.array([f for (name, _, _), f in bench.rows.items() if name == row])[:, places]
        mean, spread = np.nanmean(found, 0), np.nanstd(found, 0)
        cells = [f"{m:.1f} ± {s:.1f}" for m, s in zip(mean, spread, strict=True)]
        lines.append(f"| {row} | {' | '.join(cells)} | {len(found)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """All splits and seeds; the first seed of every split first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("panoptic"))
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--streets", type=int, default=20)
    options = parser.parse_args()
    bench = prepare_bench(options.out, options.steps, options.streets)
    splits = (
        Split.named(bench.vocabulary, "nuscenes-b12n4"),
        Split.named(bench.vocabulary, "nuscenes-b11n5"),
        Split.random(bench.vocabulary, 4, 0),
    )
    for split in splits[: options.splits]:
        pseudo_quality(bench, split)
    for seed in range(options.seeds):
        for split in splits[: options.splits]:
            one_split(bench, split, seed)
    print(table(bench))


if __name__ == "__main__":
    main()
