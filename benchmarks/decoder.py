"""What instances add to a sweep, by part: image tower, look-up, decoder, merging of masks.

The default panoptic model, untrained, on nuScenes' one sample: 34,688 points, six cameras.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from compare import NUSCENES, Row, run

from afov.frames import CameraImage, Frame, Sweep
from afov.sources.nuscenes import NuScenesSource
from afov.student import Student
from afov.vocabulary import Vocabulary
from afov_train.export import export_student
from afov_train.panoptic.config import PanopticTrainConfig
from afov_train.panoptic.export import panoptic_files
from afov_train.panoptic.targets import BaseClasses
from afov_train.panoptic.training import build_panoptic
from afov_train.teachers.image_onnx import image_tower
from afov_train.teachers.open_clip_teacher import OpenClipTeacher

MAY = 100.0  # milliseconds a sweep
PARTS = ("image tower", "image features", "decoder", "masks")


def rows(repeat: int) -> list[Row]:
    """With new images on every sweep, with those of the sweep before, with cameras off."""
    if not NUSCENES.is_dir():
        return []
    frame = next(iter(NuScenesSource(NUSCENES.parents[1], "v1.0-mini")))
    student, stamps = untrained(frame), count()
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


def untrained(frame: Frame) -> Student:
    """The default model; every query answers, so that merging has all of them to do."""
    usual = PanopticTrainConfig()
    vocabulary = Vocabulary.load(usual.vocabulary)
    bank = OpenClipTeacher(usual.teacher, vocabulary).text_bank
    every = BaseClasses.of(vocabulary, ())
    torch.manual_seed(0)
    network = build_panoptic(usual.network, bank, every, usual.panoptic)
    network.decoder.bias.data.fill_(1.0)
    files = panoptic_files(
        network, image_tower(usual.teacher, usual.panoptic.windows), "single",
        vocabulary.names[1:], usual.network.inputs, usual.grid, frame.sweep, frame.images,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        model = export_student(
            network.trunk, config=usual.network, grid=usual.grid, text_bank=bank,
            temperature=usual.panoptic.temperature, provenance={}, sweep=frame.sweep,
            folder=Path(folder) / "model", panoptic=files,
        )  # fmt: skip
        return Student.open(model)


if __name__ == "__main__":
    run(rows, 30)
