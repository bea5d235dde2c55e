"""afov-export: a model folder's TensorRT engine, built where it will run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from afov.model_folder import ModelFolder, read_model_folder
from afov.runtimes import require_tensorrt
from afov.runtimes.engine import Choice, Precision
from afov.runtimes.profile import profile_of


@dataclass(frozen=True)
class ExportEngine:
    """Builds a TensorRT engine on this machine's GPU, compares it with ONNX Runtime, stores it."""

    model: Path = Path("runs/latest/model")
    """The model folder; the engine goes into its engines/."""
    precision: Precision = "fp16"
    """Half floats between the stem and the head, or float32 throughout."""
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
        # Only now: a choice that cannot be built must not keep the node from the older engine.
        choice.save(model.folder / "engines")
        print(f"engine: {model.folder / 'engines'}; the node takes it with runtime:=tensorrt")


def _build(model: ModelFolder, choice: Choice) -> None:
    from rich.progress import Progress, TaskID

    from afov.runtimes.tensorrt_runtime import TensorRtNetwork

    with Progress() as bars:
        phases: dict[str, TaskID] = {}

        def show(phase: str, done: int, steps: int) -> None:
            if phase not in phases:
                phases[phase] = bars.add_task(phase, total=steps)
            bars.update(phases[phase], completed=done, total=steps)

        TensorRtNetwork(model, choice, show)
