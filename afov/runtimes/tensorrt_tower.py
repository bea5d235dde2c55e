"""CLIP's towers as TensorRT engines: what `afov.towers` takes where the student runs there."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import torch

from afov.device.graphs import Replayed, Work
from afov.runtimes.engine import Choice, Progress
from afov.runtimes.profile import Fixed
from afov.runtimes.tensorrt_engine import Engine, logged, open_engine
from afov.runtimes.tower_plans import TowerPlan


class TensorRtTower:
    """A tower on the GPU, for one thread at a time; others wait.

    Args:
        folder: the model folder.
        choice: what to build where no engine is; None = take what afov-export built, for a drive is
            no time to build in.
        progress: hears of a build's phases.

    Raises:
        InputError: there is no engine, it cannot be built, or it disagrees with ONNX Runtime.
    """

    def __init__(
        self,
        plan: TowerPlan,
        folder: Path,
        choice: Choice | None = None,
        progress: Progress = logged,
    ) -> None:
        self._kind = plan.reference().kind
        self._graphs = plan.ranges == Fixed()  # a text's length seldom recurs
        self._one_at_a_time, self._stream = threading.Lock(), torch.cuda.Stream()
        precision = (choice or Choice.load(folder / "engines")).precision

        def compare(engine: Engine) -> float:
            self._start(engine)
            return plan.difference(self, precision)

        self._start(
            open_engine(
                folder, plan.graph(precision), precision, plan.ranges, compare, progress,
                may_build=choice is not None,
            )
        )  # fmt: skip

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

        self._replayed = Replayed(prepared, torch.device("cuda"), graphs=self._graphs)
