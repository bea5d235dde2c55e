"""CLIP's towers as graphs, one array in and one out: on ONNX Runtime, or on TensorRT beside it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from afov.errors import InputError
from afov.model_parts import ImageTowerFiles, TowerFiles

Run = Callable[[np.ndarray], np.ndarray]
Shapes = Mapping[str, tuple[int | None, ...]]  # of arrays by name; None is a size that varies


def open_session(
    onnx: bytes, what: str, inputs: Shapes | None = None, *, threads: int = 0, gpu: bool = True
) -> Any:
    """A graph of a model folder on ONNX Runtime.

    Args:
        inputs: that it must take; None for whatever it does.
        threads: of one run; 0 for all cores. gpu: take CUDA where ONNX Runtime has it.

    Raises:
        InputError: it is no graph, or another one; `what` names it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # Its threads would wait in a loop, on the cores that merge the masks meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    usable = onnxruntime.get_available_providers() if gpu else ()
    # Never its TensorRT: every sweep has another number of voxels, and would be another engine.
    providers = [p for p in ("CUDAExecutionProvider",) if p in usable] + ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(onnx, options, providers=providers)
    except Exception as error:  # onnxruntime has types of its own
        line = " ".join(f"{error}".split())[:200]
        raise InputError(f"{what}: cannot be opened ({line}); export the model again") from None
    found = {given.name: tuple(given.shape) for given in session.get_inputs()}
    if inputs is not None and not _fit(found, inputs):
        raise InputError(f"{what}: takes {found}, expected {dict(inputs)}; export the model again")
    return session


def _fit(found: Mapping[str, tuple[Any, ...]], wanted: Shapes) -> bool:
    """Whether shapes are those wanted; a size that varies has a name in ONNX Runtime."""
    return found.keys() == wanted.keys() and all(
        len(found[name]) == len(shape)
        and all(size in (None, here) for size, here in zip(shape, found[name], strict=True))
        for name, shape in wanted.items()
    )


class OnnxTower:
    """A tower on ONNX Runtime, with the arguments of `open_session`.

    Attributes:
        kind: of the array that it takes; others are cast.
    """

    def __init__(
        self,
        onnx: bytes,
        what: str,
        inputs: Shapes | None = None,
        *,
        threads: int = 0,
        gpu: bool = True,
    ) -> None:
        self._session = open_session(onnx, what, inputs, threads=threads, gpu=gpu)
        (given,) = self._session.get_inputs()
        self._name, self.kind = given.name, np.dtype(given.type[len("tensor(") : -1])

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """Its answer, float32."""
        answer: np.ndarray = self._session.run(None, {self._name: array.astype(self.kind)})[0]
        return answer


def beside(runtime: str, files: ImageTowerFiles | TowerFiles, folder: Path) -> Run | None:
    """A tower on TensorRT where the student runs there.

    None, for ONNX Runtime, on every other runtime, and where it does not open; a line in the log
    says why.

    Args:
        runtime: the student's. folder: the model folder.
    """
    if runtime != "tensorrt":
        return None
    from afov.runtimes import require_tensorrt

    try:
        require_tensorrt()
        from afov.runtimes.tensorrt_tower import TensorRtTower
        from afov.runtimes.tower_plans import TowerPlan

        return TensorRtTower(TowerPlan.of(files), folder)
    except InputError as error:
        logging.getLogger(__name__).warning("%s; ONNX Runtime runs it", error)
        return None
