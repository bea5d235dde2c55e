"""Predictions in the forms that detectron2 writes, and two classifiers' scores in our own form."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from afov.errors import InputError
from afov.vocabulary import Vocabulary
from afov_train.teachers.config import TeacherConfig
from afov_train.teachers.detectron2 import CATEGORIES, PANOPTIC, SEMANTIC
from afov_train.teachers.ensemble import geometric_ensemble
from afov_train.teachers.imported import ImportedTeacher

VOCABULARY = Vocabulary.load("nuscenes16")
IMAGE = np.zeros((48, 80, 3), np.uint8)
NAMES = [VOCABULARY.phrases[3], "never heard of, " + VOCABULARY.phrases[40], "a unicorn"]
PHRASES = {0: 3, 1: 40}


@pytest.fixture
def folder(tmp_path):
    rows = np.random.default_rng(0).normal(size=(len(VOCABULARY.phrases), 8))
    np.savez(tmp_path / "text_bank.npz", phrases=np.array(VOCABULARY.phrases), embeddings=rows)
    return tmp_path


def said():
    """(48, 80) categories, -1 where nothing is said."""
    category = np.full(IMAGE.shape[:2], -1)
    category[:20], category[30:, :50], category[30:, 60:] = 0, 1, 2
    return category


def panoptic(folder):
    number = (said() + 1) * 70_000  # more than one byte holds
    colour = np.stack([number % 256, number // 256 % 256, number // 65536], 2).astype(np.uint8)
    (folder / "cam_front").mkdir()
    Image.fromarray(colour).save(folder / "cam_front/77.png")
    infos = [{"id": (k + 1) * 70_000, "category_id": k, "isthing": True} for k in range(3)]
    infos[0]["score"] = 0.25
    content = {
        "annotations": [{"file_name": "cam_front/77.png", "segments_info": infos}],
        "categories": [{"id": k, "name": name} for k, name in enumerate(NAMES)],
    }
    (folder / PANOPTIC).write_text(json.dumps(content))


def semantic(folder):
    rows = []
    for k in range(3):
        coded = coco.encode(np.asfortranarray(said() == k).astype(np.uint8))
        coded["counts"] = coded["counts"].decode()
        path = "/data/images/cam_front/77.jpg"
        rows.append({"file_name": path, "category_id": k, "segmentation": coded})
    (folder / SEMANTIC).write_text(json.dumps(rows))
    named = [{"id": k, "name": name} for k, name in enumerate(NAMES)]
    (folder / CATEGORIES).write_text(json.dumps(named))


@pytest.mark.parametrize("write", [panoptic, semantic])
def test_both_forms_say_which_phrase_a_pixel_shows(write, folder):
    write(folder)
    teacher = ImportedTeacher(TeacherConfig(imported=folder), VOCABULARY)
    seen = teacher.segments(IMAGE, token="77", camera="cam_front")
    shown = np.append(-1, seen.phrase)[seen.ids]
    expected = np.vectorize(lambda k: PHRASES.get(k, -1))(said())
    assert np.array_equal(shown, expected)
    assert seen.score.tolist() == ([0.25, 1.0] if write is panoptic else [1.0, 1.0])
    assert np.array_equal(seen.feature, teacher.text_bank.embeddings[seen.phrase])
    with pytest.raises(InputError, match="no prediction for cam_back/77"):
        teacher.segments(IMAGE, token="77", camera="cam_back")
    with pytest.raises(InputError, match=r"cam_front/77: .*\(48, 80\), the image has \(9, 9\)"):
        teacher.segments(IMAGE[:9, :9], token="77", camera="cam_front")


FAULTS = {
    "no JSON": (PANOPTIC, "{", "no readable JSON"),
    "deep": (PANOPTIC, "[" * 100_000, "no readable JSON"),
    "a list": (PANOPTIC, "[]", "not of the form"),
    "no name": (PANOPTIC, '{"annotations": [], "categories": [{"id": 1}]}', "not of the form"),
    "no categories": (SEMANTIC, "[]", "categories.json: no readable JSON"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_files_of_another_form_are_one_line(fault, folder):
    name, text, why = FAULTS[fault]
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=why) as caught:
        ImportedTeacher(TeacherConfig(imported=folder), VOCABULARY)
    assert "\n" not in str(caught.value) and name in str(caught.value) + CATEGORIES


def bomb(file):
    """A PNG that announces 400 million pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    size, crc = struct.pack(">I", 13), struct.pack(">I", zlib.crc32(chunk))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + size + chunk + crc)


@pytest.mark.parametrize("imported", [True, False])
def test_an_absurdly_large_picture_is_one_line(imported, folder):
    if imported:
        (folder / "cam_front").mkdir()
    else:
        panoptic(folder)
    bomb(folder / "cam_front/77.png")
    teacher = ImportedTeacher(TeacherConfig(imported=folder), VOCABULARY)
    with pytest.raises(InputError, match="cam_front/77"):
        teacher.segments(IMAGE, token="77", camera="cam_front")


@pytest.mark.parametrize("counts", ["", "zzzzzzzz", "~~~", 7, None])
def test_damaged_run_lengths_are_refused_or_stay_inside_the_image(counts, folder):
    semantic(folder)
    rows = json.loads((folder / SEMANTIC).read_text())
    rows[0]["segmentation"]["counts"] = counts
    (folder / SEMANTIC).write_text(json.dumps(rows))
    teacher = ImportedTeacher(TeacherConfig(imported=folder), VOCABULARY)
    try:
        seen = teacher.segments(IMAGE, token="77", camera="cam_front")
    except InputError as error:
        assert "cam_front/77" in str(error)
    else:
        assert seen.ids.shape == IMAGE.shape[:2]


def test_two_classifiers_are_weighed_as_fc_clip_does(folder):
    rng = np.random.default_rng(1)
    count = len(VOCABULARY.phrases)
    trained, clip = (rng.dirichlet(np.ones(count), 2) for _ in range(2))
    seen = np.arange(count) % 2 == 0
    ids = np.zeros(IMAGE.shape[:2], np.uint8)
    ids[:10], ids[20:] = 1, 2
    (folder / "cam_front").mkdir()
    Image.fromarray(ids).save(folder / "cam_front/77.png")
    file = folder / "cam_front/77.npz"
    usual = {"phrases": np.array(VOCABULARY.phrases[:2]), "scores": np.ones(2)}
    np.savez(file, **usual, features=np.ones((2, 8)), trained=trained, clip=clip, seen=seen)
    teacher = ImportedTeacher(TeacherConfig(imported=folder), VOCABULARY)
    got = teacher.segments(IMAGE, token="77", camera="cam_front")
    share = geometric_ensemble(trained, clip, seen)
    assert np.array_equal(got.phrase, share.argmax(1))
    owner = teacher.owner
    expected = [row[owner == owner[row.argmax()]].sum() for row in share]
    assert np.allclose(got.score, expected, atol=1e-6)
    np.savez(file, **usual, features=np.ones((2, 8)), trained=trained[:, 1:], clip=clip, seen=seen)
    with pytest.raises(InputError, match=r"trained .* expected"):
        teacher.segments(IMAGE, token="77", camera="cam_front")
