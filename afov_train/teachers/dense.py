"""Dense features of a frozen CLIP image tower: one vector in CLIP space per token."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import normalize, scaled_dot_product_attention


def dense_features(visual: Any, images: torch.Tensor) -> torch.Tensor:
    """Token features, each pulled a little towards its window's pooled embedding.

    Args:
        visual: open_clip's image tower: a VisionTransformer, or a timm model.
        images: (B, 3, S, S), normalised, S the tower's own size.

    Returns:
        (B, E, h, w), unit vectors.
    """
    if hasattr(visual, "transformer") and hasattr(visual, "conv1"):
        pooled_by_mean = getattr(visual, "pool_type", "tok") == "avg"
        tokens = _all_tokens(visual, images) if pooled_by_mean else _value_path(visual, images)
        h, w = images.shape[2] // visual.patch_size[0], images.shape[3] // visual.patch_size[1]
        dense = tokens.transpose(1, 2).unflatten(2, (h, w))
        context = visual(images)
        context = context[0] if isinstance(context, tuple) else context
    elif hasattr(visual, "trunk"):
        dense, context = _trunk(visual, images)
    else:
        raise TypeError(f"{type(visual).__name__}: no dense features are known for this tower")
    dense = normalize(dense, dim=1)
    return normalize(dense + 0.3 * normalize(context, dim=1)[:, :, None, None], dim=1)


def _all_tokens(visual: Any, images: torch.Tensor) -> torch.Tensor:
    """A tower that averages tokens: each token through the final norm and the projection."""
    x = visual.transformer(visual._embeds(images))
    return visual.ln_post(x)[:, 1:] @ visual.proj


def _value_path(visual: Any, images: torch.Tensor) -> torch.Tensor:
    """A tower with a class token: in the last block, tokens attend to tokens like themselves.

    Self-correlation (q q' + k k') instead of q k', and neither shortcut nor MLP: what remains is
    each place's own value, in the space of the class token's output.
    """
    x = visual._embeds(images)
    *early, last = visual.transformer.resblocks
    for block in early:
        x = block(x)
    y = last.ln_1(x)
    attention = last.attn
    q, k, v = torch.nn.functional.linear(y, attention.in_proj_weight, attention.in_proj_bias).chunk(
        3, dim=-1
    )
    q, k, v = (t.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
    mixed = scaled_dot_product_attention(q, q, v) + scaled_dot_product_attention(k, k, v)
    mixed = (mixed / 2).transpose(1, 2).flatten(2)
    out = attention.out_proj(mixed)
    return visual.ln_post(out)[:, 1:] @ visual.proj


def _trunk(visual: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A ConvNeXt: the trunk before pooling, its norm and the projection at every place."""
    features = visual.trunk.forward_features(images)
    batch, channels, h, w = features.shape
    # Each place as an image of 1 x 1 through the tower's own pooling, norm and head.
    places = features.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)
    dense = visual.head(visual.trunk.forward_head(places))
    pooled = visual.head(visual.trunk.forward_head(features))
    return dense.reshape(batch, h, w, -1).permute(0, 3, 1, 2), pooled
