"""Processes that torchrun started, on one machine or many: all train, the first does the rest."""

from __future__ import annotations

import os
from collections.abc import Callable
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
