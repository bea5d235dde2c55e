"""TensorRT engines, all but TensorRT: their names, when one is trusted, for which sweeps it is."""

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
from afov.kernel_maps import kernel_maps
from afov.model_folder import Sample

Precision = Literal["fp16", "fp32"]
Progress = Callable[[str, int, int], None]  # phase, steps done, of how many
E = TypeVar("E")

# Voxels per level of a nuScenes sweep (34,688 points) in the default grid: typical where a model
# folder does not say what it was trained on. Four times as many also hold a 64-beam sweep.
TYPICAL = (15947, 10155, 5900, 3122, 1475)
TIMES = 4
MARGIN = 1.5  # over the largest sweep of the training data
# Largest difference from ONNX Runtime in float32, a voxel's row over that row's length.
TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "fp16": 2e-2}


@dataclass(frozen=True)
class Profile:
    """How many voxels an engine is tuned for, and how many it takes; from one voxel on.

    Attributes:
        typical, most: voxels per level, finest first.
    """

    typical: tuple[int, ...]
    most: tuple[int, ...]

    def rows(self, name: str) -> tuple[int, int, int]:
        """Least, typical and most rows of the graph's input of that name."""
        level = level_of(name)
        return 1, self.typical[level], self.most[level]

    def check(self, counts: tuple[int, ...]) -> None:
        """Raises an InputError if a sweep with these voxels per level is too large."""
        for level, (count, most) in enumerate(zip(counts, self.most, strict=True)):
            if count > most:
                raise InputError(
                    f"TensorRT: the sweep has {count} voxels at level {level}, the engine takes "
                    f"{most}; build one with afov-export --tensorrt --max-voxels "
                    f"{-(-self.most[0] * count // most)}"
                )


def level_of(name: str) -> int:
    """The level whose voxels are the rows of an input (`onnx_runtime.graph_inputs`)."""
    if name in ("features", "stem"):
        return 0
    kind, level = name[:-1], int(name[-1])
    return level + 1 if kind == "down" else level


def profile_of(seen: tuple[tuple[int, int, int], ...], max_voxels: int | None = None) -> Profile:
    """The profile for sweeps like those of the training data.

    Args:
        seen: least, median and most voxels per level; () where the model folder has none.
        max_voxels: most voxels at the finest level; the coarser ones shrink or grow with it.

    Raises:
        InputError: `max_voxels` is not positive.
    """
    if max_voxels is not None and max_voxels < 1:
        raise InputError(f"--max-voxels {max_voxels}: expected a positive number")
    typical = tuple(median for _, median, _ in seen) or TYPICAL
    most = tuple(_round_up(MARGIN * m) for *_, m in seen) or tuple(TIMES * t for t in TYPICAL)
    finest = max_voxels or most[0]
    # A coarser level never has more voxels than a finer one.
    most = tuple(
        min(finest, -(-max(most[level:]) * finest // most[0])) for level in range(len(most))
    )
    return Profile(tuple(min(t, m) for t, m in zip(typical, most, strict=True)), most)


def _round_up(count: float) -> int:
    return -(-int(count) // 1024) * 1024


@dataclass(frozen=True)
class Identity:
    """All that an engine depends on; where one of these differs it is another engine.

    Attributes:
        onnx: SHA-256 of the graph as TensorRT reads it.
        tensorrt: version. capability: of the GPU, "8.7".
    """

    onnx: str
    tensorrt: str
    capability: str
    precision: Precision
    profile: Profile

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


def difference(got: np.ndarray, expected: np.ndarray, precision: Precision) -> float:
    """The largest difference of a voxel's embedding from ONNX Runtime's, relative to its length.

    Args:
        got, expected: (V, E) float32.

    Raises:
        InputError: it is above `TOLERANCE`, or not a number.
    """
    length = np.maximum(np.linalg.norm(expected, axis=1), 1e-6)
    worst = float((np.linalg.norm(got - expected, axis=1) / length).max())
    if not worst <= TOLERANCE[precision]:
        better = "; build with --precision fp32" if precision == "fp16" else ""
        raise InputError(
            f"TensorRT: the engine and ONNX Runtime differ by {worst:.1e} relative on the stored "
            f"sweep, at most {TOLERANCE[precision]:.0e} is allowed for {precision}; it was not "
            f"stored{better}"
        )
    return worst


def fitting(sample: Sample, profile: Profile, stem: int) -> Sample:
    """The sweep, or as many of its first voxels as an engine takes; any part is a sweep, too."""
    count = min(len(sample.coords), profile.most[0])
    while True:
        part = Sample(sample.features[:count], sample.coords[:count])
        counts = (len(table) for table in kernel_maps(part.coords, stem).subm)
        if all(have <= most for have, most in zip(counts, profile.most, strict=True)):
            return part
        count -= -(-count // 10)


def too_large(profile: Profile, said: str) -> InputError:
    """What to say when the GPU's memory does not suffice."""
    return InputError(
        f"TensorRT: the GPU has too little memory for {profile.most[0]} voxels ({said}); lower "
        f"them: afov-export --tensorrt --max-voxels {max(1, profile.most[0] // 2)}"
    )


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
        raise InputError(f"{file}: damaged; delete it or run afov-export --tensorrt again")


def sha256(content: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(content).hexdigest()
