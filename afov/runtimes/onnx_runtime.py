"""ONNX Runtime on `student.onnx`; the kernel maps are inputs of the graph."""

from __future__ import annotations

import numpy as np
import onnxruntime

from afov.errors import InputError
from afov.kernel_maps import KernelMaps, Table
from afov.model_folder import ModelFolder

CUDA = "CUDAExecutionProvider"


def graph_inputs(features: Table, maps: KernelMaps[Table]) -> dict[str, Table]:
    """The graph's inputs by name, arrays or tensors."""
    feeds = {"features": features, "stem": maps.stem}
    feeds |= {f"subm{level}": table for level, table in enumerate(maps.subm)}
    feeds |= {f"down{level}": table for level, table in enumerate(maps.down)}
    feeds |= {f"up{level}": table for level, table in enumerate(maps.up)}
    return feeds


class OnnxRuntime:
    """The exported graph, on the CPU or on CUDA.

    ONNX Runtime's own TensorRT provider is never taken: our engine is compared with this.

    Raises:
        InputError: the graph cannot be opened, or not on CUDA.
    """

    name = "onnxruntime"

    def __init__(self, model: ModelFolder, *, cuda: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                model.onnx, options, providers=[CUDA] * cuda + ["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises its own, undocumented types
            line = str(error).splitlines()[0]
            raise InputError(f"{model.folder / 'student.onnx'}: cannot be opened: {line}") from None
        # ONNX Runtime goes back to the CPU without a word.
        if cuda and CUDA not in self._session.get_providers():
            raise InputError(
                "runtime 'onnxruntime-cuda': ONNX Runtime finds no CUDA here; install "
                "onnxruntime-gpu, or use runtime 'auto'"
            )
        if cuda:
            self.name = "onnxruntime-cuda"
        self._names = {i.name for i in self._session.get_inputs()}

    def run(self, features: np.ndarray, maps: KernelMaps) -> np.ndarray:
        """(V, C) float32 features to (V, E) float32 embeddings."""
        feeds = {k: v for k, v in graph_inputs(features, maps).items() if k in self._names}
        return self._session.run(["embedding"], feeds)[0]
