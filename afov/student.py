"""The student: points in; class, score and embedding per point out."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from afov.afi import Mode, interact
from afov.frames import Sweep
from afov.inputs import inputs
from afov.kernel_maps import kernel_maps
from afov.model_folder import ModelFolder, read_model_folder
from afov.runtimes import Runtime, RuntimeName, open_runtime
from afov.text_bank import TextBank
from afov.vocabulary import Vocabulary


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
        return at_points(self.voxel_embedding, self.inverse)


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
        probability = self.probabilities(embedding)
        class_id = at_points(probability.argmax(1).astype(np.uint8), voxels.inverse)
        score = at_points(probability.max(1, initial=0), voxels.inverse)
        clock.append(time.perf_counter())
        parts = ("voxels", "kernel maps", "network", "labels")
        seconds = dict(zip(parts, np.diff(clock).tolist(), strict=True))
        return Labels(class_id, score, embedding, voxels.inverse, seconds)

    def corrected(self, labels: Labels, sweep: Sweep, afi: Mode) -> Labels:
        """What `label` said of the sweep, after approximate flat interaction."""
        if afi == "off":
            return labels
        began = time.perf_counter()
        probability = at_points(self.probabilities(labels.voxel_embedding), labels.inverse)
        likely = interact(afi, sweep.xyz, probability)
        return replace(
            labels,
            class_id=likely.argmax(1).astype(np.uint8),
            score=likely.max(1),
            seconds={**labels.seconds, "afi": time.perf_counter() - began},
        )

    def probabilities(self, embedding: np.ndarray) -> np.ndarray:
        """(V, E) unit rows to (V, K + 1) float32: softmax over the classes; column 0 is zero."""
        logits = self.text_bank.class_scores(embedding) / self.model.temperature
        likely = np.exp(logits - logits.max(1, keepdims=True, initial=-np.inf))
        result = np.zeros((len(logits), logits.shape[1] + 1), np.float32)
        np.divide(likely, likely.sum(1, keepdims=True), out=result[:, 1:])
        return result


def at_points(rows: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Each point's row; zero (the id of unlabelled) for points without a voxel, inverse -1.

    Args:
        rows: (V, ...), one per voxel. inverse: (N,) int64.
    """
    return np.concatenate((rows, np.zeros((1, *rows.shape[1:]), rows.dtype)))[inverse]
