"""Dense features of every kind of open_clip tower, on fresh weights and the real classes."""

from __future__ import annotations

import open_clip
import pytest
import torch

from afov.errors import InputError
from afov_train.teachers.dense import dense_features, places_and_window


@pytest.fixture(scope="module", autouse=True)
def seeded():
    torch.manual_seed(0)


def vit(**options):
    return open_clip.model._build_vision_tower(
        32,
        {"image_size": 64, "patch_size": 16, "width": 64, "layers": 3, "head_width": 32, **options},
    ).eval()


def convnext():
    tower = {"timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear"}
    return open_clip.model._build_vision_tower(32, {"image_size": 64, **tower}).eval()


TOWERS = {
    "class token": (vit, (4, 4)),
    "mean pooling": (lambda: vit(pool_type="avg"), (4, 4)),
    "quick gelu and no pre-norm": (lambda: vit(no_ln_pre=True), (4, 4)),
    "ConvNeXt": (convnext, (2, 2)),
}


@pytest.mark.parametrize("kind", TOWERS)
@torch.inference_mode()
def test_every_place_gets_a_vector_and_the_window_what_the_tower_says(kind):
    make, size = TOWERS[kind]
    visual, images = make(), torch.randn(3, 3, 64, 64)
    places, window = places_and_window(visual, images)
    assert places.shape == (3, 32, *size)
    assert torch.allclose(window, visual(images), atol=1e-5)
    dense = dense_features(visual, images)
    assert torch.allclose(dense.norm(dim=1), torch.ones(3, *size), atol=1e-5)


@torch.inference_mode()
def test_the_value_path_is_self_correlation_head_by_head():
    """The formula written out: softmax(q q'/sqrt d) v and softmax(k k'/sqrt d) v, halved."""
    visual = vit().double()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    places, _ = places_and_window(visual, images)
    *early, last = visual.transformer.resblocks
    x = visual._embeds(images)
    for block in early:
        x = block(x)
    x = last.ln_1(x)
    expected = torch.zeros_like(x)
    for head in range(2):
        rows = [slice(64 * part + 32 * head, 64 * part + 32 * (head + 1)) for part in range(3)]
        q, k, v = (x @ last.attn.in_proj_weight[r].T + last.attn.in_proj_bias[r] for r in rows)
        for own in (q, k):
            weights = torch.softmax(own @ own.mT / 32**0.5, dim=-1)
            expected[:, :, 32 * head : 32 * (head + 1)] += weights @ v / 2
    expected = expected @ last.attn.out_proj.weight.T + last.attn.out_proj.bias
    expected = (visual.ln_post(expected) @ visual.proj)[:, 1:].reshape(2, 4, 4, 32)
    assert torch.allclose(places.permute(0, 2, 3, 1), expected, atol=1e-10)


def test_towers_without_dense_features_are_refused():
    with pytest.raises(InputError, match="expected a vision transformer with a class token"):
        dense_features(vit(attentional_pool=True), torch.zeros(1, 3, 64, 64))
    timm_vit = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "timm_proj": "linear"}
    visual = open_clip.model._build_vision_tower(32, {"image_size": 224, **timm_vit}).eval()
    with pytest.raises(InputError, match="VisionTransformer inside timm; expected a ConvNeXt"):
        dense_features(visual, torch.zeros(1, 3, 224, 224))
