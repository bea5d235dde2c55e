"""Distil: the sparse 3D network learns the teacher's labels (2405.15286, section 3.3)."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize
from torch.utils.data import DataLoader

from afov.text_bank import TextBank
from afov.voxels import VoxelGrid
from afov_train.config import DistillConfig
from afov_train.losses import IGNORE, ce_lovasz
from afov_train.network.config import NetworkConfig
from afov_train.network.unet import build_network
from afov_train.sweeps import TaughtSweeps, class_weights, collate


class Distillation(lightning.LightningModule):
    """The student's embeddings against the text bank: a class scores as its best phrase.

    Args:
        network: sparse U-Net to CLIP-space embeddings.
        text_bank: of the teacher, frozen.
        weights: (K + 1,) per class id, for the cross-entropy.
    """

    text: torch.Tensor
    owner: torch.Tensor
    weights: torch.Tensor

    def __init__(
        self, network: nn.Module, text_bank: TextBank, weights: torch.Tensor, config: DistillConfig
    ) -> None:
        super().__init__()
        self.network, self.config = network, config
        owner = text_bank.vocabulary.phrase_class_id.astype(np.int64)
        labelled = owner > 0
        self.register_buffer("text", torch.from_numpy(text_bank.embeddings[labelled]))
        self.register_buffer("owner", torch.from_numpy(owner[labelled] - 1))
        self.register_buffer("weights", weights)
        self.classes = len(text_bank.vocabulary.labelled)

    def setup(self, stage: str) -> None:
        _quiet()  # in the processes that Lightning starts, too

    def class_logits(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(V, E) to (V, K + 1): cosine over temperature; column 0, unlabelled, is never chosen."""
        cosine = normalize(embeddings, dim=1) @ self.text.T
        best = cosine.new_full((len(cosine), self.classes), -1.0)
        best = best.scatter_reduce(1, self.owner.expand_as(cosine), cosine, "amax")
        logits = best / self.config.temperature
        return torch.cat((logits.new_full((len(logits), 1), -1e4), logits), 1)

    def training_step(self, batch: tuple[torch.Tensor, ...], _: int) -> torch.Tensor:
        features, coords, labels = batch
        embeddings = self.network(features, coords, int(coords[-1, 0]) + 1)
        known = labels != IGNORE
        loss = ce_lovasz(self.class_logits(embeddings[known]), labels[known], weight=self.weights)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.parameters(), self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.config.learning_rate, self.config.steps, pct_start=0.15
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def distill(
    files: Sequence[Path],
    text_bank: TextBank,
    network: NetworkConfig,
    grid: VoxelGrid,
    config: DistillConfig,
    folder: Path,
) -> nn.Module:
    """Trains the student on taught sweeps.

    Args:
        files: of `teach`.
        folder: where the losses (CSV) and the checkpoint of the last step go.

    Returns:
        The network after the last step (never the best by ground truth), in evaluation mode.
    """
    _quiet()
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    module = Distillation(
        build_network(network, text_bank.embeddings.shape[1]),
        text_bank,
        class_weights(files, text_bank.vocabulary)
        if config.class_weight == "sqrt"
        else torch.ones(len(text_bank.vocabulary.labelled) + 1),
        config,
    )
    sweeps = TaughtSweeps(
        files,
        text_bank.vocabulary,
        grid,
        network.inputs,
        config.augment,
        config.seed,
        config.steps * config.batch,
    )
    trainer, batch = _trainer(config, folder)
    loader: DataLoader[Any] = DataLoader(
        sweeps, batch, collate_fn=collate, num_workers=1, multiprocessing_context="spawn"
    )
    with _threads_restored():
        trainer.fit(module, loader)
    from safetensors.torch import save_file

    state = {name: value.contiguous() for name, value in module.network.state_dict().items()}
    save_file(state, folder / "network.safetensors")
    return module.network.eval()


def _trainer(config: DistillConfig, folder: Path) -> tuple[lightning.Trainer, int]:
    """The training loop, and how many sweeps of a step each of its processes takes.

    On CPUs every sweep of a step has a process and its threads to itself: a sparse network's
    products are too small to be shared (batch 2, two cores: 0.35 s a step against 0.93 s).
    """
    from lightning.pytorch.callbacks import RichProgressBar
    from lightning.pytorch.loggers import CSVLogger

    processes = 1
    if not torch.cuda.is_available():
        cores = len(os.sched_getaffinity(0))
        fitting = (n for n in range(1, config.batch + 1) if config.batch % n == 0 and n <= cores)
        processes = max(fitting)
    trainer = lightning.Trainer(
        max_epochs=1,  # the samples are counted out for `steps`
        accelerator="auto",
        devices=processes,
        strategy="ddp_spawn" if processes > 1 else "auto",
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[RichProgressBar()],
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=10,
    )
    return trainer, config.batch // processes


def _quiet() -> None:
    """Lightning's advice concerns other trainings: a laptop has no cores for more workers."""
    logging.getLogger("lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for advice in ("does not have many workers", "persistent_workers=True", "logging interval"):
        warnings.filterwarnings("ignore", f".*{advice}.*")
    warnings.filterwarnings("ignore", ".*LeafSpec.*")


@contextmanager
def _threads_restored() -> Iterator[None]:
    """Lightning divides the cores between its processes and leaves it so for what comes after."""
    threads, setting = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    yield
    torch.set_num_threads(threads)
    if setting is None:
        os.environ.pop("OMP_NUM_THREADS", None)
