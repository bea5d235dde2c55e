"""Teachers beside the embedded one's sight: imported segments, the text bank, the tokenizer."""

from __future__ import annotations

import gzip
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from afov.errors import InputError
from afov.sources.bags import BagSource
from afov.vocabulary import Vocabulary
from afov_train.cli import train
from afov_train.taught import TaughtSweep
from afov_train.teach import look, project, teach
from afov_train.teachers import build_teacher
from afov_train.teachers.bpe import learn_merges, write_merges
from afov_train.teachers.config import TeacherConfig
from afov_train.teachers.imported import ImportedTeacher
from afov_train.teachers.open_clip_teacher import SMALL, OpenClipTeacher
from afov_train.teachers.templates import TEMPLATES
from tests.afov_train.conftest import ALONE


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.load("nuscenes16")


@pytest.fixture(scope="module")
def seeing(vocabulary):
    return OpenClipTeacher(TeacherConfig(overlap=0.0), vocabulary)


def written(folder, vocabulary, seeing, source):
    """What docs/teacher-folder.md tells another program to write, from our own teacher's sight."""
    folder.mkdir()
    names = np.array(vocabulary.phrases)
    # Longer rows: any program's embeddings need not be of length 1.
    np.savez(folder / "text_bank.npz", phrases=names, embeddings=3 * seeing.text_bank.embeddings)
    for frame in source:
        for image, seen in zip(frame.images, look(seeing, frame), strict=True):
            (folder / image.name).mkdir(exist_ok=True)
            Image.fromarray(seen.ids).save(folder / image.name / f"{frame.token}.png")
            np.savez(
                folder / image.name / f"{frame.token}.npz",
                phrases=names[seen.phrase], scores=seen.score, features=5 * seen.feature,
            )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def folder(drive, vocabulary, seeing, tmp_path_factory):
    target = tmp_path_factory.mktemp("imported") / "segments"
    return written(target, vocabulary, seeing, BagSource(drive, every=2))


def test_imported_segments_teach_what_their_author_saw(drive, vocabulary, seeing, folder, tmp_path):
    source = BagSource(drive, every=2)
    imported = build_teacher(TeacherConfig(imported=folder), vocabulary, tmp_path / "cache")
    assert np.allclose(imported.text_bank.embeddings, seeing.text_bank.embeddings, atol=1e-6)
    files = teach(source, imported, replace(ALONE, reach=0.0), tmp_path / "teach")
    for frame, file in zip(source, files, strict=True):
        phrase, covered = project(frame, look(seeing, frame), ALONE)
        taught = TaughtSweep.load(file)
        assert np.array_equal(taught.phrase, phrase) and np.array_equal(taught.covered, covered)


