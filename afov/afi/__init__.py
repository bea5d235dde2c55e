"""Approximate flat interaction: geometry corrects labels at inference, without training."""

from __future__ import annotations

from typing import Literal

import numpy as np

Mode = Literal["off", "paper", "refined"]


def interact(
    mode: Literal["paper", "refined"], xyz: np.ndarray, probabilities: np.ndarray
) -> np.ndarray:
    """Corrects one sweep.

    Args:
        mode: "paper": as published, on one-hot labels; "refined": ours.
        xyz: (N, 3) float32, metres, LiDAR frame; may hold NaN and infinity.
        probabilities: (N, K + 1) float32, column 0 unlabelled; rows sum to 1 or are zero.

    Returns:
        (N, K + 1) float32.
    """
    if mode == "refined":
        from afov.afi.refined import refine

        likely = probabilities.copy()
        likely[np.isfinite(xyz).all(1), 0] = 0  # what has no label says nothing
        return refine(xyz, likely)
    from afov.afi import paper

    finite = np.flatnonzero(np.isfinite(xyz).all(1))
    labels = probabilities[finite].argmax(1).astype(np.uint8)
    found = paper.interact(xyz[finite], labels, probabilities.shape[1] - 1)
    result = probabilities.copy()
    result[finite] = found.scores
    # The published AFI keeps the label of a point that nothing reaches.
    kept = finite[~found.scores.any(1)]
    result[kept] = probabilities[kept]
    return result
