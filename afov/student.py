"""The student: points in; class, score and embedding per point out."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from afov.frames import Sweep
from afov.inputs import inputs
from afov.kernel_maps import kernel_maps
from afov.model_folder import ModelFolder, read_model_folder
from afov.runtimes import Runtime, RuntimeName, open_runtime
from afov.text_bank import TextBank
from afov.vocabulary import UNLABELLED, Vocabulary


@dataclass(frozen=True)
class Labels:
    """What the student says of a sweep, in the order of its points.

    Attributes:
        class_id: (N,) uint8; 0 where a point is not finite.
        score: (N,) float32, probability of that class among the vocabulary's.
        voxel_embedding: (V, E) float32, unit rows; inverse: (N,) int64, -1 = none.
        seconds: time by part.
    """

    class_id: np.ndarray
    score: np.ndarray
    voxel_embedding: np.ndarray
    inverse: np.ndarray
    seconds: dict[str, float]

    @property
    def embedding(self) -> np.ndarray:
        """(N, E) float32, unit rows; zero for points that are not finite."""
        padded = np.concatenate((self.voxel_embedding, np.zeros_like(self.voxel_embedding[:1])))
        if not len(self.voxel_embedding):
            return np.zeros((len(self.inverse), self.voxel_embedding.shape[1]), np.float32)
        return padded[self.inverse]


@dataclass(frozen=True)
class Student:
    """A model folder, opened: a runtime and a text bank."""

    model: ModelFolder
    runtime: Runtime
    text_bank: TextBank

    @classmethod
    def open(cls, folder: Path | str, runtime: RuntimeName = "auto") -> Student:
        """Opens and checks a model folder.

        Raises:
            InputError: the folder is damaged, or the runtime is not installed.
        """
        model = read_model_folder(folder)
        return cls(model, open_runtime(model, runtime), model.text_bank)

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes that `label` answers with."""
        return self.text_bank.vocabulary

    def with_text_bank(self, text_bank: TextBank) -> Student:
        """The same network under another vocabulary."""
        return replace(self, text_bank=text_bank)

    def label(self, sweep: Sweep) -> Labels:
        """Labels every point of a sweep.

        Raises:
            InputError: the sweep lacks a field that the model needs.
        """
        clock = [time.perf_counter()]
        voxels = self.model.grid.voxelize(sweep.xyz)
        features = inputs(sweep, voxels, self.model.inputs)
        clock.append(time.perf_counter())
        maps = kernel_maps(voxels.coords, self.model.shape.stem)
        clock.append(time.perf_counter())
        width = self.text_bank.embeddings.shape[1]
        embedding = np.zeros((0, width), np.float32)
        if len(voxels):
            embedding = self.runtime.run(features, maps)
            norm = np.linalg.norm(embedding, axis=1, keepdims=True)
            embedding = embedding / np.maximum(norm, 1e-9)
        clock.append(time.perf_counter())
        chosen, probability = self._classify(embedding)
        # One row more for points without a voxel: index -1 finds it.
        class_id = np.append(chosen, np.uint8(UNLABELLED))[voxels.inverse]
        score = np.append(probability, np.float32(0))[voxels.inverse]
        clock.append(time.perf_counter())
        parts = ("voxels", "kernel maps", "network", "labels")
        seconds = dict(zip(parts, np.diff(clock).tolist(), strict=True))
        return Labels(class_id, score, embedding, voxels.inverse, seconds)

    def _classify(self, embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(V,) uint8 class ids and (V,) float32 probabilities."""
        logits = self.text_bank.class_scores(embedding) / self.model.temperature
        best = logits.argmax(1)
        top = logits.max(1, initial=-np.inf)
        probability = 1 / np.exp(logits - top[:, None]).sum(1)
        return (best + 1).astype(np.uint8), probability.astype(np.float32)
