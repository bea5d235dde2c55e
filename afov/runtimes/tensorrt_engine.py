"""Engines of TensorRT: built, started, run on what lies on the GPU. No plugin.

Written against the documented API of 10.x and 11.x and checked by mypy against its stubs; whoever
has a GPU runs it with docs/tensorrt.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import tensorrt as trt
import torch

from afov.errors import InputError
from afov.runtimes.engine import Identity, Precision, Progress, sha256, trusted_engine
from afov.runtimes.profile import Ranges, Size

OLDEST = (10, 1)  # the first whose contexts take memory of a stated size
Run = Callable[[dict[str, torch.Tensor]], torch.Tensor]


class NoMemory(InputError):
    """The GPU has too little memory for an engine."""


def logged(phase: str, done: int, steps: int) -> None:
    """Progress for those who read logs: each phase once."""
    if done == 0:
        logging.getLogger(__name__).info("TensorRT: %s", phase)


def open_engine(
    folder: Path,
    graph: bytes,
    precision: Precision,
    ranges: Ranges,
    compare: Callable[[Engine], float],
    progress: Progress = logged,
    *,
    may_build: bool = True,
) -> Engine:
    """The trusted engine of a graph, built where none lies in the model folder.

    Args:
        folder: the model folder. graph: ONNX, typed in that precision.
        compare: a new engine's difference from ONNX Runtime; an InputError refuses it.
        progress: hears of a build's phases. may_build: False refuses where there is no engine.

    Raises:
        InputError: TensorRT is too old, the engine cannot be built, needs more memory than there
            is, or disagrees with ONNX Runtime.
    """
    if tuple(map(int, trt.__version__.split(".")[:2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise InputError(f"TensorRT {trt.__version__}: expected {oldest} or newer")
    major, minor = torch.cuda.get_device_capability()
    identity = Identity(sha256(graph), trt.__version__, f"{major}.{minor}", precision, ranges)
    logger = _Logger()
    build = partial(_build, graph, ranges, logger, progress)
    try:
        return trusted_engine(
            folder / "engines",
            identity,
            build if may_build else _unbuilt,
            lambda content: Engine.started(content, logger),
            compare,
        )
    except torch.cuda.OutOfMemoryError as error:
        raise NoMemory(f"TensorRT: {str(error).splitlines()[0]}") from None
    except RuntimeError as error:  # CUDA's own, through torch
        raise InputError(f"TensorRT: {str(error).splitlines()[0]}") from None


class Engine:
    """An engine with one output, in float32; contexts of it share their scratch memory.

    So only one of them may run at a time.
    """

    def __init__(self, runtime: trt.Runtime, engine: trt.ICudaEngine, logger: _Logger) -> None:
        # These must outlive the engine.
        self.runtime, self.logger = runtime, logger
        self.engine = engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self.inputs = {n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT}
        (self.output,) = set(names) - self.inputs
        self.scratch = torch.empty(
            max(engine.device_memory_size_v2, 1), dtype=torch.uint8, device="cuda"
        )

    @classmethod
    def started(cls, content: bytes, logger: _Logger) -> Engine | None:
        """From its bytes; None if this TensorRT does not take them."""
        runtime = trt.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(content)
        return None if engine is None else cls(runtime, engine, logger)

    def prepared(self) -> Run:
        """The engine as a function of its inputs on the GPU, over the current stream.

        One for each set of shapes that a CUDA graph holds: a graph is no longer valid when the
        context that it was captured from runs with other shapes.
        """
        context = self.engine.create_execution_context(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        if context is None:
            raise NoMemory(f"TensorRT: no memory for a context ({self.logger.last})")
        context.set_device_memory(self.scratch.data_ptr(), self.scratch.numel())

        def run(feeds: dict[str, torch.Tensor]) -> torch.Tensor:
            for name in self.inputs:
                given = feeds[name]
                if not context.set_input_shape(name, tuple(given.shape)):
                    raise InputError(
                        f"TensorRT: input {name} of {tuple(given.shape)} is refused "
                        f"({self.logger.last})"
                    )
                context.set_tensor_address(name, given.data_ptr())
            out = torch.empty(
                _size(context.get_tensor_shape(self.output)), dtype=torch.float32, device="cuda"
            )
            context.set_tensor_address(self.output, out.data_ptr())
            if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
                raise InputError(f"TensorRT: the engine did not run ({self.logger.last})")
            return out

        return run


def _unbuilt() -> bytes:
    raise InputError("TensorRT: no engine of it that fits; afov-export builds one")


def _build(graph: bytes, ranges: Ranges, logger: _Logger, progress: Progress) -> bytes:
    """A serialised engine; takes minutes."""
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
        sizes = ranges.of(tensor.name, _size(tensor.shape))
        least, typical, most = (trt.Dims(list(size)) for size in sizes)
        shapes.set_shape(tensor.name, least, typical, most)
    config.add_optimization_profile(shapes)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        kind = NoMemory if logger.lacks_memory else InputError
        raise kind(f"TensorRT {trt.__version__}: cannot build the engine ({logger.last})")
    return bytes(plan)


def _size(dims: trt.Dims) -> Size:
    return tuple(dims[i] for i in range(len(dims)))


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
