"""The teacher sees, its segments reach the points, and what was seen is kept."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from afov.errors import InputError
from afov.metrics import confusion
from afov.sources.bags import BagSource
from afov.vocabulary import Vocabulary
from afov_train.config import AugmentConfig, TeachConfig, TrainConfig
from afov_train.settle import spread
from afov_train.sweeps import TaughtSweeps, collate
from afov_train.taught import TaughtSweep
from afov_train.teach import disputed, teach
from afov_train.teachers import build_teacher
from afov_train.teachers.config import TeacherConfig
from afov_train.teachers.open_clip_teacher import OpenClipTeacher


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.load("nuscenes16")


@pytest.fixture(scope="module")
def taught(drive, vocabulary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    teacher = build_teacher(TeacherConfig(overlap=0.0), vocabulary, folder / "teacher")
    return teacher, teach(BagSource(drive), teacher, TeachConfig(), folder / "teach")


def test_the_embedded_teacher_labels_points_of_unseen_streets(taught, drive, vocabulary):
    """Images of half the size it learned from, and still most points are right."""
    matrix = np.zeros((17, 17), int)
    for frame, file in zip(BagSource(drive, truth=True), taught[1], strict=True):
        seen = TaughtSweep.load(file)
        labelled = seen.covered & (seen.phrase >= 0)
        class_id = seen.class_id(vocabulary)
        matrix += confusion(frame.truth.class_id[labelled], class_id[labelled], 16)
    assert np.trace(matrix[1:, 1:]) / matrix[1:].sum() > 0.6


def test_an_interrupted_run_goes_on(taught, drive, tmp_path):
    """With the files there, the teacher is not asked again; a torn one is made anew."""
    teacher, files = taught
    kept = sorted(teacher.folder.glob("*.npz"))
    assert len(kept) == 24
    kept[0].write_bytes(b"torn")
    asked = []
    honest = teacher.teacher.segments

    class Counting:
        def segments(self, image, **names):
            asked.append(names)
            return honest(image, **names)

    whole, teacher.teacher = teacher.teacher, Counting()
    again = teach(BagSource(drive), teacher, TeachConfig(), tmp_path / "teach")
    teacher.teacher = whole
    assert len(asked) == 1
    for a, b in zip(files, again, strict=True):
        assert np.array_equal(TaughtSweep.load(a).phrase, TaughtSweep.load(b).phrase)


def test_samples_are_the_same_for_the_same_seed(taught, vocabulary):
    config = TrainConfig()
    sets = [
        TaughtSweeps(
            taught[1], vocabulary, config.grid, config.network.inputs, AugmentConfig(), seed, 4
        )
        for seed in (1, 1, 2)
    ]
    a, b, c = (collate([s[0], s[3]]) for s in sets)
    assert all((x == y).all() for x, y in zip(a, b, strict=True))
    assert len(a[0]) != len(c[0]) or not (a[0] == c[0]).all()
    assert a[1][:, 0].unique().tolist() == [0, 1] and len(a[0]) == len(a[1]) == len(a[2])


def test_weights_that_are_not_there_name_the_flag(vocabulary, tmp_path):
    with pytest.raises(InputError, match=r"--teacher\.weights .*no such file"):
        OpenClipTeacher(TeacherConfig("ViT-B-32", weights=tmp_path / "none.pt"), vocabulary)
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    config = TeacherConfig("ViT-B-32", weights=tmp_path / "bad.safetensors")
    with pytest.raises(InputError, match=r"cannot be loaded .*pass --teacher\.weights FILE"):
        OpenClipTeacher(config, vocabulary)


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "sim", "export"])
def test_help_is_there_at_once(command):
    code = (
        "import sys\n"
        f"from afov_train.cli import {command}\n"
        f"try: {command}(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'onnxruntime', 'rosbags', 'nuscenes'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--config" in done.stdout
    for other in ("finetune", "probe", "panoptic"):
        assert (f"afov-train {other}" in done.stdout) == (command == "train")


def test_points_that_no_camera_sees_take_their_neighbours_label():
    xyz = np.array(
        [[5, 0, -2], [5, 0, 1], [4, 0, -2], [4, 0, 0.9], [1, 0, -2], [4, 0.1, -2], [np.nan, 0, 0]]
    )
    phrase = np.array([3, 8, -1, -1, -1, -1, -1], np.int32)
    covered = np.array([1, 1, 0, 0, 0, 1, 0], bool)
    got = spread(xyz, phrase, covered, 2.0)
    # Ground from ground, the upper from the upper; too far, seen but unlabelled, not finite: none.
    assert got.tolist() == [3, 8, 3, 8, -1, -1, -1]
    assert spread(xyz, phrase, covered, 0.0).tolist() == phrase.tolist()
    nothing = np.full(7, -1, np.int32)
    assert spread(xyz, nothing, covered, 2.0).tolist() == nothing.tolist()


def test_cameras_that_disagree_label_nothing(vocabulary):
    owner = vocabulary.phrase_class_id
    car, car_too = np.flatnonzero(owner == 4)[:2]
    road = np.flatnonzero(owner == 11)[0]
    sky = np.flatnonzero(owner == 0)[0]
    segments = np.array([car, car_too, road, sky])
    seen = [(0, 0), (0, 1), (1, 0), (1, 2), (2, 3), (3, 2), (3, 3)]  # point, segment
    pairs = np.array([[p, 0, 0, 0, s] for p, s in seen])
    # Two words for a car agree; car and road do not, nor do sky and road; point 4 nobody sees.
    assert disputed(pairs, segments, vocabulary, 5).tolist() == [False, True, False, True, False]
