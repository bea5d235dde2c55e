"""TensorRT engines, all but TensorRT: what names one, and when one is trusted."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from afov.errors import InputError
from afov.runtimes.profile import Ranges

Precision = Literal["fp16", "fp32"]
Progress = Callable[[str, int, int], None]  # phase, steps done, of how many
E = TypeVar("E")

# Largest difference from ONNX Runtime in float32, a row over that row's length.
TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "fp16": 2e-2}


@dataclass(frozen=True)
class Identity:
    """All that an engine depends on; where one of these differs it is another engine.

    Attributes:
        onnx: SHA-256 of the graph as TensorRT reads it.
        tensorrt: version. capability: of the GPU, "8.7".
        ranges: of the inputs' sizes.
    """

    onnx: str
    tensorrt: str
    capability: str
    precision: Precision
    ranges: Ranges

    @property
    def file(self) -> str:
        """The engine's file name."""
        digest = hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()
        said = f"{self.precision}-sm{self.capability}-trt{self.tensorrt}"
        return f"{re.sub(r'[^A-Za-z0-9.-]', '_', said)[:80]}-{digest[:32]}.engine"

    def to_dict(self) -> dict[str, Any]:
        """As JSON gives it back."""
        return dict(json.loads(json.dumps(asdict(self))))


def load_engine(folder: Path, identity: Identity) -> bytes | None:
    """The stored engine; None if there is none, or it is stale, foreign, cut off or changed."""
    file = folder / identity.file
    try:
        engine = file.read_bytes()
        said = json.loads(file.with_suffix(".json").read_text())
        whole = said["sha256"] == sha256(engine) and said["identity"] == identity.to_dict()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return engine if whole else None


def store_engine(folder: Path, identity: Identity, engine: bytes, difference: float) -> Path:
    """Stores an engine that agreed with ONNX Runtime, and beside it what it is.

    Raises:
        InputError: the folder cannot be written.
    """
    file = folder / identity.file
    said = {
        "sha256": sha256(engine),
        "identity": identity.to_dict(),
        "difference": difference,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The description last: without it, or with an older one, the engine is not trusted.
        replace_file(file, engine)
        replace_file(file.with_suffix(".json"), (json.dumps(said, indent=1) + "\n").encode())
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror}); make it so") from None
    return file


def replace_file(file: Path, content: bytes) -> None:
    """Writes a file whole or not at all, also where two processes do so at once."""
    partial = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def trusted_engine(
    folder: Path,
    identity: Identity,
    build: Callable[[], bytes],
    start: Callable[[bytes], E | None],
    compare: Callable[[E], float],
) -> E:
    """The stored engine, or a new one that agrees with ONNX Runtime.

    Args:
        start: makes an engine from its bytes; None if they are none.
        compare: its difference from ONNX Runtime; an InputError refuses it.

    Raises:
        InputError: it cannot be built, started or stored, or it disagrees.
    """
    stored = load_engine(folder, identity)
    engine = None if stored is None else start(stored)
    if engine is not None:
        return engine
    built = build()
    engine = start(built)
    if engine is None:
        raise InputError("TensorRT: does not start the engine that it has just built")
    store_engine(folder, identity, built, compare(engine))
    return engine


def difference(
    got: np.ndarray, expected: np.ndarray, precision: Precision, on: str = "the stored sweep"
) -> float:
    """The largest difference of an embedding from ONNX Runtime's, relative to its length.

    Args:
        got, expected: (V, E) float32. on: what was embedded.

    Raises:
        InputError: it is above `TOLERANCE`, or not a number.
    """
    length = np.maximum(np.linalg.norm(expected, axis=1), 1e-6)
    worst = float((np.linalg.norm(got - expected, axis=1) / length).max())
    if not worst <= TOLERANCE[precision]:
        better = "; build with --precision fp32" if precision == "fp16" else ""
        raise InputError(
            f"TensorRT: the engine and ONNX Runtime differ by {worst:.1e} relative on {on}, at "
            f"most {TOLERANCE[precision]:.0e} is allowed for {precision}; it was not stored{better}"
        )
    return worst


@dataclass(frozen=True)
class Choice:
    """What afov-export was told, kept beside the engines so that the node opens the same one.

    Attributes:
        max_voxels: at the finest level; None = from the training data.
    """

    precision: Precision = "fp16"
    max_voxels: int | None = None

    def save(self, folder: Path) -> None:
        """Into the engines' folder."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / "choice.json", (json.dumps(asdict(self)) + "\n").encode())
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror})") from None

    @classmethod
    def load(cls, folder: Path) -> Choice:
        """From the engines' folder; the default where nothing was chosen.

        Raises:
            InputError: the file is damaged.
        """
        file = folder / "choice.json"
        try:
            data = json.loads(file.read_text())
            choice = cls(data["precision"], data["max_voxels"])
            if choice.precision in get_args(Precision) and (
                choice.max_voxels is None or type(choice.max_voxels) is int
            ):
                return choice
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError):
            pass
        raise InputError(f"{file}: damaged; delete it or run afov-export again")


def sha256(content: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(content).hexdigest()