def test_a_changed_folder_is_another_teacher(folder, vocabulary, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    before = ImportedTeacher(TeacherConfig(imported=copy), vocabulary).key
    assert ImportedTeacher(TeacherConfig(imported=copy), vocabulary).key == before
    png = next(copy.rglob("*.png"))
    Image.new("L", (400, 224)).save(png)
    assert ImportedTeacher(TeacherConfig(imported=copy), vocabulary).key != before


def npz(file, **change):
    with np.load(file) as data:
        content = {**data, **change}
    np.savez(file, **{k: v for k, v in content.items() if v is not None})


FAULTS = {
    "no bank": (lambda f, p, d: (f / "text_bank.npz").unlink(), "text_bank.npz: expected an npz"),
    "bank is no npz": (
        lambda f, p, d: (f / "text_bank.npz").write_bytes(b"PK\x03\x04x"),
        "text_bank.npz: expected an npz with phrases, embeddings",
    ),
    "phrases lacking": (
        lambda f, p, d: npz(f / "text_bank.npz", phrases=np.array(["x"]), embeddings=np.eye(1)),
        "phrases of the vocabulary",
    ),
    "rows lacking": (
        lambda f, p, d: npz(f / "text_bank.npz", embeddings=np.eye(3)),
        "one per phra",
    ),
    "no image": (lambda f, p, d: p.unlink(), "no readable PNG of segment ids"),
    "a JPEG": (lambda f, p, d: Image.new("L", (400, 224)).save(p, "JPEG"), "no readable PNG"),
    "a cut PNG": (lambda f, p, d: p.write_bytes(p.read_bytes()[:70]), "no readable PNG"),
    "size": (lambda f, p, d: Image.new("L", (40, 22)).save(p), r"\(22, 40\), the image has"),
    "colour": (lambda f, p, d: Image.new("RGB", (400, 224)).save(p), r"\(224, 400, 3\), the image"),
    "segment": (lambda f, p, d: Image.new("L", (400, 224), 250).save(p), "segment 250, but"),
    "described": (lambda f, p, d: d.unlink(), "expected an npz with phrases, scores, features"),
    "no scores": (lambda f, p, d: npz(d, scores=None), "expected an npz with phrases, scores"),
    "score count": (lambda f, p, d: npz(d, scores=np.ones(99)), r"scores \(99,\), expected"),
    "feature rows": (lambda f, p, d: npz(d, features=np.ones((99, 2))), "one per phrase"),
    "pickled": (lambda f, p, d: npz(d, phrases=np.array([{}], object)), "expected an npz with"),
    "phrase": (
        lambda f, p, d: npz(d, phrases=np.array(["a unicorn"]), scores=np.ones(1)),
        "phrase 'a unicorn' is in no class",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_does_not_fit_is_one_line(fault, folder, drive, vocabulary, tmp_path):
    import shutil

    spoil, said = FAULTS[fault]
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    frame = next(iter(BagSource(drive)))
    picture = copy / frame.images[0].name / f"{frame.token}.png"
    spoil(copy, picture, picture.with_suffix(".npz"))
    with pytest.raises(InputError, match=said) as caught:
        teacher = ImportedTeacher(TeacherConfig(imported=copy), vocabulary)
        look(teacher, frame)
    assert "\n" not in str(caught.value) and str(copy) in str(caught.value)


def test_imported_segments_come_in_by_the_command_line(drive, tmp_path, capsys):
    flags = ["--bag", str(drive), "--runs", str(tmp_path / "r"), "--teacher.imported", "nowhere"]
    assert train(flags) == 2
    assert "text_bank.npz: expected an npz" in capsys.readouterr().err


def test_a_phrase_is_the_mean_over_templates(seeing, vocabulary):
    """Against open_clip's own zero-shot recipe, written out for one phrase."""
    tokenizer = open_clip.SimpleTokenizer(str(SMALL / "bpe_merges.txt.gz"), context_length=20)
    tokens = tokenizer([t.format(vocabulary.phrases[5]) for t in TEMPLATES])
    with torch.no_grad():
        each = seeing.model.encode_text(tokens.to(seeing.device)).double()
    mean = (each / each.norm(dim=1, keepdim=True)).mean(0)
    expected = (mean / mean.norm()).cpu().numpy()
    assert np.allclose(seeing.text_bank.embeddings[5], expected, atol=1e-5)


def test_the_embedded_model_is_small_and_loads_like_any_other():
    size = sum(f.stat().st_size for f in SMALL.iterdir())
    assert size < 8e6
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{SMALL}")
    assert model.visual.image_size in (64, (64, 64))


def test_merges_are_learned_by_frequency_and_read_by_open_clip(tmp_path):
    texts = ["a car and a car", "a cart", "the car"] * 3
    merges = learn_merges(texts, 6)
    assert merges[0] == ("c", "a")  # in car (3 times as often) and cart
    assert ("ca", "r</w>") in merges
    write_merges(merges, tmp_path / "bpe.txt.gz")
    first = (tmp_path / "bpe.txt.gz").read_bytes()
    write_merges(merges, tmp_path / "bpe.txt.gz")
    assert first == (tmp_path / "bpe.txt.gz").read_bytes()
    assert gzip.decompress(first).decode().count("\n") == len(merges)
    tokenizer = open_clip.SimpleTokenizer(str(tmp_path / "bpe.txt.gz"), context_length=8)
    assert tokenizer.decode(tokenizer("a car")[0].tolist()[1:3]).strip() == "a car"
    assert len(tokenizer.encode("car")) == 1


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5), (2.0,)])
def test_windows_cover_images_of_any_size(vocabulary, scales):
    teacher = OpenClipTeacher(TeacherConfig(scales=scales, overlap=0.25), vocabulary)
    for height, width in ((224, 400), (100, 70), (64, 64)):
        image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
        features = teacher.features(image)
        assert torch.isfinite(features).all()
        assert torch.allclose(features.norm(dim=0), torch.ones(()), atol=1e-4)
        seen = teacher.segments(image, token="", camera="")
        assert seen.ids.shape == (height, width) and seen.ids.max() <= len(seen.phrase)
