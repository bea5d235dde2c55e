"""What pre-training and distillation share: batches, optimizer, the loop."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

from afov.errors import InputError
from afov.vocabulary import Vocabulary
from afov_train.checkpoints import (
    Checkpoints,
    State,
    fingerprint,
    finish,
    finished_before,
    last_state,
)
from afov_train.config import OptimizerConfig, TrainingConfig
from afov_train.panoptic.sweeps import PanopticSweeps
from afov_train.ranks import end_with_parent, on_first, processes, ranks, threads_restored
from afov_train.sweeps import TaughtSweeps, collate

Sweeps = TaughtSweeps | PanopticSweeps
PRECISIONS: dict[str, Any] = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}


class Stage(lightning.LightningModule):
    """A loss over the network; a subclass says which one in `training_step`."""

    collate: Callable[[Sequence[Any]], Any] = staticmethod(collate)

    def __init__(self, network: nn.Module, config: TrainingConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.network, self.config, self.vocabulary = network, config, vocabulary
        self.state: State | None = None
        self.sweeps: Sweeps | None = None
        if not config.optimizer.learning_rate:
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name.startswith("head."))

    def on_train_start(self) -> None:
        """A frozen trunk keeps its statistics, too."""
        if not self.config.optimizer.learning_rate:
            self.network.eval()

    def setup(self, stage: str) -> None:
        """In every process that Lightning starts."""
        _quiet()
        end_with_parent()

    def on_fit_start(self) -> None:
        """Numbers below 1e-38, of which a softmax is full, are 0 now: each costs a CPU a hundred
        cycles, and all of them a quarter of a panoptic step."""
        torch.set_flush_denormal(True)

    def on_fit_end(self) -> None:
        """What comes after training is as exact as ever."""
        torch.set_flush_denormal(False)

    def train_dataloader(self) -> DataLoader[Any]:
        """This process's share of the visits, in their order: Lightning's sampler shuffles.

        A process of its own reads them where a core is left for it: where none is, it would take
        the network's, and seconds to start.
        """
        assert self.sweeps is not None
        rank, count = self.trainer.global_rank, self.trainer.world_size
        spare = len(os.sched_getaffinity(0)) > self.trainer.num_devices
        return DataLoader(
            self.sweeps,
            self.config.batch // count,
            sampler=range(rank, len(self.sweeps), count),
            collate_fn=self.collate,
            num_workers=int(spare),
            multiprocessing_context="spawn" if spare else None,
        )

    def configure_optimizers(self) -> Any:
        """The optimizer, its schedule over all steps, and what an earlier run left in both."""
        optimizer = build_optimizer(self.network, self.config.optimizer)
        rates = [group["lr"] for group in optimizer.param_groups]
        schedule: Any
        if self.config.optimizer.schedule == "one-cycle":
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, rates, self.config.steps, pct_start=0.15
            )
        else:
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.config.steps)
        if self.state:
            # A copy: what reaches a spawned process lies in memory that all of them share.
            optimizer.load_state_dict(deepcopy(self.state.optimizer))
            schedule.load_state_dict(self.state.schedule)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def build_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """SGD or AdamW; the head may have a rate of its own."""
    trained = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    head = [p for n, p in trained if n.startswith("head.")]
    trunk = [p for n, p in trained if not n.startswith("head.")]
    groups: list[dict[str, Any]] = [{"params": p} for p in (trunk, head) if p]
    if config.head_learning_rate is not None:
        groups[-1]["lr"] = config.head_learning_rate
    if config.name == "adamw":
        # In one pass over the weights: a quarter of the time on a CPU.
        return torch.optim.AdamW(
            groups, config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
    return torch.optim.SGD(
        groups,
        config.learning_rate,
        momentum=config.momentum,
        dampening=config.dampening,
        weight_decay=config.weight_decay,
    )


def fit(stage: Stage, sweeps: Sweeps, folder: Path, name: str) -> None:
    """Trains, or takes up what an earlier run with the same sweeps and settings left in `folder`.

    The stage's network holds the last step's weights afterwards and is in evaluation mode.

    Args:
        sweeps: as many visits as the settings ask for are taken of them.
    """
    config = stage.config
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    visits = config.batch * config.accumulate  # of a step
    sweeps = replace(sweeps, length=config.steps * visits)
    settings = {
        "training": asdict(config),
        "stage": name,
        # A settled sweep's settings are in its folder's name.
        "sweeps": [f"{f.parent.name}/{f.name}" for f in sweeps.files],
        "voxels": [asdict(sweeps.grid), sweeps.names],
        "start": fingerprint(stage.network),
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
    weights = folder / "network.safetensors"
    if on_first(lambda: finished_before(folder, key)):
        print(f"{name}: done before with the same sweeps and settings; taken from {weights}")
        stage.network.load_state_dict(load_file(weights))
        stage.network.eval()
        return
    stage.state = last_state(folder)
    step = 0
    if stage.state:
        step = stage.state.step
        stage.network.load_state_dict(stage.state.network)
        print(f"{name}: goes on after step {step} of {config.steps}")
    if step < config.steps:
        stage.sweeps = replace(sweeps, first=step * visits)
        _run(stage, folder, step)
    on_first(lambda: finish(stage.network, folder, key))
    stage.network.eval()


def check(config: TrainingConfig) -> None:
    """What can be known before the first step.

    Raises:
        InputError: a precision, a batch or a logger that this machine cannot do.
    """
    if config.precision != "32" and not torch.cuda.is_available():
        raise InputError(f"precision {config.precision}: needs a GPU; on a CPU it is 32")
    count = ranks()[1]
    if config.batch % count:
        raise InputError(
            f"batch {config.batch}: torchrun started {count} processes, which cannot share it "
            f"evenly; take a multiple of {count}"
        )
    if config.wandb and importlib.util.find_spec("wandb") is None:
        raise InputError("wandb: not installed; pip install wandb, or leave the flag out")


def _run(stage: Stage, folder: Path, step: int) -> None:
    from lightning.pytorch.callbacks import RichProgressBar
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    _quiet()
    config = stage.config
    check(config)
    loggers: list[Any] = [
        CSVLogger(folder, name="", version=f"from-{step}"),
        TensorBoardLogger(str(folder), name="", version=f"from-{step}"),
    ]
    if config.wandb:
        from lightning.pytorch.loggers import WandbLogger

        loggers.append(WandbLogger(project="afov", save_dir=str(folder)))
    trainer = lightning.Trainer(
        max_epochs=1,  # the samples are counted out for the steps that are left
        accelerator="auto",
        **processes(config.batch),
        precision=PRECISIONS[config.precision],
        accumulate_grad_batches=config.accumulate,
        use_distributed_sampler=False,
        logger=loggers,
        callbacks=[RichProgressBar(), Checkpoints(folder, config.checkpoint, step)],
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=10,
    )
    with threads_restored():
        trainer.fit(stage)


def _quiet() -> None:
    """Lightning's advice concerns other trainings: a laptop has no cores for more workers."""
    logging.getLogger("lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for advice in ("does not have many workers", "persistent_workers=True", "logging interval"):
        warnings.filterwarnings("ignore", f".*{advice}.*")
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
