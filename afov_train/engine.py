"""afov-export: a model folder's TensorRT engines, built where they will run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from afov.errors import InputError
from afov.model_folder import ModelFolder, read_model_folder
from afov.runtimes import require_tensorrt
from afov.runtimes.engine import Choice, Precision
from afov.runtimes.engine import Progress as Progressing
from afov.runtimes.profile import profile_of
from afov.runtimes.tower_plans import plans_in

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
    from afov.runtimes.tensorrt_tower import TensorRtTower

    with Progress() as bars:
        TensorRtNetwork(model, choice, _shown(bars, "student"))
        # Only now: a choice that cannot be built must not keep the node from the older engine.
        choice.save(model.folder / "engines")
        for plan in plans_in(model.folder):
            try:
                TensorRtTower(plan, model.folder, choice, _shown(bars, plan.what))
            except InputError as error:
                bars.print(f"{plan.what}: {error}; ONNX Runtime will run it")


def _shown(bars: Progress, what: str) -> Progressing:
    """Shows a build's phases as bars."""
    phases: dict[str, TaskID] = {}

    def show(phase: str, done: int, steps: int) -> None:
        if phase not in phases:
            phases[phase] = bars.add_task(f"{what}: {phase}", total=steps)
        bars.update(phases[phase], completed=done, total=steps)

    return show
