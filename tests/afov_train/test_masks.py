"""Masks of Hugging Face models, tiny untrained ones of the real kinds; two scores in one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afov.errors import InputError
from afov.sources.bags import BagSource
from afov.vocabulary import Vocabulary
from afov_train.config import TeachConfig
from afov_train.teach import look, project
from afov_train.teachers.config import TeacherConfig
from afov_train.teachers.ensemble import geometric_ensemble
from afov_train.teachers.masks import MaskGenerator, layered, pool
from afov_train.teachers.open_clip_teacher import OpenClipTeacher

transformers = pytest.importorskip("transformers")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sam(tmp_path_factory):
    """SAM's real parts, tiny; what it says is arbitrary, but it is sure of it."""
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_attention_heads": 2}
    vision = {
        **small, "num_hidden_layers": 1, "output_channels": 16, "image_size": 64, "patch_size": 8,
        "global_attn_indexes": [0], "mlp_dim": 32, "window_size": 0, "num_pos_feats": 8,
    }  # fmt: skip
    decoder = {"hidden_size": 16, "num_attention_heads": 2, "mlp_dim": 32, "num_hidden_layers": 1,
               "iou_head_hidden_dim": 16, "attention_downsample_rate": 1}  # fmt: skip
    prompt = {"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4}
    model = SamModel(
        SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    )
    with torch.no_grad():
        model.mask_decoder.iou_prediction_head.proj_out.bias.fill_(2.0)
        for head in model.mask_decoder.output_hypernetworks_mlps:
            head.proj_out.weight.mul_(1e9)
            head.proj_out.bias.mul_(1e9)
    folder = tmp_path_factory.mktemp("sam")
    model.save_pretrained(folder)
    sides = {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}}
    SamProcessor(SamImageProcessor(**sides, mask_size={"longest_edge": 32})).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def segformer(tmp_path_factory):
    """A model with classes of its own."""
    from transformers import (
        SegformerConfig,
        SegformerForSemanticSegmentation,
        SegformerImageProcessor,
    )

    torch.manual_seed(1)
    config = SegformerConfig(
        hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8, num_labels=5,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("segformer")
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["sam", "segformer"])
def test_masks_of_any_kind_become_segments_of_the_points(kind, drive, request):
    folder = request.getfixturevalue(kind)
    config = TeacherConfig(scales=(0.5,), overlap=0.0, masks=str(folder))
    vocabulary = Vocabulary.load("nuscenes16")
    teacher = OpenClipTeacher(config, vocabulary)
    frame = next(iter(BagSource(drive)))
    frame = replace(frame, images=frame.images[:1])
    image = frame.images[0].image
    masks = teacher.masks(image)
    assert masks.dtype == bool and masks.shape[1:] == image.shape[:2] and len(masks)
    assert (np.diff(masks.sum((1, 2))) <= 0).all(), "largest first"
    seen = teacher.segments(image, token="", camera="")
    assert len(seen.phrase) == len(seen.score) == len(seen.feature) == seen.ids.max()
    assert ((seen.ids > 0) == masks[masks.sum((1, 2)) >= config.min_pixels].any(0)).all()
    assert (seen.score > 0).all() and (seen.score <= 1 + 1e-6).all()
    # Against CLIP asked by hand, mask by mask.
    features = teacher.features(image).numpy()
    h, w = features.shape[1:]
    tall, wide = image.shape[0] // h, image.shape[1] // w
    if (h * tall, w * wide) == image.shape[:2]:
        share = masks[0].reshape(h, tall, w, wide).mean((1, 3))
        mean = (share * features).sum((1, 2))
        assert np.allclose(seen.feature[0], mean / np.linalg.norm(mean), atol=1e-4)
    phrase, covered = project(frame, look(teacher, frame), TeachConfig())
    assert (phrase[~covered] == -1).all() and (phrase >= 0).any()


def test_another_mask_model_is_another_key(sam, segformer):
    vocabulary = Vocabulary.load("nuscenes16")
    keys = {
        OpenClipTeacher(TeacherConfig(masks=m, flip=f), vocabulary).key
        for m, f in ((None, False), (None, True), (str(sam), False), (str(segformer), False))
    }
    assert len(keys) == 4


def test_a_model_that_cannot_be_opened_is_one_line(tmp_path, sam):
    (tmp_path / "config.json").write_text((sam / "config.json").read_text())
    torch.save({}, tmp_path / "pytorch_model.bin")  # a pickle is never opened
    for name in ("no/such-folder/anywhere", str(tmp_path)):
        with pytest.raises(InputError, match=r"--teacher\.masks .*cannot be opened") as caught:
            MaskGenerator(name, CPU)
        assert "\n" not in str(caught.value)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_pooling_is_the_mean_over_a_masks_pixels(seed, count):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(6, 4, 5))
    masks = rng.random((count, 12, 20)) < rng.uniform(0.05, 1)
    masks[:, 3, 3] = True
    got = pool(torch.from_numpy(features).float(), masks).numpy()
    fine = features.repeat(3, 1).repeat(4, 2)
    for row, mask in zip(got, masks, strict=True):
        mean = fine[:, mask].mean(1)
        assert np.allclose(row, mean / np.linalg.norm(mean), atol=1e-4)
    ids = layered(masks)
    assert (ids[masks[-1]] == count).all() and ((ids > 0) == masks.any(0)).all()


def test_the_mirror_image_gives_the_mirrored_answer():
    """With flips fused, an image and its mirror image are seen alike."""
    teacher = OpenClipTeacher(
        TeacherConfig(scales=(1.0,), overlap=0.0, flip=True), Vocabulary.load("nuscenes16")
    )
    image = np.random.default_rng(0).integers(0, 255, (128, 192, 3), np.uint8)
    one, other = teacher.features(image), teacher.features(image[:, ::-1])
    assert torch.allclose(one, other.flip(2), atol=1e-4)
    alone = OpenClipTeacher(
        TeacherConfig(scales=(1.0,), overlap=0.0), Vocabulary.load("nuscenes16")
    )
    assert not torch.allclose(
        alone.features(image), alone.features(image[:, ::-1]).flip(2), atol=1e-2
    )


def test_the_ensemble_trusts_training_on_seen_phrases_and_clip_on_others():
    trained, clip = np.array([[0.7, 0.2, 0.1]]), np.array([[0.1, 0.2, 0.7]])
    seen = np.array([True, True, False])
    expected = np.array([0.7**0.6 * 0.1**0.4, 0.2, 0.1**0.2 * 0.7**0.8])
    assert np.allclose(geometric_ensemble(trained, clip, seen)[0], expected / expected.sum())
    all_seen = geometric_ensemble(trained, clip, np.ones(3, bool))
    assert all_seen[0].argmax() == 0
    assert np.isfinite(geometric_ensemble(np.eye(3)[:1], clip, seen)).all()
