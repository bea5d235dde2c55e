"""Panoptic in one screen: image tower, prepare, train, export (2401.02402)."""

from __future__ import annotations

from pathlib import Path

import torch

from afov.errors import InputError
from afov.frames import Frame, Source
from afov.image_tower import ImageTower
from afov.vocabulary import Vocabulary
from afov_train.export import export_student
from afov_train.network.unet import load_trunk
from afov_train.panoptic.config import PanopticTrainConfig
from afov_train.panoptic.export import panoptic_files
from afov_train.panoptic.instances import pseudo_labels
from afov_train.panoptic.sweeps import prepare
from afov_train.panoptic.targets import BaseClasses
from afov_train.panoptic.training import build_panoptic, train_panoptic
from afov_train.pipeline import check_inputs, names
from afov_train.ranks import on_first, ranks
from afov_train.recordings import open_recordings
from afov_train.run_folder import open_run, versions
from afov_train.teachers import build_teacher
from afov_train.teachers.image_onnx import image_tower
from afov_train.teachers.open_clip_teacher import OpenClipTeacher
from afov_train.teachers.text_onnx import text_tower
from afov_train.truth import check_truth


def panoptic(config: PanopticTrainConfig) -> Path:
    """From a recording with panoptic labels of some classes to a model folder.

    Returns:
        The run folder; the model lies in its `model/`.

    Raises:
        InputError: no labels of the base classes, no image tower, or an export that disagrees.
    """
    if config.pseudo and config.labels is not None:
        raise InputError(f"--labels {config.labels}: --pseudo makes its own; name one of the two")
    truth = config.labels is None and not config.pseudo
    sources = open_recordings(config.recording, truth=truth)
    vocabulary = Vocabulary.load(config.vocabulary)
    for source in sources if truth else ():
        check_truth(source, vocabulary)
    base = BaseClasses.of(vocabulary, config.base)
    check_inputs(sources, config.network.inputs)
    training = config.panoptic
    run = on_first(lambda: open_run(config))

    tower = image_tower(config.teacher, training.windows)
    bank = OpenClipTeacher(config.teacher, vocabulary).text_bank
    torch.manual_seed(training.seed)
    network = build_panoptic(config.network, bank, base, training)
    if config.weights is not None:
        load_trunk(network.trunk, config.weights)
    eyes = ImageTower(tower)
    labels: list[Path | None] = [config.labels] * len(sources)
    if config.pseudo:
        teacher = build_teacher(config.teacher, vocabulary, run / "teacher")
        labels = on_first(
            lambda: [
                pseudo_labels(source, teacher, config.teach, run / f"pseudo/{i}")
                for i, source in enumerate(sources)
            ]
        )
    prepared = on_first(
        lambda: [
            file
            for source, folder in zip(sources, labels, strict=True)
            for file in prepare(source, eyes, base.ids, folder, run / "sweeps")
        ]
    )
    data = bank, base, config.network, config.grid
    train_panoptic(network, prepared, *data, training, run / "panoptic")
    if ranks()[0] > 0:
        return run

    frame = seen_by_cameras(sources[0])
    files = panoptic_files(
        network,
        tower,
        training.head,
        [vocabulary.names[i] for i in base.ids],
        config.network.inputs,
        config.grid,
        frame.sweep,
        frame.images,
    )
    model = export_student(
        network.trunk,
        config=config.network,
        grid=config.grid,
        text_bank=bank,
        temperature=training.temperature,
        provenance={"recording": names(sources), "labels": len(prepared), **versions()},
        sweep=frame.sweep,
        folder=run / "model",
        text_tower=text_tower(config.teacher),
        panoptic=files,
    )
    print(f"model folder: {model}")
    return run


def seen_by_cameras(source: Source) -> Frame:
    """The first frame that has images; the first of all where none has.

    Of many a bag the first sweep is older than the first image.
    """
    return next((frame for frame in source if frame.images), None) or next(iter(source))
