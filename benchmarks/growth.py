"""How cost grows: points, voxel size, classes, cameras. One table each, medians in ms.

python benchmarks/growth.py [--repeat 5]
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from compare import by_turns, real_sweep
from network import untrained

from afov.frames import Sweep
from afov.native import call
from afov.student import Student
from afov.text_bank import TextBank
from afov.vocabulary import Vocabulary
from afov.voxels import VoxelGrid
from afov_train.network.config import NetworkConfig

POINTS = (10_000, 34_688, 100_000, 300_000, 1_000_000)
SIZES = (0.05, 0.1, 0.2, 0.4)
CLASSES = (10, 100, 400, 1200)
CAMERAS = (1, 3, 6, 12)


def resampled(raw: np.ndarray, count: int) -> Sweep:
    """As many points as asked: some of the real ones, or real ones moved by up to 20 cm."""
    rng = np.random.default_rng(0)
    chosen = raw[rng.permutation(np.resize(np.arange(len(raw)), count))].copy()
    if count > len(raw):
        chosen[:, :3] += rng.uniform(-0.2, 0.2, (count, 3))
    return Sweep(chosen.astype(np.float32), ("x", "y", "z", "intensity"), 0, "lidar")


def label(student: Student, sweep: Sweep, repeat: int) -> dict[str, float]:
    """Medians by part."""
    student.label(sweep)
    seconds = [student.label(sweep).seconds for _ in range(repeat)]
    return {part: 1e3 * float(np.median([s[part] for s in seconds])) for part in seconds[0]}


def bank(phrases: int, width: int) -> TextBank:
    """As many classes, a phrase each."""
    classes = [{"name": f"class {i}", "phrases": [f"thing {i}"]} for i in range(phrases)]
    base = Vocabulary.load("nuscenes16").to_dict()
    described = [{**base["classes"][0], **c} for c in classes]
    vocabulary = Vocabulary.from_dict({**base, "classes": described}, "benchmark")
    rows = np.random.default_rng(0).normal(size=(len(vocabulary.phrases), width))
    return TextBank(vocabulary, rows.astype(np.float32))


def show(title: str, parts: dict[str, float]) -> None:
    """One line."""
    print(f"{title:34} " + "  ".join(f"{name} {value:.1f}" for name, value in parts.items()))


def main() -> None:
    """The tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    raw = real_sweep()
    _, model = untrained(NetworkConfig(), 128)
    student = Student.of(model)
    for count in POINTS:
        sweep = resampled(raw, count)
        voxels = len(model.grid.voxelize(sweep.xyz))
        show(f"{count} points, {voxels} voxels", label(student, sweep, repeat))
    sweep = resampled(raw, len(raw))
    for size in SIZES:
        finer = replace(model, grid=VoxelGrid("cylindrical", (size, 10 * size, size)))
        voxels = len(finer.grid.voxelize(sweep.xyz))
        parts = label(replace(student, model=finer), sweep, repeat)
        show(f"voxels of {size} m, {voxels} of them", parts)
    for classes in CLASSES:
        if classes > 255:
            print(f"{classes} classes: labels are uint8, so not more than 255")
            continue
        parts = label(student.with_text_bank(bank(classes, 128)), sweep, repeat)
        show(f"{classes} classes", parts)
    call("keep_memory")
    from pairing import GOLDEN, images

    from afov.pairing import pair_images

    if GOLDEN.exists():
        golden = dict(np.load(GOLDEN, allow_pickle=False))
        cameras = images(golden)
        for count in CAMERAS:
            several = (cameras * 2)[:count]
            times = by_turns(repeat, pairs=lambda s=several: pair_images(golden["points"], s))
            show(f"{count} cameras", {"pairing": float(np.median(times["pairs"]))})


if __name__ == "__main__":
    main()
