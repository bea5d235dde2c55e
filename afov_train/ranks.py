"""Processes that share a training, torchrun's on one machine or many, or our own: all train, the
first does the rest."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from afov.errors import InputError

T = TypeVar("T")


def ranks() -> tuple[int, int]:
    """This process's number and how many there are; (0, 1) without torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def on_first(work: Callable[[], T]) -> T:
    """What `work` gives in the first process, told to all; they need a folder that all can read.

    Raises:
        InputError: in every process, what it raised in the first.
    """
    rank, count = ranks()
    if count == 1:
        return work()
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        # The others wait while the first one teaches, which may take days.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=timedelta(days=14))
    told: list[Any] = [None, None]
    if rank == 0:
        try:
            told[0] = work()
        except InputError as error:
            told[1] = str(error)
    dist.broadcast_object_list(told, src=0)
    if told[1] is not None:
        raise InputError(told[1])
    return told[0]


def processes(batch: int) -> dict[str, Any]:
    """Who shares a step: torchrun's processes, else every GPU, else cores.

    On CPUs every sweep of a step has a process and its threads to itself: a sparse network's
    products are too small to be shared (batch 2, two cores: 0.57 s a step against 0.93 s).
    """
    import torch

    count = ranks()[1]
    if count > 1:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return {"devices": local, "num_nodes": count // local, "strategy": "ddp"}
    cuda = torch.cuda.is_available()
    most = torch.cuda.device_count() if cuda else len(os.sched_getaffinity(0))
    count = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= most)
    return {"devices": count, "strategy": "ddp_spawn" if count > 1 else "auto"}


def end_with_parent() -> None:
    """A process that Lightning started does not outlive the one that was killed: it would go on
    writing into a folder that the next run takes up."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def threads_restored() -> Iterator[None]:
    """Lightning divides the cores between its processes and leaves it so for what comes after."""
    import torch

    threads, setting = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    yield
    torch.set_num_threads(threads)
    if setting is None:
        os.environ.pop("OMP_NUM_THREADS", None)
