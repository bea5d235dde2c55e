"""The whole method on a tiny drive: from a bag to a model folder, judged by the devkit too."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import yaml

from afov.metrics import iou
from afov.sources.bags import BagSource
from afov.student import Student
from afov.text_tower import TextTower
from afov_train.cli import train
from afov_train.config import TrainConfig
from afov_train.simulation.write_nuscenes import write_nuscenes
from afov_train.sweeps import TaughtSweeps
from afov_train.teach import TaughtSweep

STEPS = 4


@pytest.fixture(scope="module")
def tree(frames, tmp_path_factory):
    root = tmp_path_factory.mktemp("tree") / "nuscenes"
    write_nuscenes(frames, root, per_scene=2, rate=1.0)
    return root


@pytest.fixture(scope="module")
def run(drive, tree, tmp_path_factory):
    """Two processes train on the bag; the tree, the same drive, is the test."""
    runs = tmp_path_factory.mktemp("runs")
    flags = ["--bag", str(drive), "--runs", str(runs), "--teacher.overlap", "0"]
    test = ["--test.nuscenes", str(tree), "--test.split", "mini_val"]
    assert train([*flags, *test, "--distill.steps", str(STEPS)]) == 0
    return runs / "latest"


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
    taught = {f: f.stat().st_mtime_ns for f in (run / "teach").glob("*.npz")}
    assert len(taught) == 4
    flags = ["--bag", str(drive), "--run", str(run), "--teacher.overlap", "0"]
    assert train([*flags, "--test.bag", str(drive), "--distill.steps", "2"]) == 0
    assert {f: f.stat().st_mtime_ns for f in (run / "teach").glob("*.npz")} == taught
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


def test_files_come_in_rounds(run):
    """Every sweep is seen before any is seen twice."""
    config = TrainConfig()
    files = sorted((run / "teach").glob("*.npz"))
    vocabulary = Student.open(run / "model").vocabulary
    samples = TaughtSweeps(files, vocabulary, config.grid, config.network.inputs, None, 3, 8)
    sizes = sorted(len(config.grid.voxelize(TaughtSweep.load(f).sweep.xyz)) for f in files)
    for start in (0, 4):
        assert sorted(len(samples[start + i][0]) for i in range(4)) == sizes
