"""TensorRT on the exported graph, without a plugin.

Written against the documented API of 10.x and 11.x and checked by mypy against its stubs; whoever
has a GPU runs it with docs/tensorrt.md.
"""

from __future__ import annotations

import logging
from functools import partial

import numpy as np
import tensorrt as trt
import torch

from afov.errors import InputError
from afov.kernel_maps import KernelMaps, kernel_maps
from afov.model_folder import ModelFolder, Sample
from afov.runtimes.engine import Choice, Identity, Progress, difference, sha256, trusted_engine
from afov.runtimes.onnx_runtime import OnnxRuntime, graph_inputs
from afov.runtimes.precision import typed
from afov.runtimes.profile import Profile, fitting, profile_of, too_large

OLDEST = 10  # the first version with named tensors only and strongly typed networks
OUTPUT = "embedding"


def logged(phase: str, done: int, steps: int) -> None:
    """Progress for those who read logs: each phase once."""
    if done == 0:
        logging.getLogger(__name__).info("TensorRT: %s", phase)


class TensorRtRuntime:
    """The student as a TensorRT engine, which is built where no trusted one lies in the folder.

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
        if int(trt.__version__.split(".")[0]) < OLDEST:
            raise InputError(f"TensorRT {trt.__version__}: expected {OLDEST}.0 or newer")
        sample = model.sample
        if sample is None:
            raise InputError(
                f"{model.folder}: holds no sweep to compare an engine on; export it again with "
                "afov-train"
            )
        folder = model.folder / "engines"
        choice = choice or Choice.load(folder)
        self.profile = profile_of(model.voxels, choice.max_voxels)
        graph = typed(model.onnx, choice.precision)
        major, minor = torch.cuda.get_device_capability()
        identity = Identity(
            sha256(graph), trt.__version__, f"{major}.{minor}", choice.precision, self.profile
        )
        logger = _Logger()
        try:
            self._engine = trusted_engine(
                folder,
                identity,
                partial(build, graph, self.profile, logger, progress),
                lambda content: _Engine.started(content, self.profile, logger),
                lambda engine: _compared(engine, model, sample, identity),
            )
        except RuntimeError as error:  # CUDA's own, through torch
            raise InputError(f"TensorRT: {str(error).splitlines()[0]}") from None

    def run(self, features: np.ndarray, maps: KernelMaps) -> np.ndarray:
        """(V, C) float32 features to (V, E) float32 embeddings.

        Raises:
            InputError: the sweep has more voxels than the engine takes.
        """
        return self._engine.run(features, maps)


def build(graph: bytes, profile: Profile, logger: _Logger, progress: Progress) -> bytes:
    """A serialised engine; takes minutes.

    Raises:
        InputError: TensorRT cannot read the graph, or finds too little memory.
    """
    logging.getLogger(__name__).warning("TensorRT: an engine is built, which takes minutes")
    builder = trt.Builder(logger)
    # Precision stands in the graph. From 11 on every network is strongly typed.
    typed_flag = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed_flag if trt.__version__.startswith("10.") else 0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        raise InputError(
            f"TensorRT {trt.__version__}: cannot read the graph ({parser.get_error(0).desc()})"
        )
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # ten bits of mantissa are not float32
    monitor = _Monitor(progress)
    config.progress_monitor = monitor
    shapes = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        width = list(tensor.shape[1:])
        least, typical, most = (trt.Dims([n, *width]) for n in profile.rows(tensor.name))
        shapes.set_shape(tensor.name, least, typical, most)
    config.add_optimization_profile(shapes)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        if logger.lacks_memory:
            raise too_large(profile, logger.last)
        raise InputError(f"TensorRT {trt.__version__}: cannot build the engine ({logger.last})")
    return bytes(plan)


def _compared(engine: _Engine, model: ModelFolder, sample: Sample, identity: Identity) -> float:
    """The engine's difference from ONNX Runtime in float32, on the CPU."""
    sample = fitting(sample, identity.profile, model.shape.stem)
    maps = kernel_maps(sample.coords, model.shape.stem)
    expected = OnnxRuntime(model).run(sample.features, maps)
    return difference(engine.run(sample.features, maps), expected, identity.precision)


