"""Rehearsal: every stage on two frames, so that a fault shows in seconds and not after a night."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from afov.errors import InputError
from afov.frames import Source
from afov.student import Student
from afov.text_bank import TextBank
from afov_train.config import TrainConfig
from afov_train.distill import Distillation, closed_bank
from afov_train.export import export_student
from afov_train.network.unet import UNet, build_network
from afov_train.pretrain import Pretraining
from afov_train.rounds import answers
from afov_train.settle import settle
from afov_train.sweeps import TaughtSweeps, collate
from afov_train.taught import NO_PHRASE, TaughtSweep
from afov_train.teach import look, teach_sweep
from afov_train.teachers.segments import Teacher
from afov_train.training import check


def rehearse(config: TrainConfig, sources: Sequence[Source], teacher: Teacher, run: Path) -> None:
    """Teaches, takes a step of each training, exports and labels; nothing of it is kept.

    Raises:
        InputError: what the stage that fails has to say.
    """
    began = time.monotonic()
    for training in (config.pretrain, config.distill):
        check(training)
    with TemporaryDirectory(prefix="rehearsal-", dir=run) as name:
        folder = Path(name)
        files = _taught(config, sources, teacher, folder)
        if not files:
            print("rehearsal: the first two frames got no label, so training was not rehearsed")
            return
        bank, trained = teacher.text_bank, list[Pretraining | Distillation]()
        if config.pretrain.wanted:
            trained.append(Pretraining(_network(config, bank), bank, config.pretrain))
        if config.distill.head == "closed":
            bank = closed_bank(bank.vocabulary)
        network = _network(config, bank)
        weights = torch.ones(len(bank.vocabulary.labelled) + 1)
        trained.append(Distillation(network, bank, weights, config.distill))
        for stage in trained:
            _step(stage, config, files)
        sweep = next(iter(sources[0])).sweep
        model = export_student(
            network,
            config=config.network,
            grid=config.grid,
            text_bank=bank,
            temperature=config.distill.temperature,
            provenance={},
            sweep=sweep,
            folder=folder / "model",
        )
        student = Student.open(model)
        student.label(sweep)
        if config.rounds > 1:
            answers(student, TaughtSweep.load(files[0]))
    print(f"rehearsal: every stage works on two frames ({time.monotonic() - began:.0f} s)")


def _taught(
    config: TrainConfig, sources: Sequence[Source], teacher: Teacher, folder: Path
) -> list[Path]:
    files, vocabulary = [], teacher.text_bank.vocabulary
    least = np.zeros(len(vocabulary.labelled) + 1, np.float32)
    ground = least > 0 if config.teach.objects else None
    for frame in islice(sources[0], 2):
        taught = teach_sweep(frame, look(teacher, frame), config.teach, vocabulary)
        taught = settle(taught, [], least, ground, config.teach, vocabulary)
        if (taught.phrase != NO_PHRASE).any():
            files.append(folder / f"{frame.token}.npz")
            taught.save(files[-1])
    return files


def _network(config: TrainConfig, bank: TextBank) -> UNet:
    return build_network(config.network, bank.embeddings.shape[1])


def _step(stage: Pretraining | Distillation, config: TrainConfig, files: Sequence[Path]) -> None:
    training = stage.config
    vocabulary, names = stage.vocabulary, config.network.inputs
    sweeps = TaughtSweeps(
        files, vocabulary, config.grid, names, training.augment, training.seed, training.batch
    )
    loss = stage.training_step(collate([sweeps[i] for i in range(training.batch)]), 0)
    loss.backward()
    if not torch.isfinite(loss):
        raise InputError(f"rehearsal: {type(stage).__name__.lower()} gives a loss of {loss:g}")
