"""TMP: tri-modal contrastive pre-training, superpoints against images and words (section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

from afov.text_bank import TextBank
from afov.vocabulary import Vocabulary
from afov.voxels import VoxelGrid
from afov_train.config import PretrainConfig
from afov_train.losses import superpoint_means, tmp_losses
from afov_train.network.config import NetworkConfig
from afov_train.sweeps import Batch, TaughtSweeps
from afov_train.training import Stage, fit


def categories(vocabulary: Vocabulary) -> torch.Tensor:
    """(P,) int64: the class of each phrase, absorbers included."""
    sizes = [len(c.phrases) for c in vocabulary.classes]
    return torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes))


class Pretraining(Stage):
    """L = 0.5 L_image + 0.5 L_text over all superpoints of a batch."""

    text: torch.Tensor
    category: torch.Tensor
    config: PretrainConfig

    def __init__(self, network: nn.Module, text_bank: TextBank, config: PretrainConfig) -> None:
        super().__init__(network, config, text_bank.vocabulary)
        self.register_buffer("text", torch.from_numpy(text_bank.embeddings))
        self.register_buffer("category", categories(text_bank.vocabulary))

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """The weighted sum of both losses."""
        embeddings = self.network(batch.features, batch.coords, int(batch.coords[-1, 0]) + 1)
        image, text = contrast(embeddings, batch, self.text, self.category, self.config.temperature)
        self.log("image", image, prog_bar=True, sync_dist=True)
        self.log("text", text, prog_bar=True, sync_dist=True)
        return self.config.image * image + self.config.text * text


def contrast(
    embeddings: torch.Tensor,
    batch: Batch,
    text: torch.Tensor,
    category: torch.Tensor,
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """L_image and L_text of a batch; zero, with a gradient of zero, without superpoints."""
    if not len(batch.phrase):
        return embeddings.sum() * 0, embeddings.sum() * 0
    superpoints = superpoint_means(
        normalize(embeddings, dim=1), batch.voxel, batch.segment, len(batch.phrase)
    )
    return tmp_losses(superpoints, batch.feature, text, category, batch.phrase, temperature)


def pretrain(
    network: nn.Module,
    files: Sequence[Path],
    text_bank: TextBank,
    inputs: NetworkConfig,
    grid: VoxelGrid,
    config: PretrainConfig,
    folder: Path,
) -> None:
    """Pre-trains the network on taught sweeps; no 2D network runs here.

    Args:
        files: of `teach`. folder: where losses, checkpoints and weights go.
    """
    config = config.for_sweeps(len(files))
    sweeps = TaughtSweeps(
        files, text_bank.vocabulary, grid, inputs.inputs, config.augment, config.seed
    )
    fit(Pretraining(network, text_bank, config), sweeps, folder, "pretrain")
