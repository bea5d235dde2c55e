"""afov-eval, afov-predict, afov-train finetune and probe, as people type them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
from safetensors.torch import load_file

from afov.clouds import read_points
from afov.errors import InputError
from afov.labelled_bag import SEGMENTATION
from afov.metrics import confusion
from afov.sources.bags import BagSource
from afov.student import Student
from afov.text_bank import TextBank
from afov.vocabulary import Vocabulary
from afov_train.cli import evaluate, predict, train
from afov_train.evaluate import evaluate as judged
from afov_train.supervise import labelled, supervised_sweeps
from tests.afov_train.conftest import copied


def test_eval_counts_what_the_student_says(drive, model_folder, tmp_path, capsys):
    out = tmp_path / "evaluation"
    assert evaluate(["--bag", str(drive), "--model", str(model_folder), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "student,   0-10 m" in said and f"report: {out}/report.html" in said
    report = (out / "report.html").read_text()
    # Bars, confusion matrix, three worst sweeps; nothing from the network.
    assert report.count("<img ") == 5 and report.count("% right</h3>") == 3
    assert "http" not in report and "<td>driveable_surface</td>" in report
    found = json.loads((out / "metrics.json").read_text())
    student, size = Student.open(model_folder), 16
    matrix = np.zeros((size + 1, size + 1), int)
    for frame in BagSource(drive, truth=True):
        matrix += confusion(frame.truth.class_id, student.label(frame.sweep).class_id, size)
    assert np.array_equal(found["student, all"]["confusion"], matrix)
    parts = ("student, covered", "student, uncovered")
    assert np.array_equal(sum(np.array(found[p]["confusion"]) for p in parts), matrix)
    rings = found["by distance"].values()
    assert np.array_equal(sum(np.array(r["confusion"]) for r in rings), matrix)
    assert "teacher, covered" not in found


def test_eval_does_without_cameras(drive, model_folder, tmp_path):
    bag = copied(drive, tmp_path / "blind.mcap", lambda t, d: None if "image_rect" in t else d)
    with pytest.raises(InputError, match="cameras teach"):
        BagSource(bag)
    out = tmp_path / "evaluation"
    assert evaluate(["--bag", str(bag), "--model", str(model_folder), "--out", str(out)]) == 0
    found = json.loads((out / "metrics.json").read_text())
    student, matrix = Student.open(model_folder), np.zeros((17, 17), int)
    for frame in BagSource(bag, truth=True, blind=True):
        assert not frame.images and frame.world_from_lidar is not None
        matrix += confusion(frame.truth.class_id, student.label(frame.sweep).class_id, 16)
    assert np.array_equal(found["student, all"]["confusion"], matrix) and matrix.any()


@pytest.mark.parametrize("afi", ["off", "refined"])
def test_predict_keeps_the_recording_and_labels_every_point(drive, model_folder, tmp_path, afi):
    out = tmp_path / "labelled.mcap"
    flags = ["--bag", str(drive), "--model", str(model_folder), "--out", str(out)]
    assert predict([*flags, "--afi", afi]) == 0
    with drive.open("rb") as a, out.open("rb") as b:
        before = [(c.topic, m.data) for _, c, m in make_reader(a).iter_messages()]
        after = [(c.topic, m.data) for _, c, m in make_reader(b).iter_messages()]
    assert [m for m in after if m[0] != SEGMENTATION] == before
    student = Student.open(model_folder)
    sweeps = {f.sweep.stamp: f.sweep for f in BagSource(drive)}
    with AnyReader([out], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as bag:
        wanted = [c for c in bag.connections if c.topic == SEGMENTATION]
        for connection, stamp, raw in bag.messages(connections=wanted):
            message = bag.deserialize(raw, connection.msgtype)
            sweep = sweeps.pop(stamp)
            labels = student.corrected(student.label(sweep), sweep, afi)
            points = read_points(message)
            assert message.header.frame_id == sweep.frame_id
            assert np.array_equal(
                points["class_id"], np.where(labels.class_id, labels.class_id, 255)
            )
            assert np.array_equal(points["x"], sweep.points[:, 0])
    assert not sweeps, "every sweep came back"


def test_predict_leaves_nothing_half_written(drive, model_folder, tmp_path, capsys):
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(drive.read_bytes()[:50_000])
    out = tmp_path / "labelled.mcap"
    flags = ["--model", str(model_folder), "--out", str(out)]
    assert predict(["--bag", str(cut), *flags]) == 2
    assert predict(["--bag", str(drive), "--model", str(model_folder), "--out", str(drive)]) == 2
    clouds = copied(drive, tmp_path / "bad.mcap", lambda t, d: d[:90] if t == "/lidar_top" else d)
    assert predict(["--bag", str(clouds), *flags]) == 2
    assert "no sweep could be labelled" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.mcap", "cut.mcap"]


def test_every_hundredth_frame_and_its_true_classes(drive, tmp_path):
    vocabulary = Vocabulary.load("nuscenes16")
    frames = list(BagSource(drive, truth=True))
    half = supervised_sweeps(BagSource(drive, truth=True), vocabulary, 0.5, tmp_path)
    assert [f.stem for f in half] == [frames[0].token, frames[2].token]
    taught = labelled(frames[0], vocabulary)
    assert np.array_equal(taught.class_id(vocabulary), frames[0].truth.class_id)
    with pytest.raises(InputError, match="no frame has ground truth"):
        supervised_sweeps(BagSource(drive), vocabulary, 0.5, tmp_path)
    with pytest.raises(InputError, match="fraction 2: expected more than 0"):
        supervised_sweeps(BagSource(drive, truth=True), vocabulary, 2, tmp_path)


def test_truth_in_other_classes_is_refused(drive, model_folder, tmp_path):
    """Ids of one data set would be taken for the other's."""
    other, source = Vocabulary.load("semantickitti19"), BagSource(drive, truth=True)
    student = Student.open(model_folder)
    rows = np.ones((len(other.phrases), student.text_bank.embeddings.shape[1]), np.float32)
    stranger = student.with_text_bank(TextBank(other, rows))
    wrong = "drive: its truth is in the classes of nuscenes16, which vocabulary semantickitti19"
    with pytest.raises(InputError, match=wrong):
        judged([source], stranger)
    with pytest.raises(InputError, match=wrong):
        supervised_sweeps(source, other, 1.0, tmp_path)
    renamed = replace(student.vocabulary, name="with other phrases")
    assert judged([source], student.with_text_bank(replace(student.text_bank, vocabulary=renamed)))


