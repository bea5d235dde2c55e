"""The compiled loops, where a compiler was at hand when the package was built."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np


@cache
def library() -> ctypes.CDLL | None:
    """The shared library beside this file; None where it was not built: NumPy does it then."""
    for file in Path(__file__).parent.glob("_afov*.so"):
        return ctypes.CDLL(str(file))
    return None


def address(array: np.ndarray) -> ctypes.c_void_p:
    """Where an array's data begins; it must be contiguous and outlive the call."""
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)
