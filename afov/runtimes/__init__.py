"""Runtimes: one small interface, from voxel features and kernel maps to embeddings."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np

from afov.errors import InputError
from afov.kernel_maps import KernelMaps
from afov.model_folder import ModelFolder
from afov.native import integers, library

# NVIDIA's driver, a Jetson's, AMD's, and Windows' for Linux.
GPU_DEVICES = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/kfd", "/dev/dxg")

RuntimeName = Literal["auto", "native", "native16", "onnxruntime", "torch"]


class Runtime(Protocol):
    """Runs the student's network."""

    name: str

    def run(self, features: np.ndarray, maps: KernelMaps) -> np.ndarray:
        """(V, C) float32 features to (V, E) float32 embeddings, not normalised."""
        ...


def open_runtime(model: ModelFolder, name: RuntimeName = "auto") -> Runtime:
    """The runtime of that name; "auto" takes the fastest that is installed (`preferred`).

    Raises:
        InputError: no such runtime, or not installed.
    """
    if name == "auto":
        name = preferred()
    if name == "native":
        from afov.runtimes.native_runtime import NativeRuntime

        return NativeRuntime(model)
    if name == "native16":
        from afov.runtimes.integer_runtime import IntegerRuntime

        return IntegerRuntime(model)
    if name == "torch":
        if not _torch():
            raise InputError("runtime 'torch': torch is not installed; use runtime 'onnxruntime'")
        from afov.runtimes.torch_runtime import TorchRuntime

        return TorchRuntime(model)
    if name == "onnxruntime":
        from afov.runtimes.onnx_runtime import OnnxRuntime

        return OnnxRuntime(model)
    raise InputError(f"runtime {name!r}: expected {', '.join(get_args(RuntimeName))}")


def preferred() -> RuntimeName:
    """What "auto" means here: torch on a GPU, else the compiled network, torch, ONNX Runtime.

    On a CPU ONNX Runtime does the arithmetic of all 27 neighbours, the others only that of those
    which exist; in 16 bits the compiled network gives the same labels, sooner
    (docs/performance.md).
    """
    if _torch() and _gpu():
        return "torch"
    if library() is not None:
        return "native16" if integers() else "native"
    return "torch" if _torch() else "onnxruntime"


def _torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def _gpu() -> bool:
    # Without a driver there is no need to import torch, which takes long and holds memory.
    if not any(Path(device).exists() for device in GPU_DEVICES):
        return False
    import torch

    return torch.cuda.is_available()
