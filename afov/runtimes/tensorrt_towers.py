"""CLIP's towers as TensorRT engines: what `afov.towers` takes where the student runs there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from afov.device.graphs import Replayed, Work
from afov.model_parts import ImageTowerFiles, TowerFiles
from afov.runtimes import require_tensorrt
from afov.runtimes.engine import Choice, Progress, difference
from afov.runtimes.precision import typed_tower
from afov.runtimes.profile import Fixed, Ranges, Texts
from afov.runtimes.tensorrt_engine import Engine, logged, open_engine
from afov.text_tower import Prompts
from afov.towers import OnnxTower

PHRASES = ("car", "a traffic cone beside the road")  # on which a text tower is compared


def image_tower(
    files: ImageTowerFiles, folder: Path, choice: Choice | None = None, progress: Progress = logged
) -> TensorRtTower:
    """The image tower of a model folder; arguments and errors as of `TensorRtTower`."""
    size = (files.height, files.width, 3)
    noise = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    return TensorRtTower("image tower", files.onnx, Fixed(), [noise], folder, choice, progress)


def text_tower(
    files: TowerFiles, folder: Path, choice: Choice | None = None, progress: Progress = logged
) -> TensorRtTower:
    """The text tower of a model folder; arguments and errors as of `TensorRtTower`."""
    ranges, prompts = Texts(len(files.templates), files.context_length), Prompts(files)
    tokens = [prompts(phrase) for phrase in PHRASES]
    return TensorRtTower("text tower", files.onnx, ranges, tokens, folder, choice, progress)


class TensorRtTower:
    """A tower on the GPU, for one thread at a time; others wait.

    Args:
        what: names it. samples: arrays on which it must agree with ONNX Runtime on the CPU.
        folder: the model folder.
        choice: what to build where no engine is; None = take what afov-export built, for a drive is
            no time to build in.

    Raises:
        InputError: no TensorRT, no engine, or it disagrees with ONNX Runtime.
    """

    def __init__(
        self,
        what: str,
        onnx: bytes,
        ranges: Ranges,
        samples: Sequence[np.ndarray],
        folder: Path,
        choice: Choice | None,
        progress: Progress,
    ) -> None:
        require_tensorrt()
        reference = OnnxTower(onnx, what, gpu=False)
        self._kind = reference.kind
        self._one_at_a_time, self._stream = threading.Lock(), torch.cuda.Stream()
        precision = (choice or Choice.load(folder / "engines")).precision

        def compare(engine: Engine) -> float:
            self._start(engine)
            return max(
                difference(_rows(self(given)), _rows(reference(given)), precision, f"the {what}")
                for given in samples
            )

        graph = typed_tower(onnx, precision)
        engine = open_engine(
            folder, graph, precision, ranges, compare, progress, may_build=choice is not None
        )
        self._start(engine)

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """Its answer, float32."""
        with self._one_at_a_time, torch.inference_mode(), torch.cuda.stream(self._stream):
            given = torch.from_numpy(np.ascontiguousarray(array, self._kind)).to("cuda")
            (answer,) = self._replayed(given)
            return answer.cpu().numpy()

    def _start(self, engine: Engine) -> None:
        (name,) = engine.inputs

        def prepared() -> Work:
            run = engine.prepared()
            return lambda given: (run({name: given}),)

        self._replayed = Replayed(prepared, torch.device("cuda"))


def _rows(answer: np.ndarray) -> np.ndarray:
    return answer.reshape(-1, answer.shape[-1])
