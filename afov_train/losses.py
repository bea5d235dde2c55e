"""The losses: TMP's contrast of superpoints (2405.15286, section 3.2) and distillation's
cross-entropy + Lovász-softmax (Berman et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, embedding_bag, nll_loss, normalize

IGNORE = 0


def lovasz_softmax(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Surrogate of 1 - IoU, mean over the classes that `labels` holds.

    Args:
        probabilities: (N, C); labels: (N,) int64.
    """
    met = labels.bincount().nonzero()[:, 0]
    hit = (labels == met[:, None]).to(probabilities.dtype)
    error = (hit - probabilities.T.index_select(0, met)).abs()
    # Piecewise linear: a gradient passes the errors alone, not the steps that weigh them.
    steps = torch.empty_like(hit)
    for row, of_class, weights in zip(error.detach(), hit, steps, strict=True):
        order = _falling(row)
        weights.scatter_(0, order, _jaccard_steps(of_class.index_select(0, order)))
    return (error * steps).sum() / len(met)


def _falling(values: torch.Tensor) -> torch.Tensor:
    """(N,) int64: the order from the largest down, of equal ones the first; values of 0 or more."""
    if values.device.type != "cpu" or values.dtype != torch.float32:
        return values.argsort(descending=True, stable=True)
    # Floats from 0 on are ordered as their bits, and NumPy sorts 16 bits by radix: twice that
    # takes a tenth of torch's time.
    bits = ~values.numpy().view(np.uint32)
    by_low = np.argsort(bits.astype(np.uint16), kind="stable")
    by_high = np.argsort((bits >> 16).astype(np.uint16)[by_low], kind="stable")
    return torch.from_numpy(by_low[by_high])


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
    known = (labels != IGNORE).nonzero()[:, 0]
    if not len(known):
        return logits.sum() * 0
    # index_select: its gradient goes row by row, that of logits[known] number by number.
    log, labels = logits.index_select(0, known).log_softmax(1), labels[known]
    return nll_loss(log, labels, weight) + lovasz_softmax(log.exp(), labels)


def best_cosine(
    embeddings: torch.Tensor, text: torch.Tensor, phrases: Sequence[int]
) -> torch.Tensor:
    """(V, K): the cosine of each class's nearest phrase, of equally near ones the first.

    Args:
        embeddings: (V, E), of any length.
        text: (P, E), unit rows, class after class. phrases: how many each class has.
    """
    # In 32 bits under AMP, too: cosines of a class's phrases differ by little.
    with torch.autocast(embeddings.device.type, enabled=False):
        cosine: torch.Tensor = _BestCosine.apply(embeddings.to(text.dtype), text, phrases)
    return cosine


class _BestCosine(torch.autograd.Function):
    """The gradient of a cosine t . e / |e| is (t - cosine e / |e|) / |e|.

    It is that of the nearest phrase alone: no gradient of all phrases' scores is ever made.
    """

    @staticmethod
    def forward(
        ctx: Any, embeddings: torch.Tensor, text: torch.Tensor, phrases: Sequence[int]
    ) -> torch.Tensor:
        # A phrase's scores lie side by side: the best is found of all voxels at once.
        best = [scores.max(0) for scores in (text @ embeddings.T).split(list(phrases))]
        first = np.cumsum(phrases) - phrases
        nearest = torch.stack([b.indices + int(f) for b, f in zip(best, first, strict=True)], 1)
        length = embeddings.norm(dim=1, keepdim=True).clamp_min(1e-12)
        cosine = torch.stack([b.values for b in best], 1) / length
        ctx.save_for_backward(embeddings, text, nearest, length, cosine)
        return cosine

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        embeddings, text, nearest, length, cosine = ctx.saved_tensors
        gradient = (gradient / length).contiguous()
        to_text = embedding_bag(nearest, text, per_sample_weights=gradient, mode="sum")
        along = (gradient * cosine).sum(1, keepdim=True) / length
        return to_text.addcmul_(embeddings, along, value=-1), None, None


def superpoint_means(
    embeddings: torch.Tensor, voxel: torch.Tensor, segment: torch.Tensor, segments: int
) -> torch.Tensor:
    """(S, E): the mean embedding of each superpoint's voxels, not normalised again.

    Args:
        embeddings: (V, E), unit rows.
        voxel, segment: (M,) int64, pairs; a voxel may lie in several superpoints.
    """
    sums = embeddings.new_zeros(segments, embeddings.shape[1])
    # index_select: the gradient of embeddings[voxel] adds up in whatever order threads come.
    sums = sums.index_add(0, segment, embeddings.index_select(0, voxel))
    count = torch.bincount(segment, minlength=segments).to(embeddings.dtype)
    return sums / (count + 1e-6)[:, None]


def soft_targets(text: torch.Tensor, category: torch.Tensor, phrase: torch.Tensor) -> torch.Tensor:
    """(S, P): 0.2 on a segment's own phrase, 0.8 shared by likeness within its category.

    Rows sum to 1; entries may be negative, as in the official code.

    Args:
        text: (P, E), unit rows. category: (P,) int64. phrase: (S,) int64.
    """
    likeness = text @ text.T * (category[:, None] == category)
    target = 0.2 * torch.eye(len(text), dtype=text.dtype, device=text.device) + 0.8 * likeness
    return (target / target.sum(1, keepdim=True))[phrase]


def tmp_losses(
    superpoints: torch.Tensor,
    feature: torch.Tensor,
    text: torch.Tensor,
    category: torch.Tensor,
    phrase: torch.Tensor,
    temperature: float = 0.07,
) -> tuple[torch.Tensor, torch.Tensor]:
    """L_image and L_text of tri-modal contrastive pre-training.

    Args:
        superpoints: (S, E), of `superpoint_means`, all superpoints of the batch.
        feature: (S, E), each one's image feature. phrase: (S,) int64, each one's phrase.
        text: (P, E), embeddings of all phrases. category: (P,) int64, each phrase's class.

    Returns:
        Point to image: every superpoint against all image features of the batch; point to text:
        against all phrases. Means over the superpoints.
    """
    image, text = normalize(feature, dim=1), normalize(text, dim=1)
    own = torch.arange(len(superpoints), device=superpoints.device)
    to_image = cross_entropy(superpoints @ image.T / temperature, own)
    target = soft_targets(text, category, phrase)
    to_text = -(target * (superpoints @ text.T / temperature).log_softmax(1)).sum(1).mean()
    return to_image, to_text
