"""The mask decoder: attention stays inside masks, gradients flow, cameras are optional."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from afov_train.panoptic.config import PAPER, DecoderConfig
from afov_train.panoptic.decoder import (
    APART,
    CANDIDATES,
    REACH,
    Decoder,
    Layer,
    allowed,
    proposals,
)

SMALL = DecoderConfig(width=16, layers=2, proposals=4, queries=5, heads=2, feedforward=32)


def layer(config=SMALL):
    torch.manual_seed(0)
    return Layer(config).eval().double()


def by_hand(layer, queries, voxels, inside):
    """Masked attention with loops over heads and queries, voxels outside simply left out."""
    cross, width = layer.cross, queries.shape[1]
    heads = cross.num_heads
    wq, wk, wv = cross.in_proj_weight.chunk(3)
    bq, bk, bv = cross.in_proj_bias.chunk(3)
    rows = []
    for q, chosen in zip(queries, inside, strict=True):
        seen = voxels[chosen]
        parts = []
        for h in range(heads):
            own = slice(h * width // heads, (h + 1) * width // heads)
            score = (seen @ wk.T + bk)[:, own] @ (wq @ q + bq)[own] / (width // heads) ** 0.5
            weight = torch.exp(score - score.max())
            parts.append((weight / weight.sum()) @ (seen @ wv.T + bv)[:, own])
        rows.append(cross.out_proj(torch.cat(parts)))
    return torch.stack(rows)


def test_queries_attend_inside_their_masks_alone():
    one = layer()
    generator = torch.Generator().manual_seed(1)
    queries = torch.randn(5, 16, generator=generator, dtype=torch.float64)
    voxels = torch.randn(40, 16, generator=generator, dtype=torch.float64)
    inside = torch.rand(5, 40, generator=generator) > 0.7
    got, _ = one.cross(queries, voxels, voxels, attn_mask=~inside, need_weights=False)
    assert torch.allclose(got, by_hand(one, queries, voxels, inside), atol=1e-12)
    # What lies outside of every mask changes nothing at all.
    spoilt = voxels.clone()
    spoilt[~inside.any(0)] = 1e3
    assert (~inside.any(0)).any()
    assert torch.equal(one(queries, voxels, inside), one(queries, spoilt, inside))


def test_an_empty_mask_looks_everywhere():
    mask = torch.tensor([[-1.0, 2.0, -3.0], [-1.0, -2.0, 0.0]])
    assert allowed(mask).tolist() == [[False, True, False], [True, True, True]]


def sweep(voxels=60, embedding=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    image = torch.nn.functional.normalize(torch.randn(voxels, embedding, generator=g), dim=1)
    image[::3] = 0
    xyz = torch.randn(voxels, 3, generator=g) * 20
    return torch.randn(voxels, embedding, generator=g), image, xyz


def test_every_layer_answers_and_every_weight_learns():
    torch.manual_seed(0)
    decoder = Decoder(SMALL, 12, 3, 0.07)
    predictions = decoder(*sweep())
    assert len(predictions) == 1 + SMALL.layers
    for p in predictions:
        assert p.embedding.shape == (4 + 5 + 3, 12) and p.mask.shape == p.position.shape == (12, 60)
        assert torch.allclose(p.embedding.norm(dim=1), torch.ones(12), atol=1e-5)
    cosine = predictions[-1].embedding @ torch.randn(12, 4)
    centre = decoder.voxels(*sweep()).centre
    loss = decoder.logits(cosine).sum() + predictions[-1].mask.square().sum() + centre.sum()
    loss.backward()
    for name, weight in decoder.named_parameters():
        # The bias of the keys shifts all scores of a query alike, which softmax ignores.
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_proposals_are_the_best_of_their_surroundings():
    """Against a loop: the likeliest first, none within a metre of a likelier candidate."""
    rng = np.random.default_rng(2)
    xyz, centre = rng.uniform(-10, 10, (300, 3)), rng.permutation(300) / 10.0
    best = sorted(range(300), key=lambda v: -centre[v])[:CANDIDATES]
    free = [
        v for i, v in enumerate(best)
        if all(np.linalg.norm(xyz[v, :2] - xyz[u, :2]) >= APART for u in best[:i])
    ]  # fmt: skip
    got = proposals(torch.from_numpy(centre), torch.from_numpy(xyz), 20)
    assert got.tolist() == sorted(free[:20]) and len(free) > 20


def test_few_voxels_make_as_many_proposals():
    got = proposals(torch.tensor([0.0, 2.0, 1.0]), torch.eye(3) * 9, 7)
    assert len(got) == 7 and set(got.tolist()) == {0, 1, 2}


def test_a_proposal_holds_nothing_far_away():
    """With nothing learned on top, half a logit is lost REACH metres away, and so on squared."""
    decoder = Decoder(SMALL, 12, 0, 0.07)
    for layer in (decoder.outline[-1], decoder.locate[-1]):
        torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
    embedding, image, xyz = sweep()
    with torch.inference_mode():
        voxels = decoder.voxels(embedding, image, xyz)
        mask = decoder.decode(voxels)[0].mask
    for row, seat in zip(mask, proposals(voxels.centre, xyz, 4), strict=False):
        away = (xyz - xyz[seat])[:, :2].norm(dim=1)
        assert torch.allclose(row, -0.5 * (away / REACH) ** 2, rtol=1e-4, atol=1e-4)
    assert not mask[4:].any(), "learned queries are nowhere"


def test_a_mask_is_features_and_places_added():
    decoder = Decoder(SMALL, 12, 0, 0.07)
    rows = sweep()
    with torch.inference_mode():
        p, voxels = decoder(*rows)[0], decoder.voxels(*rows)
        outline = decoder.outline(decoder.queries) @ voxels.features.T
    # Of the learned queries; the others have a place besides.
    assert torch.allclose((p.mask - p.position)[4:], outline, atol=1e-4)


def test_the_azimuth_does_not_jump_behind_the_vehicle():
    decoder = Decoder(SMALL, 12, 0, 0.07)
    left, right = (torch.tensor([[-20.0, y, 0.0]]) for y in (1e-4, -1e-4))
    assert torch.allclose(decoder.places(left), decoder.places(right), atol=1e-4)
    assert torch.isfinite(decoder.places(torch.zeros(1, 3))).all()


def test_without_fusion_images_do_not_matter_and_with_it_they_do():
    embedding, image, xyz = sweep()
    for fusion in (False, True):
        torch.manual_seed(0)
        decoder = Decoder(replace(SMALL, fusion=fusion), 12, 0, 0.07).eval()
        with torch.inference_mode():
            a, b = (decoder(embedding, i, xyz)[-1].mask for i in (image, torch.zeros_like(image)))
        assert torch.equal(a, b) != fusion


def test_the_paper_s_decoder_has_the_paper_s_numbers():
    decoder = Decoder(PAPER, 768, 6, 0.07)
    assert decoder.queries.shape == (128 + 6, 256) and len(decoder.layers) == 6
    assert decoder.layers[0].feedforward[0].out_features == 2048


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"heads": 3}, "multiple of 3 heads"),
        ({"heads": 0}, "heads 0: expected 1 or more"),
        ({"width": -64}, "width -64: expected 1 or more"),
        ({"layers": -1}, "layers -1: expected 1 or more"),
        ({"proposals": CANDIDATES + 1}, "proposals 257: expected 0 to 256"),
        ({"proposals": -1}, "proposals -1: expected 0 to 256"),
        ({"queries": -1}, "queries -1: expected 0 or more"),
        ({"queries": 0, "proposals": 0}, "queries 0: expected 0 or more, 1 without proposals"),
    ],
)
def test_numbers_that_make_no_decoder_are_refused(wrong, said):
    """Before hours of preparing, not after them."""
    with pytest.raises(ValueError, match=said):
        DecoderConfig(**wrong)


def test_the_order_of_voxels_does_not_matter():
    """But for the order of the queries that begin at them."""
    torch.manual_seed(0)
    decoder = Decoder(SMALL, 12, 1, 0.07).eval()
    rows = sweep(voxels=500)
    order = torch.from_numpy(np.random.default_rng(0).permutation(500))
    with torch.inference_mode():
        a = decoder(*rows)[-1]
        b = decoder(*(r[order] for r in rows))[-1]
        before, after = (
            proposals(decoder.voxels(*r).centre, r[2], SMALL.proposals)
            for r in (rows, tuple(r[order] for r in rows))
        )
    place = [order[after].tolist().index(v) for v in before]
    place += range(len(place), len(a.mask))
    assert torch.allclose(a.embedding, b.embedding[place], atol=1e-4)
    assert torch.allclose(a.mask[:, order], b.mask[place], atol=1e-3, rtol=1e-4)
