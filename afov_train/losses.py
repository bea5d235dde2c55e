"""The losses of distillation: cross-entropy and Lovász-softmax (Berman et al. 2018)."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

IGNORE = 0


def lovasz_softmax(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Surrogate of 1 - IoU, mean over the classes that `labels` holds.

    Args:
        probabilities: (N, C); labels: (N,) int64.
    """
    losses = []
    for label in labels.unique():
        hit = (labels == label).to(probabilities.dtype)
        error, order = (hit - probabilities[:, label]).abs().sort(descending=True)
        losses.append(error @ _jaccard_steps(hit[order]))
    return torch.stack(losses).mean()


def _jaccard_steps(hit: torch.Tensor) -> torch.Tensor:
    """Gradient of the Lovász extension: by how much each further error lowers the IoU."""
    total = hit.sum()
    jaccard = 1 - (total - hit.cumsum(0)) / (total + (1 - hit).cumsum(0))
    return torch.cat((jaccard[:1], jaccard.diff()))


def ce_lovasz(
    logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross-entropy + Lovász-softmax, 1 : 1 (2405.15286); label 0 does not count.

    Args:
        logits: (N, C); labels: (N,) int64.
        weight: (C,) of the cross-entropy; None as in the paper.

    Returns:
        A scalar; zero, with a gradient of zero, where nothing is labelled.
    """
    known = labels != IGNORE
    if not known.any():
        return logits.sum() * 0
    logits, labels = logits[known], labels[known]
    return cross_entropy(logits, labels, weight) + lovasz_softmax(logits.softmax(1), labels)
