"""The vehicle's text tower against open_clip and torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from afov.errors import InputError
from afov.model_folder import read_model_folder
from afov.text_bank import TextBank
from afov.text_tower import TextTower
from afov.vocabulary import Vocabulary
from afov.voxels import VoxelGrid
from afov_train.export import check_tower, export_student
from afov_train.network.config import NetworkConfig
from afov_train.network.unet import build_network
from afov_train.teachers.config import TeacherConfig
from afov_train.teachers.open_clip_teacher import load_open_clip
from afov_train.teachers.templates import TEMPLATES
from afov_train.teachers.text import embed_phrases
from afov_train.teachers.text_onnx import text_tower, tower_files
from tests.afov_train.conftest import exported, street

PHRASES = ["traffic cone", "a man's bicycle", "Straße", "chair", "x " * 90]
VISION = {"layers": 1, "width": 16, "head_width": 8, "patch_size": 16, "image_size": 32}


@pytest.fixture(scope="module")
def small() -> tuple[Any, Any]:
    model, _, tokenizer = load_open_clip(TeacherConfig())
    return model, tokenizer


@pytest.fixture(scope="module")
def folder(small: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with the embedded teacher's text tower."""
    vocabulary = Vocabulary.load("nuscenes16")
    rows = embed_phrases(*small, vocabulary.phrases, TEMPLATES)
    return export_student(
        build_network(NetworkConfig(), rows.shape[1]),
        config=NetworkConfig(),
        grid=VoxelGrid(),
        text_bank=TextBank(vocabulary, rows),
        temperature=0.05,
        provenance={},
        sweep=street(),
        folder=tmp_path_factory.mktemp("tower") / "model",
        text_tower=text_tower(TeacherConfig()),
    )


def test_phrases_are_embedded_as_the_teacher_embeds_them(
    small: tuple[Any, Any], folder: Path
) -> None:
    tower = TextTower.open(folder)
    expected = embed_phrases(*small, PHRASES, TEMPLATES)
    np.testing.assert_allclose(tower.embed(PHRASES), expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(tower.embed(PHRASES), axis=1), 1, atol=1e-6)


def test_the_trained_vocabulary_comes_out_as_its_text_bank(folder: Path) -> None:
    bank = read_model_folder(folder).text_bank
    made = TextTower.open(folder).text_bank(bank.vocabulary)
    np.testing.assert_allclose(made.embeddings, bank.embeddings, atol=1e-5)


def test_where_tensorrt_has_no_engine_onnx_runtime_embeds(folder: Path) -> None:
    on_gpu = TextTower.open(folder, "tensorrt")
    assert np.array_equal(on_gpu.embed(PHRASES), TextTower.open(folder).embed(PHRASES))


@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize("quick", [False, True])
def test_other_clip_text_towers_are_exported_too(quick: bool, custom: bool) -> None:
    torch.manual_seed(0)
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 3}
    text |= {"ls_init_value": 0.5} if custom else {}
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    model = kind(24, VISION, text, quick_gelu=quick).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    tokenizer = open_clip.tokenizer.SimpleTokenizer()
    tower = TextTower(tower_files(model, tokenizer, ("{}", "one {}.")))
    expected = embed_phrases(model, tokenizer, PHRASES, ("{}", "one {}."))
    np.testing.assert_allclose(tower.embed(PHRASES), expected, atol=1e-4)


def test_a_text_tower_of_another_kind_is_refused() -> None:
    text = {"context_length": 9, "vocab_size": 99, "width": 8, "heads": 1, "layers": 1}
    model = open_clip.CLIP(8, VISION, text | {"pool_type": "last"})
    with pytest.raises(InputError, match="not CLIP's transformer"):
        tower_files(model, open_clip.tokenizer.SimpleTokenizer(), TEMPLATES)


def test_a_tower_that_does_not_make_the_text_bank_is_not_exported() -> None:
    tower = text_tower(TeacherConfig())
    vocabulary = Vocabulary.load("nuscenes16")
    rows = np.random.default_rng(0).normal(size=(len(vocabulary.phrases), 96)).astype(np.float32)
    with pytest.raises(InputError, match="apart"):
        check_tower(tower, TextBank(vocabulary, rows))
    with pytest.raises(InputError, match="96 wide, the text bank 95"):
        check_tower(tower, TextBank(vocabulary, rows[:, :95]))


def test_an_imported_teacher_brings_no_tower(capsys: pytest.CaptureFixture[str]) -> None:
    assert text_tower(TeacherConfig(imported=Path("segments"))) is None
    assert "no text tower" in capsys.readouterr().err


def test_a_folder_without_a_tower_opens_and_says_what_is_missing(tmp_path: Path) -> None:
    model_folder = exported(build_network(NetworkConfig(), 24), tmp_path / "model", street())
    assert read_model_folder(model_folder).text_bank.vocabulary.name == "nuscenes16"
    with pytest.raises(InputError, match="no text tower, so its vocabulary cannot change"):
        TextTower.open(model_folder)


@pytest.mark.parametrize("name", ["text_tower.onnx", "bpe_merges.txt"])
def test_a_changed_tower_is_refused_and_the_student_still_opens(name: str, folder: Path) -> None:
    file = folder / name
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:-1])
        read_model_folder(folder)
        with pytest.raises(InputError, match=rf"{name}.*SHA-256"):
            TextTower.open(folder)
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize("templates", [[], ["a photo"], ["a {}.", "{0.__class__}"]])
def test_prompts_without_a_place_for_the_phrase_are_refused(
    templates: list[str], folder: Path
) -> None:
    file = folder / "model.json"
    whole = file.read_text()
    about = json.loads(whole)
    about["text_tower"]["templates"] = templates
    try:
        file.write_text(json.dumps(about))
        with pytest.raises(InputError, match=r"model\.json: no text tower .*templates"):
            TextTower.open(folder)
    finally:
        file.write_text(whole)


@pytest.mark.parametrize(
    ("phrases", "message"),
    [([], "no phrase"), ([" "], "1 to 200"), (["car", "x" * 201], "1 to 200")],
)
def test_what_is_no_phrase_is_refused(folder: Path, phrases: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TextTower.open(folder).embed(phrases)


def test_a_vehicle_needs_neither_torch_nor_open_clip(folder: Path) -> None:
    code = (
        "import sys; from afov.text_tower import TextTower;"
        f"print(TextTower.open({str(folder)!r}).embed(['car']).shape[1]);"
        "print(sorted({'torch', 'open_clip', 'ftfy', 'regex'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    width = json.loads((folder / "model.json").read_text())["embedding"]
    assert out.stdout.split("\n")[:2] == [str(width), "[]"]
