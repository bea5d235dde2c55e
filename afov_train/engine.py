"""afov-export: a model folder's TensorRT engines, built where they will run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from afov.errors import InputError
from afov.model_files import description_in
from afov.model_folder import ModelFolder, read_model_folder
from afov.model_parts import read_panoptic, read_text_tower
from afov.runtimes import require_tensorrt
from afov.runtimes.engine import Choice, Precision
from afov.runtimes.engine import Progress as Progressing
from afov.runtimes.profile import profile_of

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@dataclass(frozen=True)
class ExportEngine:
    """Builds TensorRT engines on this machine's GPU: the student's, and of the towers it has.

    Each is compared with ONNX Runtime before it is stored.
    """

    model: Path = Path("runs/latest/model")
    """The model folder; engines go into its engines/."""
    precision: Precision = "fp16"
    """Half floats where they do no harm, or float32 throughout."""
    max_voxels: int | None = None
    """The most voxels of a sweep, at the finest level; by default as in the training data."""

    def run(self) -> None:
        """Builds, or finds the engine that was built before; the node takes the same one.

        Raises:
            InputError: TensorRT or a GPU is missing, memory is too small, or the engine disagrees.
        """
        model = read_model_folder(self.model)
        choice = Choice(self.precision, self.max_voxels)
        profile = profile_of(model.voxels, self.max_voxels)
        require_tensorrt()
        print(
            f"{self.precision}, sweeps of up to {profile.most[0]} voxels, tuned for "
            f"{profile.typical[0]}"
        )
        _build(model, choice)
        print(f"engines: {model.folder / 'engines'}; the node takes them with runtime:=tensorrt")


def _build(model: ModelFolder, choice: Choice) -> None:
    from rich.progress import Progress

    from afov.runtimes.tensorrt_runtime import TensorRtNetwork

    with Progress() as bars:
        TensorRtNetwork(model, choice, _shown(bars, "student"))
        # Only now: a choice that cannot be built must not keep the node from the older engine.
        choice.save(model.folder / "engines")
        for what, build in _towers(model.folder).items():
            try:
                build(choice, _shown(bars, what))
            except InputError as error:
                bars.print(f"{what}: {error}; ONNX Runtime will run it")


def _towers(folder: Path) -> dict[str, Callable[[Choice, Progressing], object]]:
    """What builds the engines of the towers that a model folder has."""
    from afov.runtimes import tensorrt_towers

    towers: dict[str, Callable[[Choice, Progressing], object]] = {}
    panoptic = read_panoptic(folder)
    if panoptic is not None:
        files = panoptic.image_tower
        towers["image tower"] = partial(tensorrt_towers.image_tower, files, folder)
    if description_in(folder / "model.json").get("text_tower") is not None:
        text = read_text_tower(folder)
        towers["text tower"] = partial(tensorrt_towers.text_tower, text, folder)
    return towers


def _shown(bars: Progress, what: str) -> Progressing:
    """Shows a build's phases as bars."""
    phases: dict[str, TaskID] = {}

    def show(phase: str, done: int, steps: int) -> None:
        if phase not in phases:
            phases[phase] = bars.add_task(f"{what}: {phase}", total=steps)
        bars.update(phases[phase], completed=done, total=steps)

    return show
