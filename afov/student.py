"""The student: points in; class, score and embedding per point out, instances where it knows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from afov.afi import Mode, interact
from afov.frames import CameraImage, Sweep
from afov.inputs import inputs
from afov.kernel_maps import kernel_maps
from afov.labels import Labels, at_points
from afov.model_folder import ModelFolder, read_model_folder
from afov.model_parts import read_panoptic
from afov.names import Names
from afov.runtimes import OnDevice, Runtime, RuntimeName, open_runtime
from afov.short_head import shortened
from afov.text_bank import TextBank
from afov.towers import beside
from afov.vocabulary import Vocabulary
from afov.voxels import Voxels

if TYPE_CHECKING:
    from afov.panoptic_head import PanopticHead


@dataclass(frozen=True)
class Student:
    """A model folder, opened: a runtime and a text bank; a panoptic head where there is one.

    Attributes:
        basis: what makes embeddings of a runtime's rows, where these are short.
    """

    model: ModelFolder
    runtime: Runtime | OnDevice
    text_bank: TextBank
    basis: np.ndarray | None = None
    panoptic: PanopticHead | None = None

    @classmethod
    def open(cls, folder: Path | str, runtime: RuntimeName = "auto") -> Student:
        """Opens and checks a model folder.

        Raises:
            InputError: the folder is damaged, or the runtime is not installed.
        """
        model, files = read_model_folder(folder), read_panoptic(folder)
        if files is None:
            return cls.of(model, runtime)
        from afov.panoptic_head import PanopticHead

        # The decoder takes whole embeddings, so the network's head stays as it is.
        opened = open_runtime(model, runtime)
        tower = beside(opened.name, files.image_tower, model.folder)
        return cls(model, opened, model.text_bank, panoptic=PanopticHead(files, tower))

    @classmethod
    def of(cls, model: ModelFolder, runtime: RuntimeName = "auto") -> Student:
        """Opens a model that has been read."""
        short, basis = shortened(model)
        return cls(model, open_runtime(short, runtime), model.text_bank, basis)

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes that `label` answers with."""
        return self.text_bank.vocabulary

    def with_text_bank(self, text_bank: TextBank) -> Student:
        """The same network under another vocabulary."""
        return replace(self, text_bank=text_bank)

    def warm(self) -> None:
        """Labels noise: the first sweep would otherwise wait for memory and kernels."""
        names = ("x", "y", "z", *(n for n in self.model.inputs if n in ("intensity", "ring")))
        points = np.random.default_rng(0).normal(0, 10, (20000, len(names))).astype(np.float32)
        self.label(Sweep(points, names, 0, ""))
        if self.panoptic is not None:
            size = self.panoptic.tower.files
            self.panoptic.tower.features(np.zeros((size.height, size.width, 3), np.uint8))

    def label(self, sweep: Sweep, images: Sequence[CameraImage] = ()) -> Labels:
        """Labels every point of a sweep.

        A panoptic model leaves points that no mask holds without a label, 0; a point's embedding
        is its query's where one holds it.

        Args:
            images: what a panoptic model sees besides; it does without, and other models do not
                look at them.

        Raises:
            InputError: the sweep lacks a field that the model needs.
        """
        if isinstance(self.runtime, OnDevice) and self.panoptic is None:
            bank, basis = self._bank_for(self.runtime.width)
            return self.runtime.label(sweep, bank, self.model.temperature, basis)
        voxels, rows, seconds = self.embed(sweep)
        found = None
        if self.panoptic is not None:
            # Before the rows become unit rows: the decoder takes them as they are.
            names = Names(self.text_bank, self.model.text_bank, self.model.temperature)
            found, answers, more = self.panoptic.segment(sweep, voxels, rows, images, names)
            seconds |= more
        began = time.perf_counter()
        bank, basis = self._bank_for(rows.shape[1])
        best, likely = bank.classify(rows, self.model.temperature)
        instance_id = None
        if found is not None:
            best, likely = found.class_id, found.score
            held = found.query >= 0
            rows[held] = answers.embedding[found.query[held]]
            instance_id = at_points(found.instance_id, voxels.inverse)
        class_id, score = (at_points(values, voxels.inverse) for values in (best, likely))
        seconds["labels"] = time.perf_counter() - began
        return Labels(class_id, score, rows, voxels.inverse, seconds, instance_id, basis)

    def embed(self, sweep: Sweep) -> tuple[Voxels, np.ndarray, dict[str, float]]:
        """A sweep's voxels, the network's rows (V, R) float32 as they are, and seconds by part.

        Raises:
            InputError: the sweep lacks a field that the model needs.
        """
        if isinstance(self.runtime, OnDevice):
            return self.runtime.embed(sweep)
        clock = [time.perf_counter()]
        voxels = self.model.grid.voxelize(sweep.xyz)
        features = inputs(sweep, voxels, self.model.inputs)
        clock.append(time.perf_counter())
        maps = kernel_maps(voxels.coords, self.model.shape.stem)
        clock.append(time.perf_counter())
        rows = np.zeros((0, self.text_bank.embeddings.shape[1]), np.float32)
        if len(voxels):
            rows = self.runtime.run(features, maps)
        clock.append(time.perf_counter())
        parts = ("voxels", "kernel maps", "network")
        return voxels, rows, dict(zip(parts, np.diff(clock).tolist(), strict=True))

    def corrected(self, labels: Labels, sweep: Sweep, afi: Mode) -> Labels:
        """What `label` said of the sweep, after approximate flat interaction.

        Instances stay as they are: a mask has settled what its points are.
        """
        if afi == "off" or labels.instance_id is not None:
            return labels
        began = time.perf_counter()
        likely = self.probabilities(labels, sweep, afi)
        return replace(
            labels,
            class_id=likely.argmax(1).astype(np.uint8),
            score=likely.max(1),
            seconds={**labels.seconds, "afi": time.perf_counter() - began},
        )

    def probabilities(
        self, labels: Labels, sweep: Sweep, afi: Literal["paper", "refined"]
    ) -> np.ndarray:
        """(N, C + 1) float32 of what `label` said, after approximate flat interaction."""
        bank = self.text_bank if labels.basis is None else self._short_bank
        of_voxel = bank.probabilities(labels.rows, self.model.temperature)
        return interact(afi, sweep.xyz, at_points(of_voxel, labels.inverse))

    def _bank_for(self, width: int) -> tuple[TextBank, np.ndarray | None]:
        """Phrases for rows of a width, and what makes embeddings of these.

        A runtime of the weights gives short rows, one of the graph whole embeddings.
        """
        if self.basis is None or width != self.basis.shape[1]:
            return self.text_bank, None
        return self._short_bank, self.basis

    @cached_property
    def _short_bank(self) -> TextBank:
        """Phrases as short rows meet them."""
        assert self.basis is not None
        return replace(self.text_bank, embeddings=self.text_bank.embeddings @ self.basis)
