"""What each part of open-vocabulary panoptic segmentation is worth (2401.02402).

    OMP_WAIT_POLICY=PASSIVE python benchmarks/panoptic.py [--seeds 3] [--steps 300] [--out panoptic]

Simulated drives: 20 streets of 3 sweeps to learn from, 6 others of 2 to be tested on. The labels of
some classes, things and stuff, are held out (three splits); their names are given at the test
alone. The ladder begins at the paper's baseline and adds a part in each row; beside it stand full
supervision, training without annotation, cameras off at the test, with and without image features
dropped in training, and how far the image features come by themselves. PQ in percent, mean and
spread over splits and seeds.

Every row starts from the same trunk, pre-trained without labels or names, takes steps of one sweep,
and has a process and a core to itself. Everything measured is in panoptic.csv at once; an
interrupted run goes on where it was. `--row NAME --split NAME --seed N` measures one row.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

warnings.filterwarnings("ignore")

from panoptic_drives import GRID, NETWORK, Drives  # noqa: E402
from trained_rows import mean_and_spread, side_by_side  # noqa: E402

from afov.frames import Frame, Truth  # noqa: E402
from afov.image_tower import ImageTower  # noqa: E402
from afov.model_parts import Head  # noqa: E402
from afov.panoptic_quality import (  # noqa: E402
    NUSCENES_MIN_POINTS,
    PanopticQuality,
    no_sweeps,
    panoptic_quality,
    panoptic_summary,
    percent,
)  # fmt: skip
from afov.splits import Split  # noqa: E402
from afov.student import Student  # noqa: E402
from afov_train.clusters import dbscan  # noqa: E402
from afov_train.export import export_student  # noqa: E402
from afov_train.panoptic.config import (  # noqa: E402
    PUBLISHED,
    DecoderConfig,
    LossConfig,
    PanopticConfig,
)
from afov_train.panoptic.export import panoptic_files  # noqa: E402
from afov_train.panoptic.sweeps import PanopticSweep  # noqa: E402
from afov_train.panoptic.targets import BaseClasses, PanopticTarget  # noqa: E402
from afov_train.panoptic.training import build_panoptic, train_panoptic  # noqa: E402

USUAL = LossConfig()
PLAIN = replace(PUBLISHED, object=0.0, voxel=0.0)
ALONE = DecoderConfig(fusion=False)
OTHERS: tuple[Head, ...] = ("ensemble", "voxels")
OFF = ", cameras off at the test"
GAP = 1.0  # metres
Segments = tuple[np.ndarray, np.ndarray]  # class and instance of each point


@dataclass(frozen=True)
class Row:
    """What is trained, and how it is tested.

    Attributes:
        labels: of the split's base classes, or of all classes: `truth` or `pseudo`.
        blind: whether the test without images adds rows.
        clusters: whether what comes out without the decoder adds one: each voxel's own class, a
            thing for every density cluster.
        heads: that name the same masks besides, each with rows of its own.
    """

    config: PanopticConfig = field(default_factory=PanopticConfig)
    labels: str = "base"
    blind: bool = False
    clusters: bool = False
    heads: tuple[Head, ...] = ()


def single(losses: LossConfig, **more: Any) -> PanopticConfig:
    """Named by the queries alone, as the paper has it."""
    return PanopticConfig(head="single", losses=losses, **more)


# The paper's rows, each with all that stands above it; then what stands beside them.
ROWS = {
    "baseline": Row(
        PanopticConfig(decoder=ALONE, head="ensemble", losses=PLAIN), heads=("voxels",)
    ),
    "+ fusion": Row(PanopticConfig(head="ensemble", losses=PLAIN)),
    "+ single head": Row(single(PLAIN)),
    "+ object loss": Row(single(replace(PLAIN, object=PUBLISHED.object))),
    "+ voxel loss": Row(single(PUBLISHED), blind=True, clusters=True, heads=OTHERS),
    "+ segments": Row(single(USUAL), blind=True, clusters=True, heads=OTHERS),
    "+ segments, without dropout": Row(single(USUAL, drop=0.0), blind=True, heads=("voxels",)),
    "full supervision": Row(single(USUAL), "truth", blind=True, clusters=True, heads=OTHERS),
    "without annotation": Row(single(USUAL), "pseudo", blind=True, heads=OTHERS),
    "single head + voxel loss alone": Row(single(replace(PUBLISHED, object=0.0))),
}
GROUPS = ("all", "base", "novel", "base things", "base stuff", "novel things", "novel stuff")
FIGURES = ("PQ", "SQ", "RQ", "PQ-dagger", "mIoU")
HEADER = ["row", "split", "seed", *(f"{f} {g}" for g in GROUPS for f in FIGURES)]


def record(drives: Drives, row: str, split: Split, seed: int, quality: PanopticQuality) -> None:
    """Appends a line: every figure of every group of classes, in percent."""
    found = panoptic_summary(quality, drives.vocabulary, split)
    figures = [round(100 * found[g][f], 3) for g in GROUPS for f in FIGURES]
    with (drives.out / "panoptic.csv").open("a", newline="") as stream:
        csv.writer(stream).writerow([row, split.name, seed, *figures])
    told = (f"{g} {percent(found[g]['PQ'])}" for g in GROUPS)
    print(f"{row:40s} {split.name}, seed {seed}: PQ {', '.join(told)}", flush=True)


def measured(out: Path) -> dict[tuple[str, str, int], list[float]]:
    """What panoptic.csv holds."""
    file = out / "panoptic.csv"
    if not file.exists():
        file.write_text(",".join(HEADER) + "\n")
    lines = list(csv.reader(file.open()))[1:]
    return {(row, split, int(seed)): [float(f) for f in rest] for row, split, seed, *rest in lines}


def judge(out: Path, name: str, held_out: str, seed: int, steps: int) -> None:
    """Trains one row, exports it, and tests it as a vehicle would run it."""
    drives, row = Drives.open(out), ROWS[name]
    (split,) = (s for s in drives.splits if s.name == held_out)
    frames = drives.test()
    folder = drives.out / "runs" / f"{name}-{split.name}-{seed}"
    student = trained(
        drives, row, split, replace(row.config, seed=seed, steps=steps, batch=1), frames[0], folder
    )
    tests: dict[str, Callable[[Frame], Segments]] = {}
    if row.clusters:
        tests[f"{name}, clusters for the decoder"] = lambda frame: clusters(student, frame)
    for head in (*row.heads, row.config.head):
        model, shown = under(student, head), name
        if head != row.config.head:
            shown += f", head {head}"
        tests[shown] = partial(masks, model, True)
        # Without images the ensemble is the query alone.
        if row.blind and head != "ensemble":
            tests[shown + OFF] = partial(masks, model, False)
    for shown, segments in tests.items():
        quality = no_sweeps(len(drives.vocabulary.labelled))
        for frame in frames:
            assert frame.truth is not None
            quality += compared(frame.truth, *segments(frame), drives)
        # What knows all classes is the same for every split.
        for one in (split,) if row.labels == "base" else drives.splits:
            record(drives, shown, one, seed, quality)


def under(student: Student, name: Head) -> Student:
    """The same model, its masks named otherwise."""
    head = copy(student.panoptic)
    assert head is not None
    head.files = replace(head.files, head=name)
    return replace(student, panoptic=head)


def masks(student: Student, cameras: bool, frame: Frame) -> Segments:
    """What the decoder's masks say of each point."""
    labels = student.label(frame.sweep, frame.images if cameras else ())
    assert labels.instance_id is not None
    return labels.class_id, labels.instance_id


