"""What instances add to a sweep, by part: image tower, look-up, decoder, merging of masks.

The default panoptic model, briefly trained, on nuScenes' one sample: 34,688 points, six cameras.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
from compare import NUSCENES, Row, run

from afov.frames import CameraImage, Sweep
from afov.sources.nuscenes import NuScenesSource
from afov.student import Student
from afov_train.panoptic.config import PanopticTrainConfig
from afov_train.panoptic.pipeline import panoptic
from afov_train.recordings import Recording
from afov_train.simulation.command import write
from afov_train.simulation.config import SimConfig

MAY = 100.0  # milliseconds a sweep
PARTS = ("image tower", "image features", "decoder", "masks")


def rows(repeat: int) -> list[Row]:
    """With new images on every sweep, with those of the sweep before, with cameras off."""
    if not NUSCENES.is_dir():
        return []
    frame = next(iter(NuScenesSource(NUSCENES.parents[1], "v1.0-mini")))
    student, stamps = trained(), count()
    new = (tuple(replace(i, stamp=next(stamps)) for i in frame.images) for _ in count())
    views: dict[str, Callable[[], Sequence[CameraImage]]] = {
        "six new images": lambda: next(new),
        "the same images": lambda: frame.images,
        "cameras off": lambda: (),
    }
    return [added(student, frame.sweep, what, look, repeat) for what, look in views.items()]


def added(
    student: Student,
    sweep: Sweep,
    what: str,
    look: Callable[[], Sequence[CameraImage]],
    repeat: int,
) -> Row:
    """What a sweep takes longer than without instances; `theirs` is what it may."""
    times: dict[str, list[float]] = {part: [] for part in PARTS}
    for i in range(repeat + 2):
        labels = student.label(sweep, look())
        if i >= 2:
            for part in PARTS:
                times[part].append(labels.seconds[part] * 1e3)
    total = np.sum(list(times.values()), axis=0)
    facts = {part: float(np.median(values)) for part, values in times.items()}
    return Row(f"instances, {what}", "what may be added", total, np.full(repeat, MAY), 1, facts)


def trained() -> Student:
    """The default model after 60 steps on two simulated sweeps: masks as models make them."""
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder) / "street.mcap"
        write("mcap", bag, SimConfig(11, 1, 2))
        usual = PanopticTrainConfig(recording=Recording(bag=(bag,)), runs=Path(folder))
        run = panoptic(replace(usual, panoptic=replace(usual.panoptic, steps=60)))
        return Student.open(run / "model")


if __name__ == "__main__":
    run(rows, 30)
