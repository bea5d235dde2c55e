"""FC-CLIP's geometric ensemble (arXiv 2308.02487, section 3.3): two scores for one segment."""

from __future__ import annotations

import numpy as np

from afov.panoptic import ensemble


def geometric_ensemble(trained: np.ndarray, clip: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Trusts the trained classifier on what it was trained with, and CLIP on the rest.

    Args:
        trained: (S, P) probabilities of the trained classifier. clip: (S, P), of frozen CLIP.
        seen: (P,) bool, phrases of classes that the classifier was trained with.

    Returns:
        (S, P); rows sum to 1.
    """
    # A probability of zero would silence the other score, however sure.
    ours, theirs = (np.maximum(p.astype(np.float64), 1e-12) for p in (trained, clip))
    mixed = ensemble(ours, theirs, np.ones(len(trained), bool), seen)
    share: np.ndarray = mixed / mixed.sum(1, keepdims=True)
    return share
