"""The whole method on a tiny drive: from a bag to a model folder, judged by the devkit too."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import yaml

from afov.metrics import iou
from afov.sources.bags import BagSource
from afov.student import Student
from afov.text_tower import TextTower
from afov_train.cli import train
from afov_train.config import TrainConfig
from afov_train.sweeps import TaughtSweeps
from afov_train.taught import TaughtSweep

STEPS = 4


@pytest.fixture(scope="module")
def run(drive, tree, tmp_path_factory):
    """Two processes train on the bag; the tree, the same drive, is the test."""
    runs = tmp_path_factory.mktemp("runs")
    flags = ["--bag", str(drive), "--runs", str(runs), "--teacher.overlap", "0"]
    test = ["--test.nuscenes", str(tree), "--test.split", "mini_val"]
    assert train([*flags, *test, "--distill.steps", str(STEPS)]) == 0
    return runs / "latest"


def settled(run):
    """The labels on which sweeps agreed, and when each file was written."""
    files = (f for f in (run / "teach").glob("*/*.npz") if f.parent.name != "projected")
    return {f: f.stat().st_mtime_ns for f in files}


def test_the_run_folder_says_what_it_was_run_with(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["distill"]["steps"] == STEPS and config["teacher"]["overlap"] == 0
    assert "torch" in json.loads((run / "versions.json").read_text())
    rows = list(csv.reader((run / "metrics.csv").open()))
    assert rows[0][1:] == [
        "teacher, covered", "student, covered", "student, uncovered", "student, all",
        "+ AFI, all",
    ]  # fmt: skip
    assert [r[0].split()[0] for r in rows[-3:]] == ["mIoU", "mIoU", "accuracy"]


def test_the_devkit_agrees_on_our_predictions(run):
    ours = json.loads((run / "metrics.json").read_text())["student, all"]
    theirs = json.loads((run / "nuscenes/mini_val.json").read_text())
    assert theirs["miou"] == pytest.approx(ours["mIoU"], abs=1e-6)
    per_class = [v for k, v in theirs["iou_per_class"].items() if k != "ignore"]
    assert np.allclose(per_class, iou(np.array(ours["confusion"])), atol=1e-6, equal_nan=True)


def test_the_model_folder_embeds_its_own_vocabulary(run):
    bank = Student.open(run / "model").text_bank
    made = TextTower.open(run / "model").text_bank(bank.vocabulary)
    assert np.allclose(made.embeddings, bank.embeddings, atol=1e-4)


def test_the_model_folder_labels_the_drive(run, drive):
    student = Student.open(run / "model")
    frame = next(iter(BagSource(drive)))
    labels = student.label(frame.sweep)
    assert labels.class_id.min() >= 1 and labels.class_id.max() <= 16
    assert student.model.provenance["recording"] == "drive"


def test_a_run_taken_up_again_teaches_nothing_twice(run, drive, tree, capsys):
    taught = settled(run)
    assert len(taught) == 4
    flags = ["--bag", str(drive), "--run", str(run), "--teacher.overlap", "0"]
    assert train([*flags, "--test.bag", str(drive), "--distill.steps", "2"]) == 0
    assert settled(run) == taught
    assert "nuscenes-devkit" not in capsys.readouterr().out


def test_without_truth_there_is_a_model_and_no_evaluation(run, drive, tmp_path, capsys):
    from tests.afov_train.conftest import copied

    real = copied(drive, tmp_path / "r.mcap", lambda t, d: None if t.startswith("/truth") else d)
    flags = ["--bag", str(real), "--runs", str(tmp_path / "runs"), "--teacher.overlap", "0"]
    assert train([*flags, "--distill.steps", "1", "--distill.batch", "1"]) == 0
    said = capsys.readouterr()
    assert "not evaluated: r: no frame has ground truth" in said.out
    assert "It cannot know the real\nworld" in said.err
    assert (tmp_path / "runs/latest/model/model.json").is_file()


def test_stages_run_one_by_one_and_say_what_is_done_already(drive, run, tmp_path, capsys):
    """Rehearsed, taught, pre-trained, distilled and judged in five calls, each after the last."""
    shutil.copytree(run / "teacher", tmp_path / "r/teacher")
    flags = ["--bag", str(drive), "--run", str(tmp_path / "r"), "--teacher.overlap", "0"]
    steps = ["--pretrain.steps", "1", "--pretrain.batch", "1", "--distill.steps", "1"]
    left = {}
    for until in ("rehearse", "teach", "pretrain", "distill", "evaluate"):
        assert train([*flags, *steps, "--distill.batch", "1", "--until", until]) == 0
        left[until] = {f.name for f in (tmp_path / "r").iterdir()}
        assert "rehearsal: every stage works on two frames" in capsys.readouterr().out
    assert left["rehearse"] == {"teacher", "config.yaml", "versions.json"}
    assert left["teach"] - left["rehearse"] == {"teach"}
    assert left["pretrain"] - left["teach"] == {"pretrain"}
    assert left["distill"] - left["pretrain"] == {"distill"}
    assert {"model", "metrics.csv", "report.html"} <= left["evaluate"]
    weights = {s: (tmp_path / "r" / s / "network.safetensors").stat().st_mtime_ns
               for s in ("pretrain", "distill")}  # fmt: skip
    assert train([*flags, *steps, "--distill.batch", "1"]) == 0
    said = capsys.readouterr().out
    for stage in weights:
        assert f"{stage}: done before with the same sweeps and settings" in said
        assert (tmp_path / "r" / stage / "network.safetensors").stat().st_mtime_ns == weights[stage]
    other = ["--teach.keep", "0.8", "--until", "pretrain"]
    assert train([*flags, *steps, "--distill.batch", "1", *other]) == 0
    assert "done before" not in capsys.readouterr().out, "other labels are another training"


@pytest.mark.slow
def test_a_second_round_learns_from_labels_in_which_the_first_had_a_say(run, drive, capsys):
    """And one taken up again neither answers nor trains twice."""
    flags = ["--bag", str(drive), "--run", str(run), "--teacher.overlap", "0"]
    steps = ["--distill.steps", "1", "--distill.batch", "1", "--until", "distill"]
    before = settled(run)
    assert train([*flags, *steps, "--rounds", "2"]) == 0
    said = capsys.readouterr().out
    (joined,) = (run / "teach/joined").iterdir()
    assert len(settled(run)) == len(before) + 4
    assert said.count("taught 4 sweeps") == 2
    first = Student.open(run / "distill-1/model")
    taught = TaughtSweep.load(next(joined.iterdir()))
    assert first.label(taught.sweep).class_id.shape == taught.phrase.shape
    written = {f: f.stat().st_mtime_ns for f in (*joined.iterdir(), *settled(run))}
    assert train([*flags, *steps, "--rounds", "2"]) == 0
    assert capsys.readouterr().out.count("distill: done before") == 2
    assert {f: f.stat().st_mtime_ns for f in written} == written


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--distill.precision", "bf16"], "precision bf16: needs a GPU"),
        (["--distill.wandb"], "wandb: not installed"),
        (["--test.bag", "no.mcap"], "no.mcap"),
        (["--distill.temperature", "nan"], "rehearsal: distillation gives a loss of nan"),
    ],
)
def test_what_would_fail_later_fails_before_teaching(drive, run, tmp_path, flags, why, capsys):
    shutil.copytree(run / "teacher", tmp_path / "r/teacher")
    usual = ["--bag", str(drive), "--run", str(tmp_path / "r"), "--teacher.overlap", "0"]
    assert train([*usual, *flags]) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "r/teach").exists()


def test_files_come_in_rounds(run):
    """Every sweep is seen before any is seen twice."""
    config = TrainConfig()
    files = sorted((run / "teach/projected").glob("*.npz"))
    vocabulary = Student.open(run / "model").vocabulary
    samples = TaughtSweeps(files, vocabulary, config.grid, config.network.inputs, None, 3, 8)
    sizes = sorted(len(config.grid.voxelize(TaughtSweep.load(f).sweep.xyz)) for f in files)
    for start in (0, 4):
        assert sorted(len(samples[start + i][0]) for i in range(4)) == sizes


def test_several_recordings_are_one_training(run, drive, tree, tmp_path, capsys):
    """Two bags and a tree; the answers that the run already has are not asked for again."""
    other = tmp_path / "other.mcap"
    other.write_bytes(drive.read_bytes())
    flags = ["--bag", str(drive), str(other), "--nuscenes", str(tree), "--run", str(run)]
    short = ["--teacher.overlap", "0", "--distill.steps", "1", "--test.bag", str(drive), str(other)]
    assert train([*flags, *short]) == 0
    said = capsys.readouterr().out
    for name in ("drive", "other", "nuscenes-v1.0-mini"):
        assert f"taught 4 sweeps of {name}: " in said
    assert "IoU in %, 8 sweeps" in said
    recording = Student.open(run / "model").model.provenance["recording"]
    assert recording == "drive, other, nuscenes-v1.0-mini"
    assert len(list((run / "teach/projected").glob("*.npz"))) == 12
