"""Dense features of a frozen CLIP image tower: one vector in CLIP space per token."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import linear, normalize, scaled_dot_product_attention

from afov.errors import InputError

Dense = tuple[torch.Tensor, torch.Tensor]
WINDOW = 0.3  # how much of its window's embedding each place takes on


def dense_features(visual: Any, images: torch.Tensor) -> torch.Tensor:
    """Token features, each pulled a little towards its window's pooled embedding.

    Args:
        visual: open_clip's image tower: a VisionTransformer, or a timm ConvNeXt.
        images: (B, 3, S, S), normalised, S the tower's own size.

    Returns:
        (B, E, h, w), unit vectors.

    Raises:
        InputError: a tower of another kind.
    """
    places, window = places_and_window(visual, images)
    places = normalize(places, dim=1)
    return normalize(places + WINDOW * normalize(window, dim=1)[:, :, None, None], dim=1)


def places_and_window(visual: Any, images: torch.Tensor) -> Dense:
    """(B, E, h, w), a vector for each place, and (B, E), the tower's own answer for the window."""
    if hasattr(visual, "conv1") and getattr(visual, "attn_pool", None) is None:
        tokens = _mean_of_tokens if getattr(visual, "pool_type", "tok") == "avg" else _value_path
        flat, window = tokens(visual, images)
        size = [s // p for s, p in zip(images.shape[2:], visual.patch_size, strict=True)]
        return flat.transpose(1, 2).unflatten(2, size), window
    if hasattr(visual, "trunk"):
        return _trunk(visual, images)
    raise InputError(
        f"no dense features are known for a {type(visual).__name__} of this kind; expected a "
        "vision transformer with a class token or mean pooling, or a ConvNeXt"
    )


def _mean_of_tokens(visual: Any, images: torch.Tensor) -> Dense:
    """A tower that averages tokens: each token through the final norm and the projection."""
    x = visual.ln_post(visual.transformer(visual._embeds(images)))[:, 1:] @ visual.proj
    return x, x.mean(1)


def _value_path(visual: Any, images: torch.Tensor) -> Dense:
    """A tower with a class token: in the last block, tokens attend to tokens like themselves.

    Self-correlation (q q' + k k') instead of q k', and neither shortcut nor MLP: what remains is
    each place's own value, in the space of the class token's output.
    """
    x = visual._embeds(images)
    *early, last = visual.transformer.resblocks
    for block in early:
        x = block(x)
    attention = last.attn
    projected = linear(last.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = (
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for part in projected.chunk(3, dim=-1)
    )
    mixed = scaled_dot_product_attention(q, q, v) + scaled_dot_product_attention(k, k, v)
    own = attention.out_proj((mixed / 2).transpose(1, 2).flatten(2))
    places = visual.ln_post(own)[:, 1:] @ visual.proj
    return places, visual.ln_post(last(x)[:, 0]) @ visual.proj


def _trunk(visual: Any, images: torch.Tensor) -> Dense:
    """A ConvNeXt: the trunk before pooling, its norm and the projection at every place."""
    features = visual.trunk.forward_features(images)
    if features.ndim != 4:
        raise InputError(
            f"no dense features are known for a {type(visual.trunk).__name__} inside timm; "
            "expected a ConvNeXt"
        )
    batch, channels, h, w = features.shape
    # Each place as an image of 1 x 1 through the tower's own pooling, norm and head.
    single = features.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)
    places = visual.head(visual.trunk.forward_head(single))
    window = visual.head(visual.trunk.forward_head(features))
    return places.reshape(batch, h, w, -1).permute(0, 3, 1, 2), window
