"""Runtimes: one small interface, from voxel features and kernel maps to embeddings."""

from __future__ import annotations

import importlib.util
from typing import Literal, Protocol

import numpy as np

from afov.errors import InputError
from afov.kernel_maps import KernelMaps
from afov.model_folder import ModelFolder

RuntimeName = Literal["auto", "onnxruntime", "torch"]


class Runtime(Protocol):
    """Runs the student's network."""

    name: str

    def run(self, features: np.ndarray, maps: KernelMaps) -> np.ndarray:
        """(V, C) float32 features to (V, E) float32 embeddings, not normalised."""
        ...


def open_runtime(model: ModelFolder, name: RuntimeName = "auto") -> Runtime:
    """The runtime of that name; "auto" takes torch where it is installed.

    On a CPU torch does only the arithmetic of neighbours that exist, ONNX Runtime that of all 27,
    and is slower for it (benchmarks/sweep_parts.py).
    """
    has_torch = importlib.util.find_spec("torch") is not None
    if name == "torch" and not has_torch:
        raise InputError("runtime 'torch': torch is not installed; use runtime 'onnxruntime'")
    if name == "torch" or (name == "auto" and has_torch):
        from afov.runtimes.torch_runtime import TorchRuntime

        return TorchRuntime(model)
    if name in ("onnxruntime", "auto"):
        from afov.runtimes.onnx_runtime import OnnxRuntime

        return OnnxRuntime(model)
    raise InputError(f"runtime {name!r}: expected auto, onnxruntime or torch")