class _Engine:
    """An engine with its buffers: page-locked ones here, their copies on the GPU."""

    def __init__(
        self, runtime: trt.Runtime, engine: trt.ICudaEngine, profile: Profile, logger: _Logger
    ) -> None:
        # These must outlive the engine.
        self.runtime, self.logger = runtime, logger
        self.profile = profile
        self.stream = torch.cuda.Stream()
        self.here: dict[str, torch.Tensor] = {}
        self.there: dict[str, torch.Tensor] = {}
        self.engine, self.context = engine, engine.create_execution_context()
        if self.context is None:
            raise too_large(profile, logger.last)
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            rows = profile.most[0] if name == OUTPUT else profile.rows(name)[2]
            shape = (rows, *engine.get_tensor_shape(name)[1:])
            kind = torch.float32 if name in ("features", OUTPUT) else torch.int32
            self.here[name] = torch.empty(shape, dtype=kind, pin_memory=True)
            self.there[name] = torch.empty(shape, dtype=kind, device="cuda")
            self.context.set_tensor_address(name, self.there[name].data_ptr())

    @classmethod
    def started(cls, content: bytes, profile: Profile, logger: _Logger) -> _Engine | None:
        """From its bytes; None if this TensorRT does not take them."""
        runtime = trt.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            return None
        try:
            return cls(runtime, engine, profile, logger)
        except torch.cuda.OutOfMemoryError as error:
            raise too_large(profile, str(error).splitlines()[0]) from None

    def run(self, features: np.ndarray, maps: KernelMaps) -> np.ndarray:
        """(V, C) float32 to (V, E) float32."""
        self.profile.check(tuple(len(table) for table in maps.subm))
        feeds = graph_inputs(features, maps)
        with torch.cuda.stream(self.stream):
            for name in self.there.keys() - {OUTPUT}:
                rows = feeds[name]
                self.here[name][: len(rows)].numpy()[:] = rows
                self.there[name][: len(rows)].copy_(self.here[name][: len(rows)], non_blocking=True)
                if not self.context.set_input_shape(name, tuple(rows.shape)):
                    raise InputError(
                        f"TensorRT: input {name} of {rows.shape} is refused ({self.logger.last})"
                    )
            if not self.context.execute_async_v3(self.stream.cuda_stream):
                raise InputError(f"TensorRT: the sweep did not run ({self.logger.last})")
            count = len(features)
            self.here[OUTPUT][:count].copy_(self.there[OUTPUT][:count], non_blocking=True)
        self.stream.synchronize()
        # The next sweep takes the same buffer.
        return self.here[OUTPUT][:count].numpy().copy()


class _Logger(trt.ILogger):
    """Passes warnings on, and keeps the last error for the message that the user sees."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.last, self.lacks_memory = "no reason given", False

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """As TensorRT calls it, from any thread."""
        log = logging.getLogger(__name__)
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self.last = " ".join(msg.split())[:200]
            self.lacks_memory |= "memory" in msg.lower() or "workspace" in msg.lower()
            log.error(self.last)
        elif severity == trt.ILogger.WARNING:
            log.warning(msg)


class _Monitor(trt.IProgressMonitor):
    """Tells of the outer phases of a build; the many within them say little."""

    def __init__(self, progress: Progress) -> None:
        trt.IProgressMonitor.__init__(self)
        self.progress = progress
        self.steps: dict[str, int] = {}

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """A phase begins."""
        if parent_phase is None:
            self.steps[phase_name] = num_steps
            self.progress(phase_name, 0, num_steps)

    def step_complete(self, phase_name: str, step: int) -> bool:
        """A step of a phase is done; True lets the build go on."""
        if phase_name in self.steps:
            self.progress(phase_name, step + 1, self.steps[phase_name])
        return True

    def phase_finish(self, phase_name: str) -> None:
        """A phase ends, maybe before its last step."""
        steps = self.steps.pop(phase_name, None)
        if steps is not None:
            self.progress(phase_name, steps, steps)
