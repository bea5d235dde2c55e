"""Train: trunk and decoder together, on the labels of the base classes (2401.02402)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from afov.text_bank import TextBank
from afov.voxels import VoxelGrid
from afov_train.losses import best_cosine, ce_lovasz
from afov_train.network.config import NetworkConfig
from afov_train.network.unet import build_network
from afov_train.panoptic.config import PanopticConfig
from afov_train.panoptic.decoder import Decoder, PanopticNetwork, Prediction, Voxels
from afov_train.panoptic.losses import (
    centre_loss,
    class_loss,
    mask_loss,
    object_loss,
    position_loss,
    unlabelled_loss,
    voxel_loss,
)
from afov_train.panoptic.matching import assign, class_cost, mask_cost
from afov_train.panoptic.sweeps import PanopticBatch, PanopticSweeps, collate
from afov_train.panoptic.targets import BaseClasses, Objects, objects_of
from afov_train.training import Stage, fit

Losses = dict[str, torch.Tensor]


class PanopticTraining(Stage):
    """The sum of the losses after every layer, and the auxiliary one, sweep by sweep."""

    text: torch.Tensor
    network: PanopticNetwork
    config: PanopticConfig
    collate = staticmethod(collate)

    def __init__(
        self,
        network: PanopticNetwork,
        text_bank: TextBank,
        base: BaseClasses,
        config: PanopticConfig,
    ) -> None:
        if len(base.ids) == len(text_bank.vocabulary.labelled):
            # No class is left to which what is not labelled could belong.
            losses = replace(config.losses, segments=0.0, unlabelled=0.0)
            config = replace(config, losses=losses)
        super().__init__(network, config, text_bank.vocabulary)
        self.base = base
        mine = np.isin(text_bank.vocabulary.phrase_class_id, base.ids)
        # Only base classes: no loss knows the name of any other.
        self.register_buffer("text", torch.from_numpy(text_bank.embeddings[mine]))
        self.phrases = [len(text_bank.vocabulary.labelled[i - 1].phrases) for i in base.ids]

    def cosine(self, rows: torch.Tensor, nameless: torch.Tensor) -> torch.Tensor:
        """(N, E) unit rows to (N, K + U): a class by its best phrase, a segment of what is not
        labelled, (U, E), by its image feature."""
        named = best_cosine(rows, self.text, self.phrases)
        return torch.cat((named, rows @ nameless.T), 1) if len(nameless) else named

    def training_step(self, batch: PanopticBatch, _: int) -> torch.Tensor:
        """The weighted sum, mean over the sweeps of the batch."""
        count = int(batch.coords[-1, 0]) + 1
        embeddings = self.network.trunk(batch.features, batch.coords, count)
        losses: list[Losses] = []
        if self.config.losses.unlabelled:
            unlabelled = batch.class_id == 0
            losses.append({"unlabelled": unlabelled_loss(embeddings, batch.image, unlabelled)})
        for sweep in range(count):
            rows = torch.nonzero(batch.coords[:, 0] == sweep)[:, 0]
            image = batch.image[rows]
            alike = image if self.config.losses.segments else None
            objects = objects_of(batch.class_id[rows], batch.instance_id[rows], self.base, alike)
            own = self.auxiliary(embeddings[rows], objects)
            # Labelled voxels in front, those of segments behind them: the losses take a slice,
            # where a choice would cost a copy.
            order = (2 * objects.labelled + objects.segments.any(0)).argsort(
                descending=True, stable=True
            )
            rows, image, objects = rows[order], image[order], objects.of_voxels(order)
            given = image * ~batch.dropped[rows, None]
            voxels = self.network.decoder.voxels(embeddings[rows], given, batch.xyz[rows])
            predictions = self.network.decoder.decode(voxels)
            centre = self.of_centres(voxels, objects)
            losses.append({"auxiliary": own / count, "centre": centre / count})
            losses += [
                {name: value / count for name, value in self.of_layer(p, objects, image, i).items()}
                for i, p in enumerate(predictions)
            ]
        total = embeddings.new_zeros(())
        for name in dict.fromkeys(name for one in losses for name in one):
            value = torch.stack([one[name] for one in losses if name in one]).sum()
            self.log(name, value, sync_dist=True)
            total = total + getattr(self.config.losses, name) * value
        self.log("loss", total, prog_bar=True, sync_dist=True)
        return total

    def of_layer(
        self, prediction: Prediction, objects: Objects, image: torch.Tensor, layer: int
    ) -> Losses:
        """The losses of what the queries answer after one layer, each with weight 1.

        Args:
            objects: with all labelled voxels in front, and those of segments behind them.
            image: (V, E), what the cameras see, whether the network was given it or not.
        """
        logits = self.network.decoder.logits(self.cosine(prediction.embedding, objects.nameless))
        inside = slice(int(objects.judged.sum()))
        query, classes, masks = self.matched(prediction, logits, objects, inside, layer)
        targets = torch.zeros_like(logits)
        targets[query, classes] = 1
        named = classes < len(self.base.ids)
        mine, others = query[named], query[~named]
        losses = {
            "classes": class_loss(logits, targets),
            "mask": mask_loss(prediction.mask[mine][:, inside], masks[named]),
            "position": position_loss(prediction.position[mine][:, inside], masks[named]),
        }
        if self.config.losses.segments:
            losses["segments"] = mask_loss(prediction.mask[others][:, inside], masks[~named])
        if self.config.losses.object:
            losses["object"] = object_loss(
                prediction.embedding[query], prediction.mask[query], image
            )
        if self.config.losses.voxel:
            losses["voxel"] = voxel_loss(prediction.embedding, prediction.mask, image)
        return losses

    def matched(
        self,
        prediction: Prediction,
        logits: torch.Tensor,
        objects: Objects,
        inside: slice,
        layer: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Which queries answer for an object: these, (M,), its class, (M,), and its mask, (M, J).

        Args:
            logits: (Q, K + U). inside: the J voxels on which masks are judged.
        """
        things = len(prediction.embedding) - self.network.decoder.stuff
        masks = torch.cat((objects.masks, objects.segments))[:, inside]
        nameless = torch.arange(len(objects.segments), device=masks.device) + len(self.base.ids)
        classes = torch.cat((objects.classes, nameless))
        cost = mask_cost(prediction.mask[:things, inside], masks)
        if layer:  # the first matching looks at masks alone (P3Former)
            cost = cost + class_cost(logits[:things], classes)
        query, of = assign(cost)
        # Base stuff has its own queries, behind the others.
        there = torch.nonzero(objects.stuff.any(1))[:, 0]
        stuff = torch.from_numpy(self.base.stuff).to(there.device)[there]
        return (
            torch.cat((query, things + there)),
            torch.cat((classes[of], stuff)),
            torch.cat((masks[of], objects.stuff[there][:, inside])),
        )

    def of_centres(self, voxels: Voxels, objects: Objects) -> torch.Tensor:
        """Where things are, whichever they are."""
        inside = slice(int(objects.labelled.sum()))
        return centre_loss(voxels.centre[inside], objects.masks[:, inside], voxels.xyz[inside])

    def auxiliary(self, embeddings: torch.Tensor, objects: Objects) -> torch.Tensor:
        """Cross-entropy + Lovász of the voxels' own embeddings over the base classes, and over the
        segments of what is not labelled."""
        known = objects.label >= 0
        if not known.any():
            return embeddings.sum() * 0
        rows = normalize(embeddings[known], dim=1)
        cosine = self.cosine(rows, objects.nameless) / self.config.temperature
        logits = torch.cat((cosine.new_full((len(cosine), 1), -1e4), cosine), 1)
        return ce_lovasz(logits, 1 + objects.label[known])


def build_panoptic(
    network: NetworkConfig, text_bank: TextBank, base: BaseClasses, config: PanopticConfig
) -> PanopticNetwork:
    """Trunk and decoder with fresh weights."""
    width = text_bank.embeddings.shape[1]
    decoder = Decoder(config.decoder, width, len(base.stuff), config.temperature)
    return PanopticNetwork(build_network(network, width), decoder)


def train_panoptic(
    network: PanopticNetwork,
    files: Sequence[Path],
    text_bank: TextBank,
    base: BaseClasses,
    inputs: NetworkConfig,
    grid: VoxelGrid,
    config: PanopticConfig,
    folder: Path,
) -> None:
    """Trains on prepared sweeps; the network holds the weights of the last step afterwards.

    Args:
        files: of `prepare`. folder: where losses, checkpoints and weights go.
    """
    config = config.for_sweeps(len(files))
    sweeps = PanopticSweeps(files, grid, inputs.inputs, config.augment, config.drop, config.seed)
    fit(PanopticTraining(network, text_bank, base, config), sweeps, folder, "panoptic")
