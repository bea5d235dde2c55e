"""A training step on the CPU: compiled convolutions against spconv's modules, the rest the same."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from unittest import mock

import numpy as np
import torch
from compare import PAPER, Row, by_turns, real_sweep, run
from network import untrained

from afov.frames import Sweep
from afov.inputs import inputs
from afov_train.config import DistillConfig
from afov_train.distill import Distillation
from afov_train.losses import ce_lovasz
from afov_train.network import unet
from afov_train.network.config import NetworkConfig
from afov_train.sweeps import Batch
from afov_train.training import build_optimizer

Step = Callable[[], float]


def sample(config: NetworkConfig, classes: int) -> Batch:
    """The real sweep; a voxel's label is its height's, because time asks for no truth."""
    sweep = Sweep(real_sweep(), ("x", "y", "z", "intensity"), 0, "lidar")
    voxels = PAPER.voxelize(sweep.xyz)
    height = voxels.coords[:, 2] - voxels.coords[:, 2].min()
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(
        torch.from_numpy(inputs(sweep, voxels, config.inputs)),
        torch.from_numpy(np.pad(voxels.coords, ((0, 0), (1, 0)))),
        torch.from_numpy(height % classes + 1).long(),
        none, none, torch.zeros(0, 1), none,
    )  # fmt: skip


def rows(repeat: int) -> list[Row]:
    """Small network, on all cores and on one, as every sweep of a batch is trained on."""
    cores = torch.get_num_threads()
    found = [row(repeat, threads) for threads in sorted({cores, 1}, reverse=True)]
    torch.set_num_threads(cores)
    return found


def row(repeat: int, threads: int) -> Row:
    """Forward, loss, backward, optimizer, from the same weights."""
    torch.set_num_threads(threads)
    config = NetworkConfig()
    network, model = untrained(config, 128)
    classes = len(model.text_bank.vocabulary.labelled)
    batch = sample(config, classes)
    processor: dict[str, list[float]] = {"ours": [], "spconv": []}

    def stepper(name: str) -> Step:
        own = copy.deepcopy(network).train()
        stage = Distillation(own, model.text_bank, torch.ones(classes + 1), DistillConfig())
        optimizer = build_optimizer(own, DistillConfig().optimizer)

        def step() -> float:
            began = time.process_time()
            with mock.patch.object(unet, "compiled", lambda _: name == "ours"):
                embeddings = own(batch.features, batch.coords, 1)
            loss = ce_lovasz(stage.class_logits(embeddings), batch.class_id)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            processor[name].append(time.process_time() - began)
            return loss.item()

        return step

    works = {name: stepper(name) for name in processor}
    first = {name: work() for name, work in works.items()}
    assert abs(first["ours"] - first["spconv"]) < 1e-4 * first["spconv"], first
    times = by_turns(repeat, **works)
    mine, theirs = (1e3 * float(np.median(processor[name][3:])) for name in processor)
    facts = {"processor ms": mine, "spconv's": theirs, "ratio of these": theirs / mine}
    what = f"training step, {threads} threads"
    return Row(what, "spconv Native", *times.values(), 1.5, facts)


if __name__ == "__main__":
    run(rows, 7)
