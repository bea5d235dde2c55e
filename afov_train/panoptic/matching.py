"""Which query answers for which object: Hungarian assignment (Carion et al. 2020)."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment

from afov_train.panoptic.losses import DICE, dice, focal_both


@torch.no_grad()
def mask_cost(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """(Q, G): focal loss + 2 x dice loss of every query's mask against every object's.

    Args:
        logits: (Q, V), of the labelled voxels alone. masks: (G, V), 0 or 1.
    """
    yes, no = focal_both(logits)
    each = (yes - no) @ masks.T + no.sum(1, keepdim=True)
    return each / max(1, logits.shape[1]) + DICE * dice(logits, masks, pairs=True)


@torch.no_grad()
def class_cost(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """(Q, G): what focal loss adds when a query takes on an object's class.

    Args:
        logits: (Q, K). classes: (G,) int64, 0..K - 1.
    """
    own = logits[:, classes]
    yes, no = focal_both(own)
    return yes - no


def assign(cost: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The cheapest assignment, each query to one object at most.

    Args:
        cost: (Q, G).

    Returns:
        queries and objects, (min(Q, G),) int64 each.
    """
    rows, columns = linear_sum_assignment(cost.detach().float().cpu().numpy())
    return tuple(torch.from_numpy(i).to(cost.device) for i in (rows, columns))  # type: ignore[return-value]
