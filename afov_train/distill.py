"""Distil: the sparse 3D network learns the teacher's labels (2405.15286, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import lightning
import numpy as np
import torch
from torch import nn

from afov.text_bank import TextBank
from afov.vocabulary import Vocabulary
from afov.voxels import VoxelGrid
from afov_train.config import DistillConfig
from afov_train.losses import IGNORE, best_cosine, ce_lovasz
from afov_train.network.config import NetworkConfig
from afov_train.pretrain import categories, contrast
from afov_train.sweeps import Batch, TaughtSweeps, class_weights
from afov_train.training import Stage, fit


def closed_bank(vocabulary: Vocabulary) -> TextBank:
    """The closed head as a text bank: every phrase of class k points along axis k - 1.

    Absorbers point away from all.
    """
    owner = vocabulary.phrase_class_id.astype(int)
    axes = np.eye(len(vocabulary.labelled) + 1, dtype=np.float32)[owner][:, 1:]
    axes[owner == 0] = -1 / np.sqrt(len(vocabulary.labelled))
    return TextBank(vocabulary, axes)


class Distillation(Stage):
    """The student's embeddings against the text bank: a class scores as its best phrase.

    Args:
        network: sparse U-Net to CLIP-space embeddings; to one output per class (closed head).
        text_bank: of the teacher, frozen.
        weights: (K + 1,) per class id, for the cross-entropy.
    """

    text: torch.Tensor
    category: torch.Tensor
    labelled: torch.Tensor
    weights: torch.Tensor
    config: DistillConfig

    def __init__(
        self, network: nn.Module, text_bank: TextBank, weights: torch.Tensor, config: DistillConfig
    ) -> None:
        super().__init__(network, config, text_bank.vocabulary)
        owner = text_bank.vocabulary.phrase_class_id.astype(np.int64)
        labelled = owner > 0
        self.register_buffer("text", torch.from_numpy(text_bank.embeddings))
        self.register_buffer("category", categories(text_bank.vocabulary))
        self.register_buffer("labelled", torch.from_numpy(labelled))
        self.register_buffer("weights", weights)
        self.phrases = [len(c.phrases) for c in text_bank.vocabulary.labelled]

    def class_logits(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(V, E) to (V, K + 1); column 0, unlabelled, is never chosen.

        Open head: cosine over temperature. Closed head: the outputs themselves.
        """
        if self.config.head == "closed":
            logits = embeddings
        else:
            text = self.text[self.labelled]
            logits = best_cosine(embeddings, text, self.phrases) / self.config.temperature
        return torch.cat((logits.new_full((len(logits), 1), -1e4), logits), 1)

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Cross-entropy + Lovász of the labelled voxels; TMP's losses beside, where asked."""
        embeddings = self.network(batch.features, batch.coords, int(batch.coords[-1, 0]) + 1)
        known = (batch.class_id != IGNORE).nonzero()[:, 0]
        logits = self.class_logits(embeddings.index_select(0, known))
        loss = ce_lovasz(logits, batch.class_id[known], weight=self.weights)
        self.log("loss", loss, prog_bar=True, sync_dist=True)
        if self.config.tmp and self.config.head == "open":
            image, text = contrast(
                embeddings, batch, self.text, self.category, self.config.temperature
            )
            self.log("tmp", (image + text) / 2, prog_bar=True, sync_dist=True)
            loss = loss + self.config.tmp * (image + text) / 2
        return loss


def distill(
    network: nn.Module,
    files: Sequence[Path],
    text_bank: TextBank,
    inputs: NetworkConfig,
    grid: VoxelGrid,
    config: DistillConfig,
    folder: Path,
) -> None:
    """Trains the network on taught sweeps; it holds the weights of the last step afterwards.

    That is never the best step by ground truth, which would be leakage.

    Args:
        network: fresh, or of `pretrain`. files: of `teach`.
        folder: where losses, checkpoints and weights go.
    """
    config = config.for_sweeps(len(files))
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    vocabulary = text_bank.vocabulary
    if config.absorbed and config.head == "open":
        vocabulary = vocabulary.widened
        text_bank = replace(text_bank, vocabulary=vocabulary)
    weights = (
        class_weights(files, vocabulary)
        if config.class_weight == "sqrt"
        else torch.ones(len(vocabulary.labelled) + 1)
    )
    visits = config.steps * config.batch * config.accumulate
    sweeps = TaughtSweeps(
        files, vocabulary, grid, inputs.inputs, config.augment, config.seed, visits
    )
    fit(Distillation(network, text_bank, weights, config), sweeps, folder, "distill")