def clusters(student: Student, frame: Frame) -> Segments:
    """The voxels' own classes, a thing's points apart where a metre lies between them."""
    class_id = replace(student, panoptic=None).label(frame.sweep).class_id
    instance_id = np.zeros(len(class_id), np.uint16)
    thing = np.array([False, *(c.thing for c in student.vocabulary.labelled)])
    for one in np.unique(class_id[thing[class_id]]):
        points = np.flatnonzero(class_id == one)
        found = dbscan(frame.sweep.xyz[points], GAP)
        instance_id[points] = instance_id.max() + 1 + found
    return class_id, instance_id


def trained(
    drives: Drives, row: Row, split: Split, config: PanopticConfig, frame: Frame, folder: Path
) -> Student:
    """A student that goes on from the common trunk, through a model folder.

    Args:
        frame: on which the export is checked.
    """
    base = BaseClasses.of(drives.vocabulary, split.base if row.labels == "base" else ())
    files = drives.files(split.name if row.labels == "base" else row.labels)
    torch.manual_seed(config.seed)
    network = build_panoptic(NETWORK, drives.bank, base, config)
    network.trunk.load_state_dict(drives.start())
    train_panoptic(network, files, drives.bank, base, NETWORK, GRID, config, folder / "panoptic")
    names = [drives.vocabulary.names[i] for i in base.ids]
    files_ = panoptic_files(
        network, drives.tower, config.head, names, NETWORK.inputs, GRID, frame.sweep, frame.images
    )
    model = export_student(
        network.trunk, config=NETWORK, grid=GRID, text_bank=drives.bank, sweep=frame.sweep,
        temperature=config.temperature, provenance={}, folder=folder / "model", panoptic=files_,
    )  # fmt: skip
    return Student.open(model)