@pytest.mark.slow
def test_a_probe_moves_the_head_alone_and_fine_tuning_everything(drive, tmp_path, capsys):
    flags = ["--bag", str(drive), "--runs", str(tmp_path), "--training.batch", "1"]
    few = ["--training.steps", "3"]
    assert train(["finetune", *flags, *few, "--fraction", "0.5", "--run", str(tmp_path / "a")]) == 0
    weights = tmp_path / "a/finetune/network.safetensors"
    begun = ["--weights", str(weights), "--run", str(tmp_path / "b")]
    assert train(["probe", *flags, *few, *begun]) == 0
    assert len(list((tmp_path / "a/labels/0").glob("*.npz"))) == 2
    assert len(list((tmp_path / "b/labels/0").glob("*.npz"))) == 4
    a, b = (load_file(tmp_path / run / "finetune/network.safetensors") for run in "ab")
    moved = {name for name in a if not np.array_equal(a[name], b[name])}
    assert moved == {"head.weight", "head.bias"}
    assert "mIoU" in capsys.readouterr().out
    assert "losses of finetune" not in (tmp_path / "b/report.html").read_text()
    assert "learning_rate: 0.0" in (tmp_path / "b/report.html").read_text()
    other = ["--network.inputs", "intensity", "--weights", str(weights)]
    assert train(["finetune", *flags, *few, *other, "--run", str(tmp_path / "c")]) == 2
    assert "weights of another network" in capsys.readouterr().err
