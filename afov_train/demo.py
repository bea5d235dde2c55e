"""The main job, start to end: a simulated drive, a student, the node on it, pictures.

python -m afov_train.demo --out demo
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from afov import pictures
from afov.errors import InputError
from afov.frames import Frame
from afov.sources.bags import BagSource
from afov.student import Student
from afov_train.cli import configured
from afov_train.config import TrainConfig
from afov_train.recordings import Recording
from afov_train.simulation.command import write
from afov_train.simulation.config import SimConfig


@dataclass(frozen=True)
class Demo:
    """Simulate, train, label live, draw."""

    out: Path = Path("demo")
    """Where everything is left."""
    streets: int = 30
    """Streets of the drive that the student learns from."""
    frames: int = 2
    """Sweeps in each of them."""
    test_streets: int = 6
    """Streets of the test drive; none is in the first."""
    test_frames: int = 4
    steps: int = 450
    """Optimizer steps of the distillation."""
    seed: int = 1


def main(demo: Demo) -> None:
    """Runs every step; each leaves what the next one reads."""
    from dataclasses import replace

    from afov_ros.live import label_live
    from afov_train.pipeline import train

    began = time.monotonic()
    demo.out.mkdir(parents=True, exist_ok=True)
    drive, test = demo.out / "drive.mcap", demo.out / "test.mcap"
    with timed("simulate two drives"):
        write("mcap", drive, SimConfig(demo.seed, demo.streets, demo.frames, rate=0.5))
        write("mcap", test, SimConfig(demo.seed + 1000, demo.test_streets, demo.test_frames))

    with timed(f"afov-train --bag {drive} --test.bag {test}"):
        config = TrainConfig(
            recording=Recording(bag=(drive,)), test=Recording(bag=(test,)), runs=demo.out / "runs"
        )
        config = replace(
            config,
            # Windows side by side: the quickest look at an image.
            teacher=replace(config.teacher, overlap=0.0),
            distill=replace(config.distill, steps=demo.steps),
        )
        run = train(config)
    model = demo.out / "model"
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(run / "model", model)
    shutil.copy(run / "metrics.csv", demo.out / "iou.csv")

    with timed("the node labels the test drive, replayed over DDS at 20 Hz"):
        live = label_live(model, test, cloud="/lidar_top", out=demo.out / "labelled.mcap")
        print(live)
        if live.lost:
            raise InputError(f"{live.lost} of {live.sent} sweeps were lost between player and node")

    with timed("pictures"):
        files = draw(Student.open(model), test, live.class_id, demo.out)
    print(f"\ndone in {(time.monotonic() - began) / 60:.1f} minutes; look at")
    for file in (*files, demo.out / "labelled.mcap", model, demo.out / "iou.csv"):
        print(f"  {file}")
    print(
        "next: your own drive\n"
        "  .venv/bin/afov-train --bag drive.mcap --inspect\n"
        f"  ros2 launch afov_ros afov.launch.py model:={model.resolve()}"
    )


def draw(
    student: Student, bag: Path, published: dict[int, np.ndarray], out: Path
) -> tuple[Path, ...]:
    """The six cameras, the bird's-eye view, truth beside prediction, of what the node published.

    Args:
        published: class ids (N,) by the sweep's stamp.
    """
    frame = _liveliest(BagSource(bag, truth=True), published)
    assert frame.truth is not None
    palette = student.vocabulary.palette
    predicted = palette[published[frame.sweep.stamp]]
    truth = palette[frame.truth.class_id]
    xyz = frame.sweep.xyz
    top = pictures.birds_eye(xyz, predicted, "what the node published")
    names = pictures.legend(student.vocabulary, top.height)
    seen = [pictures.cameras(frame, colors) for colors in (predicted, truth)]
    made = {
        "cameras.png": seen[0],
        "birds_eye.png": pictures.beside([top, names]),
        "truth_beside_prediction.png": pictures.beside(
            [pictures.birds_eye(xyz, truth, "truth"), top, names]
        ),
        "cameras_truth.png": seen[1],
    }
    for name, picture in made.items():
        picture.save(out / name)
    return tuple(out / name for name in made)


def _liveliest(source: BagSource, published: dict[int, np.ndarray]) -> Frame:
    """The frame with the most classes in its truth."""
    frames = (f for f in source if f.sweep.stamp in published and f.truth is not None)
    return max(frames, key=lambda f: len(np.unique(f.truth.class_id)))  # type: ignore[union-attr]


@contextmanager
def timed(step: str) -> Iterator[None]:
    """Names a step and says how long it took."""
    print(f"\n== {step}", flush=True)
    began = time.monotonic()
    yield
    print(f"   {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    try:
        main(configured(Demo, "afov_train.demo", sys.argv[1:]))
    except InputError as error:
        sys.exit(f"demo: {error}")
