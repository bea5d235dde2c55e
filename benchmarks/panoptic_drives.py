"""What the rows of `panoptic.py` share: simulated drives as files, and a trunk to start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize

from afov.frames import Frame
from afov.image_tower import ImageTower
from afov.model_parts import ImageTowerFiles
from afov.sources.bags import BagSource
from afov.splits import Split
from afov.text_bank import TextBank
from afov.vocabulary import Vocabulary
from afov.voxels import VoxelGrid
from afov_train.config import TeachConfig
from afov_train.network.unet import build_network
from afov_train.panoptic.config import PanopticConfig, PanopticTrainConfig
from afov_train.panoptic.instances import pseudo_labels
from afov_train.panoptic.sweeps import (
    PanopticBatch,
    PanopticSweep,
    PanopticSweeps,
    collate,
    prepare,
)
from afov_train.panoptic.targets import BaseClasses, PanopticTarget
from afov_train.simulation.command import write
from afov_train.simulation.config import SimConfig
from afov_train.teachers import build_teacher
from afov_train.teachers.image_onnx import image_tower
from afov_train.training import Stage, fit

USUAL = PanopticTrainConfig()
NETWORK = USUAL.network
TEACHER = replace(USUAL.teacher, overlap=0.0)
GRID = VoxelGrid(size=(0.3, 2.5, 0.3))
TEACH = TeachConfig(objects=False)


@dataclass(frozen=True)
class Drives:
    """A drive to learn from, prepared, and one to be tested on.

    Attributes:
        splits: the base and novel classes for which labels were held out.
    """

    out: Path
    vocabulary: Vocabulary
    bank: TextBank
    tower: ImageTowerFiles
    splits: tuple[Split, ...]

    @classmethod
    def open(cls, out: Path) -> Drives:
        """The classes, the image tower and the class names' embeddings; nothing is simulated."""
        vocabulary = Vocabulary.load(USUAL.vocabulary)
        splits = (
            Split.named(vocabulary, "nuscenes-b12n4"),
            Split.named(vocabulary, "nuscenes-b11n5"),
            Split.random(vocabulary, 4, 0),
        )
        bank = build_teacher(TEACHER, vocabulary, out / "teacher").text_bank
        return cls(out, vocabulary, bank, image_tower(TEACHER, USUAL.panoptic.windows), splits)

    def files(self, labels: str) -> list[Path]:
        """The prepared sweeps with the labels of a split's base classes, `truth` or `pseudo`."""
        return sorted((self.out / labels).glob("*.npz"))

    def test(self) -> list[Frame]:
        """Frames of other streets, with truth."""
        return list(BagSource(self.out / "test.mcap", truth=True))

    def prepare(self, streets: int, steps: int) -> None:
        """Simulates; the image tower and the teacher look once; labels are held out."""
        out = self.out
        for name, config in (
            ("train", SimConfig(11, streets, 3, rate=2.0)),
            ("test", SimConfig(2011, max(streets // 3, 1), 2, rate=0.5)),
        ):
            if not (out / f"{name}.mcap").exists():
                write("mcap", out / f"{name}.part", config)
                (out / f"{name}.part").rename(out / f"{name}.mcap")
        every = BaseClasses.of(self.vocabulary, ()).ids
        drive = BagSource(out / "train.mcap", truth=True)
        truth = prepare(drive, ImageTower(self.tower), every, None, out / "truth")
        teacher = build_teacher(TEACHER, self.vocabulary, out / "teacher")
        labels = pseudo_labels(BagSource(out / "train.mcap"), teacher, TEACH, out)
        for file in truth:
            said = labels / f"{file.stem.rsplit('-', 1)[0]}.npz"
            with np.load(said, allow_pickle=False) as data:
                target = PanopticTarget(data["class_id"], data["instance_id"])
            relabelled(file, target, out / "pseudo")
            for split in self.splits:
                ids = BaseClasses.of(self.vocabulary, split.base).ids
                hidden = PanopticSweep.load(file).target.of_classes(ids)
                relabelled(file, hidden, out / split.name)
        self._pretrain(truth, steps)

    def _pretrain(self, files: Sequence[Path], steps: int) -> None:
        """The trunk that every row starts from, in out/start."""
        config = PanopticConfig(steps=steps)
        torch.manual_seed(config.seed)
        trunk = build_network(NETWORK, self.tower.embedding)
        sweeps = PanopticSweeps(files, GRID, NETWORK.inputs, config.augment, 0.0, config.seed)
        fit(ImagePretraining(trunk, config, self.vocabulary), sweeps, self.out / "start", "start")

    def start(self) -> dict[str, torch.Tensor]:
        """Its weights."""
        return load_file(self._start)

    @property
    def prepared(self) -> bool:
        """Whether an earlier run did it all."""
        return self._start.exists()

    @property
    def _start(self) -> Path:
        return self.out / "start/network.safetensors"


class ImagePretraining(Stage):
    """Voxel embeddings towards what cameras see there, mean of 1 - cos: no label, no class name.

    It stands for the backbone that the paper takes ready trained.
    """

    collate = staticmethod(collate)

    def training_step(self, batch: PanopticBatch, _: int) -> torch.Tensor:
        """Over the voxels that a camera sees."""
        embeddings = self.network(batch.features, batch.coords, int(batch.coords[-1, 0]) + 1)
        seen = (batch.image != 0).any(1)
        cosine = (normalize(embeddings[seen], dim=1) * batch.image[seen]).sum(1)
        loss = 1 - cosine.mean()
        self.log("loss", loss, prog_bar=True, sync_dist=True)
        return loss


def relabelled(file: Path, target: PanopticTarget, folder: Path) -> None:
    """The same prepared sweep with other labels."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / file.name).exists():
        replace(PanopticSweep.load(file), target=target).save(folder / file.name)
