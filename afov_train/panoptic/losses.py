"""The losses of the mask decoder (2401.02402; P3Former's where it says nothing)."""

from __future__ import annotations

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, normalize, softplus

ALPHA = 0.25
GAMMA = 2.0
DICE = 2.0  # of the dice loss, focal loss 1
SPREAD = 1.0  # metres around the middle of a thing


def focal(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Focal loss of a sigmoid, element by element (Lin et al. 2017, eq. 5).

    Args:
        targets: 0 or 1.
    """
    right = logits * (2 * targets - 1)  # the logit of the truth
    weight = ALPHA * targets + (1 - ALPHA) * (1 - targets)
    return weight * (-right).sigmoid() ** GAMMA * softplus(-right)


def focal_both(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`focal` where the target is 1, and where it is 0, for a half of the exponentials."""
    p, low = logits.sigmoid(), softplus(-logits)
    return ALPHA * (1 - p) ** GAMMA * low, (1 - ALPHA) * p**GAMMA * (low + logits)


def dice(logits: torch.Tensor, masks: torch.Tensor, *, pairs: bool = False) -> torch.Tensor:
    """1 - (2 <p, m> + 1) / (|p| + |m| + 1) (Milletari et al. 2016), a mask and its own or all.

    Args:
        logits: (M, V). masks: (M, V); with `pairs` (G, V), and the result is (M, G).
    """
    p = logits.sigmoid()
    if pairs:
        common, total = p @ masks.T, p.sum(1)[:, None] + masks.sum(1)
    else:
        common, total = (p * masks).sum(1), p.sum(1) + masks.sum(1)
    return 1 - (2 * common + 1) / (total + 1)


def class_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Focal loss over all queries, divided by the number of those that answer for an object.

    Args:
        logits: (Q, K). targets: (Q, K), 1 at the class of a query's object; a row of zeros where a
            query has none.
    """
    return focal(logits, targets).sum() / targets.sum().clamp(min=1)


def mask_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Focal + 2 x dice, mean over the matched masks.

    Args:
        logits, masks: (M, V), of the labelled voxels alone; zero where there is none.
    """
    if not logits.numel():
        return logits.sum() * 0
    return focal(logits, masks).mean() + DICE * dice(logits, masks).mean()


def position_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Dice of the positional branch alone, mean over the matched masks (P3Former).

    Args:
        logits, masks: (M, V), of the labelled voxels alone.
    """
    return dice(logits, masks).mean() if len(logits) else logits.sum() * 0


def centre_loss(logits: torch.Tensor, masks: torch.Tensor, xyz: torch.Tensor) -> torch.Tensor:
    """Focal loss of which voxel is in the middle of a thing, divided by the number of things.

    A voxel's target falls off from 1, at that of its thing which lies nearest to the mean over all
    of them, as a Gaussian of one metre in the plane; |t - p|^2 is the focal weight (CenterNet's
    map, 1904.07850, with the quality focal loss, 2006.04388, eq. 6).

    Args:
        logits: (V,), of the labelled voxels alone. masks: (G, V), 0 or 1, of things.
        xyz: (V, 3), metres.
    """
    target = centre_map(masks, xyz)
    each = binary_cross_entropy_with_logits(logits, target, reduction="none")
    return ((target - logits.sigmoid()) ** 2 * each).sum() / max(1, len(masks))


def centre_map(masks: torch.Tensor, xyz: torch.Tensor) -> torch.Tensor:
    """(V,): 1 in the middle of a thing, 0 outside; arguments as in `centre_loss`."""
    if not masks.numel():
        return xyz.new_zeros(len(xyz))
    middle = masks @ xyz[:, :2] / masks.sum(1, keepdim=True)
    away = torch.cdist(middle, xyz[:, :2]).square().where(masks > 0, torch.inf)
    away = away - away.amin(1, keepdim=True)
    return torch.exp(-away / (2 * SPREAD**2)).amax(0)


def object_loss(embedding: torch.Tensor, mask: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """L_O: each class embedding towards the mean image feature inside its mask.

    mean over queries of 1 - cos; a mask is where its score exceeds 0.5. Voxels that no camera sees
    do not count, nor do masks without any other (2401.02402; the form is ours).

    Args:
        embedding: (M, E), of matched queries, unit rows. mask: (M, V) logits.
        image: (V, E), unit rows, zero where unseen.
    """
    inside = (mask.detach() > 0).to(image.dtype)
    pooled = inside @ image
    some = pooled.norm(dim=1) > 1e-3
    if not some.any():
        return embedding.sum() * 0
    return (1 - (embedding[some] * normalize(pooled[some], dim=1)).sum(1)).mean()


def unlabelled_loss(
    embedding: torch.Tensor, image: torch.Tensor, unlabelled: torch.Tensor
) -> torch.Tensor:
    """Voxels without a label keep to what cameras see there (ours).

    mean over the voxels that a camera sees of 1 - cos(e_v, f_v) where there is no label, 0 where
    there is one: nothing of it contends with what the auxiliary loss asks of the labelled.

    Args:
        embedding: (V, E), the trunk's, not normalised. image: (V, E), unit rows, zero where unseen.
        unlabelled: (V,) bool.
    """
    seen = image.norm(dim=1) > 0
    mine = seen & unlabelled
    if not mine.any():
        return embedding.sum() * 0
    cosine = (normalize(embedding[mine], dim=1) * image[mine]).sum(1)
    return (1 - cosine).sum() / seen.sum()


def voxel_loss(embedding: torch.Tensor, mask: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """L_V: the embeddings, weighted by the mask scores, reconstruct each voxel's image feature.

    mean over the voxels that a camera sees of |sum_q w_qv e_q - f_v|, L1; w is the softmax of a
    voxel's mask logits over the queries. It asks for no label, so that queries without an object
    learn to hold what is not labelled (2401.02402; the form is ours: queries compete for a voxel,
    where unnormalised scores would all fall until some embedding happens to fit).

    Args:
        embedding: (Q, E), of all queries, unit rows. mask: (Q, V) logits.
        image: (V, E), unit rows, zero where unseen.
    """
    seen = image.norm(dim=1) > 0
    if not seen.any():
        return embedding.sum() * 0
    made = mask.softmax(0).T @ embedding
    return (seen * (made - image).abs().sum(1)).sum() / seen.sum()
