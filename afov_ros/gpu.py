"""How full the GPU is, asked of CUDA's driver itself: a vehicle may have neither torch nor NVML."""

from __future__ import annotations

import ctypes
from typing import Any


def runs_on_gpu(runtime: Any) -> bool:
    """Whether a student's runtime has its weights on a GPU."""
    return runtime.name == "tensorrt" or str(getattr(runtime, "device", "")).startswith("cuda")


def gpu_memory() -> tuple[float, float] | None:
    """MiB in use by everyone, and in all, of the first GPU; None where there is none.

    In the primary context, which torch and TensorRT share and have made by now.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, context = ctypes.c_int(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return None
    if cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
        return None
    try:
        if cuda.cuCtxPushCurrent_v2(context):
            return None
        failed = cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        cuda.cuCtxPopCurrent_v2(ctypes.byref(context))
    finally:
        cuda.cuDevicePrimaryCtxRelease_v2(device)
    return None if failed else ((total.value - free.value) / 2**20, total.value / 2**20)
