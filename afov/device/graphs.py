"""Work on tensors whose shapes recur: recorded as a CUDA graph per shape, replayed from then on.

A graph starts all kernels of a sweep at once, where torch would start some hundred one by one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import torch

Work = Callable[..., tuple[torch.Tensor, ...]]
KEPT = 12  # graphs, the last used ones
RECORDING = threading.Lock()  # torch records one graph at a time in a process
WARM = 2  # runs before a recording, in which libraries choose kernels and take their memory


class Replayed:
    """A function of tensors that is recorded for every new set of shapes.

    On a CPU it runs on the same buffers, unrecorded.

    Args:
        prepare: gives the function for one set of shapes; TensorRT needs a context for each.
        graphs: False runs it unrecorded on CUDA as well, to see what graphs are worth.
    """

    def __init__(
        self, prepare: Callable[[], Work], device: torch.device, *, graphs: bool = True
    ) -> None:
        self.prepare = prepare
        self.records = graphs and device.type == "cuda"
        # Only one of these graphs runs at a time, so they may share their memory.
        self.pool = torch.cuda.graph_pool_handle() if self.records else None
        self.kept: dict[tuple[torch.Size, ...], _Recorded] = {}

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the function gives; it stays valid until the next call.

        Args:
            inputs: on the device, always of the same types.
        """
        shapes = tuple(tensor.shape for tensor in inputs)
        recorded = self.kept.pop(shapes, None) or _Recorded(self.prepare(), inputs, self.pool)
        self.kept[shapes] = recorded
        if len(self.kept) > KEPT:
            self.kept.pop(next(iter(self.kept)))
        return recorded.replay(inputs)


class _Recorded:
    """The function over buffers of its own, for one set of shapes.

    Args:
        pool: torch's handle of the graphs' memory; None = do not record.
    """

    def __init__(self, work: Work, inputs: tuple[torch.Tensor, ...], pool: Any) -> None:
        self.work = work
        self.inputs = tuple(tensor.clone() for tensor in inputs)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.outputs: tuple[torch.Tensor, ...] = ()
        if pool is not None:
            try:
                self._record(pool)
            except RuntimeError as error:  # CUDA's own, through torch
                self.graph = None
                line = str(error).splitlines()[0]
                logging.getLogger(__name__).warning("no CUDA graph (%s); it runs without", line)

    def replay(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """The function of these inputs."""
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        if self.graph is None:
            return self.work(*self.inputs)
        self.graph.replay()
        return self.outputs

    def _record(self, pool: Any) -> None:
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(WARM):
                self.work(*self.inputs)
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile: somebody asks for embeddings.
        with RECORDING, torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            self.outputs = self.work(*self.inputs)
        self.graph = graph
