"""Supervise: sweeps taught by ground truth, for the paper's fine-tuning and probing protocols.

Nothing else in the trainer reads ground truth before evaluation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from afov.errors import InputError
from afov.frames import Frame, Source
from afov.sources.nuscenes import NuScenesSource
from afov.vocabulary import Vocabulary
from afov_train.progress import track
from afov_train.taught import NO_PHRASE, UNKNOWN_POSE, TaughtSweep
from afov_train.truth import check_truth


def supervised_sweeps(
    source: Source, vocabulary: Vocabulary, fraction: float, folder: Path
) -> list[Path]:
    """Truth as labels, for every n-th frame with truth, n = 1 / fraction (0.01: every 100th).

    Of nuScenes it is every n-th scene, as in the papers.

    Args:
        source: opened with truth.

    Raises:
        InputError: no frame has truth, it is in other classes, or the fraction is no share.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"fraction {fraction}: expected more than 0, at most 1")
    folder.mkdir(parents=True, exist_ok=True)
    every, met, files = round(1 / fraction), 0, []
    if isinstance(source, NuScenesSource):
        source, every = source.every(every), 1
    for frame in track(source, "labels", len(source)):
        if frame.truth is None:
            continue
        check_truth(source, vocabulary)
        if met % every == 0:
            file = folder / f"{frame.token}.npz"
            labelled(frame, vocabulary).save(file)
            files.append(file)
        met += 1
    if not files:
        raise InputError(f"{source.name}: no frame has ground truth to learn from")
    return files


def labelled(frame: Frame, vocabulary: Vocabulary) -> TaughtSweep:
    """A frame whose points carry the first phrase of their true class; no superpoints."""
    assert frame.truth is not None
    owner = vocabulary.phrase_class_id
    first = np.full(len(vocabulary.labelled) + 1, NO_PHRASE, np.int32)
    for class_id in range(1, len(first)):
        first[class_id] = np.flatnonzero(owner == class_id)[0]
    return TaughtSweep(
        frame.token,
        frame.sweep,
        first[frame.truth.class_id],
        np.ones(len(frame.sweep), np.float32),
        np.ones(len(frame.sweep), bool),
        np.zeros((0, 5), np.int32),
        np.zeros(0, np.int32),
        np.zeros((0, 1), np.float32),
        np.zeros((0, 2), np.int32),
        UNKNOWN_POSE,
    )
