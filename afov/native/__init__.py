"""The compiled loops, where a compiler was at hand when the package was built."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

LANES, PANEL = 8, 16  # columns per vector and side by side, as network.cpp has them


@cache
def library() -> ctypes.CDLL | None:
    """The shared library beside this file; None where it was not built: NumPy does it then."""
    for file in Path(__file__).parent.glob("_afov*.so"):
        return ctypes.CDLL(str(file))
    return None


def integers() -> bool:
    """Whether the library was built and this processor multiplies 16 bits at a time (AVX2)."""
    return library() is not None and bool(call("has_integers"))


def vnni() -> bool:
    """Whether it multiplies them 32 bits at a time and 16 columns wide (AVX-512 VNNI)."""
    return integers() and bool(call("has_vnni"))


def address(array: np.ndarray) -> ctypes.c_void_p:
    """Where an array's data begins; it must be contiguous and outlive the call."""
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def addresses(*arrays: np.ndarray) -> np.ndarray:
    """Where the data of each array begins, int64; they must outlive the call."""
    return np.array([array.ctypes.data for array in arrays], np.int64)


def call(name: str, *arguments: np.ndarray | int | float | None) -> int:
    """Calls a compiled function: arrays by address, whole numbers as int64, others as float32.

    The arrays must be contiguous, but for the first axis, whose step the function is told.
    """
    return int(_function(name)(*map(_argument, arguments)))


@cache
def _function(name: str) -> Any:
    compiled = library()
    assert compiled is not None
    function = compiled[name]  # ctypes makes a new object each time: 0.2 ms a sweep
    function.restype = ctypes.c_int64
    return function


def _argument(value: np.ndarray | int | float | None) -> Any:
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    if isinstance(value, float):
        return ctypes.c_float(value)
    return None if value is None else ctypes.c_int64(value)


def aligned(rows: int, width: int) -> np.ndarray:
    """(rows, width) float32 that begins on a cache line: vectors across two cost a second load."""
    raw = np.empty(rows * width + 16, np.float32)
    start = -raw.ctypes.data % 64 // 4
    return raw[start : start + rows * width].reshape(rows, width)


def panels(weight: np.ndarray) -> np.ndarray:
    """(K, Cin, Cout) float32 to (K, panels, Cin, 16), the order of the products; zeros beyond."""
    offsets, cin, _ = weight.shape
    wide = np.pad(weight, ((0, 0), (0, 0), (0, -weight.shape[2] % PANEL)))
    split = wide.reshape(offsets, cin, -1, PANEL).transpose(0, 2, 1, 3)
    result = aligned(split.size // PANEL, PANEL).reshape(split.shape)
    result[:] = split
    return result
