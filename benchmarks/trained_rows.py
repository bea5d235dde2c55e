"""Tables whose rows are trained: a core to each row, mean and spread over seeds."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch


def side_by_side(jobs: Sequence[Callable[[], None]]) -> None:
    """As many at once as there are cores, in their order, each in one process on one core.

    Two trainings on a core each take six tenths of the time of two on both.
    """
    context, available = multiprocessing.get_context("spawn"), sorted(os.sched_getaffinity(0))
    cores = context.Queue()
    for core in available:
        cores.put(core)
    with ProcessPoolExecutor(len(available), context, _take_core, (cores,)) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()


def _take_core(cores: Any) -> None:
    """This process keeps to one core, on which all sweeps of a step are trained one by one."""
    os.sched_setaffinity(0, {cores.get()})
    torch.set_num_threads(1)


def mean_and_spread(figures: np.ndarray) -> str:
    """(S, F), one row per seed, as cells of a Markdown table: mean and standard deviation."""
    pairs = zip(np.nanmean(figures, 0), np.nanstd(figures, 0), strict=True)
    return " | ".join(f"{mean:.1f} ± {spread:.1f}" for mean, spread in pairs)
