"""Runtimes: one small interface, from voxel features and kernel maps to embeddings."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from afov.errors import InputError
from afov.kernel_maps import KernelMaps
from afov.model_folder import ModelFolder
from afov.native import integers, library

if TYPE_CHECKING:
    from afov.frames import Sweep
    from afov.labels import Labels
    from afov.text_bank import TextBank
    from afov.voxels import Voxels

# NVIDIA's driver, a Jetson's, AMD's, and Windows' for Linux.
GPU_DEVICES = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/kfd", "/dev/dxg")

RuntimeName = Literal[
    "auto",
    "tensorrt",
    "onnxruntime-cuda",
    "native",
    "native16",
    "native8",
    "onnxruntime",
    "torch",
]


class Runtime(Protocol):
    """Runs the student's network on a processor, or by way of it."""

    name: str

    def run(self, features: np.ndarray, maps: KernelMaps) -> np.ndarray:
        """(V, C) float32 features to (V, E) float32 embeddings, not normalised."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """Runs a sweep from its points on where the network is (`afov.device.runtime`)."""

    name: str
    width: int

    def label(
        self, sweep: Sweep, bank: TextBank, temperature: float, basis: np.ndarray | None = None
    ) -> Labels:
        """Labels every point; the bank's phrases are `width` wide."""
        ...

    def embed(self, sweep: Sweep) -> tuple[Voxels, np.ndarray, dict[str, float]]:
        """The sweep's voxels, (V, width) float32 of each, not normalised, and seconds by part."""
        ...


def open_runtime(model: ModelFolder, name: RuntimeName = "auto") -> Runtime | OnDevice:
    """The runtime of that name; "auto" takes the first of `order` that opens.

    Raises:
        InputError: no such runtime, or not installed.
    """
    if name == "auto":
        return open_first(model, order())
    if name == "tensorrt":
        require_tensorrt()
        from afov.device.runtime import DeviceRuntime
        from afov.runtimes.tensorrt_runtime import TensorRtNetwork

        return DeviceRuntime(model, TensorRtNetwork(model))
    if name == "native":
        from afov.runtimes.native_runtime import NativeRuntime

        return NativeRuntime(model)
    if name in ("native16", "native8"):
        from afov.runtimes.integer_runtime import IntegerRuntime

        return IntegerRuntime(model, 8 if name == "native8" else 16)
    if name == "torch":
        if not _torch():
            raise InputError("runtime 'torch': torch is not installed; use runtime 'onnxruntime'")
        return _open_torch(model)
    if name in ("onnxruntime", "onnxruntime-cuda"):
        from afov.runtimes.onnx_runtime import OnnxRuntime

        return OnnxRuntime(model, cuda=name == "onnxruntime-cuda")
    raise InputError(f"runtime {name!r}: expected {', '.join(get_args(RuntimeName))}")


def _open_torch(model: ModelFolder) -> Runtime | OnDevice:
    """On a GPU over all neighbours there, on the CPU over those that exist."""
    if _gpu():
        from afov.device.runtime import DeviceRuntime
        from afov.runtimes.torch_dense import TorchNetwork

        return DeviceRuntime(model, TorchNetwork(model, "cuda"))
    from afov.runtimes.torch_runtime import TorchRuntime

    return TorchRuntime(model)


def open_first(model: ModelFolder, names: tuple[RuntimeName, ...]) -> Runtime | OnDevice:
    """The first of these that opens; what kept the others from it is logged.

    Raises:
        InputError: none does; the last one's reason.
    """
    *others, last = names
    for name in others:
        try:
            return open_runtime(model, name)
        except InputError as error:
            logging.getLogger(__name__).warning("%s; the next runtime is tried", error)
    return open_runtime(model, last)


def order() -> tuple[RuntimeName, ...]:
    """What "auto" tries here, fastest first: TensorRT, torch on a GPU, then the others.

    ONNX Runtime on CUDA gets its kernel maps from the CPU, so torch goes before it. On a CPU it
    does the arithmetic of all 27 neighbours, the others only that of those which exist; in 8 bits
    the compiled network gives 99.7% of the same labels, soonest (docs/performance.md).
    """
    torch, compiled = _torch(), library() is not None
    gpu = torch and _gpu()
    possible: tuple[tuple[RuntimeName, bool], ...] = (
        ("tensorrt", gpu and _tensorrt()),
        ("torch", gpu),
        ("onnxruntime-cuda", _onnx_cuda()),
        ("native8", compiled and integers()),
        ("native", compiled),
        ("torch", torch and not gpu),
        ("onnxruntime", True),
    )
    return tuple(name for name, here in possible if here)


def preferred() -> RuntimeName:
    """The first that "auto" tries."""
    return order()[0]


def require_tensorrt() -> None:
    """Raises an InputError where TensorRT or a GPU is missing."""
    if not _tensorrt():
        raise InputError(
            "TensorRT is not installed; it comes with JetPack or with NVIDIA's tensorrt package "
            "(docs/tensorrt.md); until then use runtime 'auto'"
        )
    if not (_torch() and _gpu()):
        raise InputError("TensorRT: torch finds no GPU; install a torch with CUDA, or use 'auto'")


def _tensorrt() -> bool:
    # tensorrt-stubs leaves a package without code, which has no origin.
    found = importlib.util.find_spec("tensorrt")
    return found is not None and found.origin is not None


def _onnx_cuda() -> bool:
    if not _device() or importlib.util.find_spec("onnxruntime") is None:
        return False
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def _device() -> bool:
    # Without a driver there is no need to import what takes long and holds memory.
    return any(Path(device).exists() for device in GPU_DEVICES)


def _gpu() -> bool:
    if not _device():
        return False
    import torch

    return torch.cuda.is_available()