def compared(
    truth: Truth | PanopticTarget, class_id: np.ndarray, instance_id: np.ndarray, drives: Drives
) -> PanopticQuality:
    """One sweep against its truth."""
    return panoptic_quality(
        truth.class_id, truth.instance_id, class_id, instance_id,
        len(drives.vocabulary.labelled), NUSCENES_MIN_POINTS,
    )  # fmt: skip


def untrained(drives: Drives) -> None:
    """How good the pseudo-instances are, and what image features name by themselves: every point
    (with the truth's instances), or every mask of the truth by the mean over its points."""
    classes = len(drives.vocabulary.labelled)
    own, points, masks = (no_sweeps(classes) for _ in range(3))
    for one, other in zip(drives.files("truth"), drives.files("pseudo"), strict=True):
        truth, said = PanopticSweep.load(one).target, PanopticSweep.load(other).target
        own += compared(truth, said.class_id, said.instance_id, drives)
    eyes = ImageTower(drives.tower)
    for frame in drives.test():
        truth = frame.truth
        assert truth is not None
        seen = eyes.look(frame.sweep.xyz, frame.images)
        key = truth.class_id.astype(np.int64) * 65536 + truth.instance_id
        _, mask = np.unique(key, return_inverse=True)
        each = np.arange(len(frame.sweep))
        points += compared(
            truth, named(drives, seen.of_voxels(each, len(each))), truth.instance_id, drives
        )
        pooled = named(drives, seen.of_voxels(mask, mask.max() + 1))
        masks += compared(truth, pooled[mask], truth.instance_id, drives)
    for split in drives.splits:
        record(drives, "the pseudo-instances themselves", split, 0, own)
        record(drives, "image features name every point", split, 0, points)
        record(drives, "image features name the true masks", split, 0, masks)


def named(drives: Drives, rows: np.ndarray) -> np.ndarray:
    """(N, E) image features to (N,) class ids, 0 where nothing was seen."""
    best = drives.bank.class_scores(rows).argmax(1) + 1
    return np.where(rows.any(1), best, 0).astype(np.uint8)


def table(found: dict[tuple[str, str, int], list[float]]) -> str:
    """Markdown: PQ and mIoU, mean and spread per row, in the order of their first appearance."""
    shown = [("PQ", group) for group in GROUPS] + [("mIoU", "base"), ("mIoU", "novel")]
    lines = [
        f"| | {' | '.join(f'{f} {g}' for f, g in shown)} | splits x seeds |",
        "|---" * (len(shown) + 2) + "|",
    ]
    places = [GROUPS.index(g) * len(FIGURES) + FIGURES.index(f) for f, g in shown]
    heads = ("", *(f", head {head}" for head in OTHERS))
    what = (", clusters for the decoder", *(head + off for head in heads for off in ("", OFF)))
    order = [name + more for name in ROWS for more in what]
    names = dict.fromkeys(name for name, _, _ in found)
    for row in sorted(names, key=lambda name: order.index(name) if name in order else len(order)):
        figures = np.array([f for (name, _, _), f in found.items() if name == row])[:, places]
        lines.append(f"| {row} | {mean_and_spread(figures)} | {len(figures)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """All splits and seeds; the first seed of every split first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("panoptic"))
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--start-steps", type=int, default=300)
    parser.add_argument("--streets", type=int, default=20)
    parser.add_argument("--row", choices=ROWS)
    parser.add_argument("--split")
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.row:
        judge(options.out, options.row, options.split, options.seed, options.steps)
        return
    drives = Drives.open(options.out)
    if not drives.prepared:
        drives.prepare(options.streets, options.start_steps)
    done = measured(options.out)
    if ("image features name every point", drives.splits[0].name, 0) not in done:
        untrained(drives)
    wanted = [
        (row, split.name, seed)
        for seed in range(options.seeds)
        for split in drives.splits[: options.splits]
        for row in ROWS
        if ROWS[row].labels == "base" or split == drives.splits[0]
    ]
    side_by_side(
        [
            partial(judge, options.out, row, split, seed, options.steps)
            for row, split, seed in wanted
            if (last(row), split, seed) not in done
        ]
    )
    (options.out / "panoptic.md").write_text(table(measured(options.out)))
    print((options.out / "panoptic.md").read_text())


def last(row: str) -> str:
    """The last line of a row."""
    return row + OFF if ROWS[row].blind else row


if __name__ == "__main__":
    main()
