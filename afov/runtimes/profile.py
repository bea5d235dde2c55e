"""For how many voxels, and for which other sizes, a TensorRT engine is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from afov.errors import InputError
from afov.kernel_maps import kernel_maps
from afov.model_folder import Sample

# Voxels per level of a nuScenes sweep (34,688 points) in the paper's grid: typical where a model
# folder does not say what it was trained on, as older ones do not. Four times as many also hold a
# 64-beam sweep.
TYPICAL = (15947, 10155, 5900, 3122, 1475)
TIMES = 4
MARGIN = 1.5  # over the largest sweep of the training data


Size = tuple[int, ...]


class Ranges(Protocol):
    """Which sizes an engine takes: a frozen dataclass, for it is part of what names the engine."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def of(self, name: str, size: Size) -> tuple[Size, Size, Size]:
        """Least, typical and most of an input; `size` is the graph's, -1 where it varies."""
        ...


@dataclass(frozen=True)
class Fixed:
    """The graph's own sizes: an image tower's."""

    def of(self, name: str, size: Size) -> tuple[Size, Size, Size]:
        """As `Ranges`."""
        return size, size, size


@dataclass(frozen=True)
class Texts:
    """A phrase in all its prompts, a text tower's input.

    Attributes:
        prompts: always so many. context: tokens of one at most.
    """

    prompts: int
    context: int

    def of(self, name: str, size: Size) -> tuple[Size, Size, Size]:
        """As `Ranges`; a prompt has some 12 tokens, beginning and end counted."""
        usual = min(12, self.context)
        return (self.prompts, 1), (self.prompts, usual), (self.prompts, self.context)


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

    def of(self, name: str, size: Size) -> tuple[Size, Size, Size]:
        """As `Ranges`: rows vary, widths do not."""
        least, typical, most = self.rows(name)
        return (least, *size[1:]), (typical, *size[1:]), (most, *size[1:])

    def padded(self, counts: tuple[int, ...]) -> tuple[int, ...]:
        """Rows per level for a sweep with so many voxels, of few sizes, so that they recur.

        The typical sweep's, all scaled alike until every level fits, in steps of an eighth or less;
        about twice what an odd sweep needs where that is less.
        """
        typical = self.typical
        finest = step(max(-(-n * typical[0] // t) for n, t in zip(counts, typical, strict=True)))
        # Products in half floats like whole eights of rows.
        scaled = (-(-finest * t // typical[0] // 8) * 8 for t in typical)
        return tuple(min(s, 2 * step(n)) for s, n in zip(scaled, counts, strict=True))

    def check(self, counts: tuple[int, ...]) -> None:
        """Raises an InputError if a sweep with these voxels per level is too large."""
        for level, (count, most) in enumerate(zip(counts, self.most, strict=True)):
            if count > most:
                raise InputError(
                    f"TensorRT: the sweep has {count} voxels at level {level}, the engine takes "
                    f"{most}; build one with afov-export --max-voxels "
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


def step(count: int) -> int:
    """The least of 8, 9, ... 16, 18, ... 32, 36, ... that is at least `count`."""
    unit = 1 << max(0, (count - 1).bit_length() - 4)
    return max(8, -(-count // unit) * unit)


def _round_up(count: float) -> int:
    return -(-int(count) // 1024) * 1024


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
        f"them: afov-export --max-voxels {max(1, profile.most[0] // 2)}"
    )
