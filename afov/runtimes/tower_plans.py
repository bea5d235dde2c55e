"""Engines of CLIP's towers, all but TensorRT: sizes, and what they are compared on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from afov.model_files import description_in
from afov.model_parts import ImageTowerFiles, TowerFiles, read_panoptic, read_text_tower
from afov.runtimes.engine import Precision, difference
from afov.runtimes.precision import typed_tower
from afov.runtimes.profile import Fixed, Ranges, Texts
from afov.text_tower import Prompts
from afov.towers import OnnxTower, Run

PHRASES = ("car", "a traffic cone beside the road")  # on which a text tower is compared


@dataclass(frozen=True)
class TowerPlan:
    """A tower of which an engine is to be made.

    Attributes:
        what: its name. onnx: its graph in float32. ranges: of its input's sizes.
        samples: arrays on which the engine must agree with ONNX Runtime.
    """

    what: str
    onnx: bytes
    ranges: Ranges
    samples: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, files: ImageTowerFiles | TowerFiles) -> TowerPlan:
        """An image tower is compared on noise, for a folder holds no image; a text tower on two
        phrases in all prompts."""
        if isinstance(files, ImageTowerFiles):
            size = (files.height, files.width, 3)
            noise = np.random.default_rng(0).integers(0, 256, size, np.uint8)
            return cls("image tower", files.onnx, Fixed(), (noise,))
        prompts, ranges = Prompts(files), Texts(len(files.templates), files.context_length)
        return cls("text tower", files.onnx, ranges, tuple(map(prompts, PHRASES)))

    def graph(self, precision: Precision) -> bytes:
        """As TensorRT reads it."""
        return typed_tower(self.onnx, precision)

    def reference(self) -> OnnxTower:
        """In float32 on the CPU."""
        return OnnxTower(self.onnx, self.what, gpu=False)

    def difference(self, run: Run, precision: Precision) -> float:
        """The largest difference of an embedding from ONNX Runtime's, relative to its length.

        Raises:
            InputError: it is above what the precision allows.
        """
        expected = self.reference()
        return max(
            difference(_rows(run(given)), _rows(expected(given)), precision, f"the {self.what}")
            for given in self.samples
        )


def plans_in(folder: Path) -> list[TowerPlan]:
    """Those of the towers that a model folder has.

    Raises:
        InputError: a file is missing or was changed.
    """
    plans, panoptic = [], read_panoptic(folder)
    if panoptic is not None:
        plans.append(TowerPlan.of(panoptic.image_tower))
    if description_in(folder / "model.json").get("text_tower") is not None:
        plans.append(TowerPlan.of(read_text_tower(folder)))
    return plans


def _rows(answer: np.ndarray) -> np.ndarray:
    return answer.reshape(-1, answer.shape[-1])
