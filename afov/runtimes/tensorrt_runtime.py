"""The student's network as a TensorRT engine, for `afov.device.runtime`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from afov.device.runtime import embedding
from afov.errors import InputError
from afov.kernel_maps import KernelMaps, kernel_maps
from afov.model_folder import ModelFolder
from afov.runtimes.engine import Choice, Progress, difference
from afov.runtimes.onnx_runtime import OnnxRuntime, graph_inputs
from afov.runtimes.precision import typed
from afov.runtimes.profile import fitting, profile_of, too_large
from afov.runtimes.tensorrt_engine import Engine, NoMemory, logged, open_engine


class TensorRtNetwork:
    """The exported graph on TensorRT; its inputs are taken where they lie on the GPU.

    Args:
        choice: precision and size; None = what afov-export was told.
        progress: hears of a build's phases.

    Raises:
        InputError: TensorRT is too old, the engine cannot be built, needs more memory than there
            is, or disagrees with ONNX Runtime on the model folder's sweep.
    """

    name = "tensorrt"

    def __init__(
        self, model: ModelFolder, choice: Choice | None = None, progress: Progress = logged
    ) -> None:
        if model.sample is None:
            raise InputError(
                f"{model.folder}: holds no sweep to compare an engine on; export it again with "
                "afov-train"
            )
        choice = choice or Choice.load(model.folder / "engines")
        self.device, self.width = torch.device("cuda"), model.text_bank.embeddings.shape[1]
        self.profile = profile_of(model.voxels, choice.max_voxels)
        stem = model.shape.stem
        sample = fitting(model.sample, self.profile, stem)

        def compare(engine: Engine) -> float:
            """Its difference from ONNX Runtime in float32, on the CPU."""
            self._engine = engine
            expected = OnnxRuntime(model).run(sample.features, kernel_maps(sample.coords, stem))
            got = embedding(self, sample.features, sample.coords, stem)
            return difference(got, expected, choice.precision)

        try:
            graph = typed(model.onnx, choice.precision)
            self._engine = open_engine(
                model.folder, graph, choice.precision, self.profile, compare, progress
            )
        except NoMemory as error:
            raise too_large(self.profile, str(error)) from None

    def sizes(self, counts: tuple[int, ...]) -> tuple[int, ...]:
        """Rows per level for a sweep with so many voxels, padding included.

        Raises:
            InputError: the sweep has more voxels than the engine takes.
        """
        self.profile.check(counts)
        padded = self.profile.padded(counts)
        return tuple(min(size, most) for size, most in zip(padded, self.profile.most, strict=True))

    def prepared(self) -> Callable[[torch.Tensor, KernelMaps[torch.Tensor]], torch.Tensor]:
        """The network as a function of features and maps, for the shapes of one CUDA graph."""
        run = self._engine.prepared()
        return lambda features, maps: run(graph_inputs(features, maps))
