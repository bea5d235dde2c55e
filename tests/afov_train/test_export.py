"""All engines give the embeddings that spconv gives; a damaged folder is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from afov.errors import InputError
from afov.frames import Sweep
from afov.model_folder import read_model_folder
from afov.runtimes import open_runtime
from afov.student import Student
from afov.text_bank import TextBank
from afov.unet import Shape
from afov_train import export
from afov_train.network.config import NetworkConfig
from afov_train.network.unet import UNet, build_network
from afov_train.student_onnx import folded
from tests.afov_train.conftest import exported, lived_in, street

SLIM_34C = Shape(5, 4, (4, 8, 8, 12, 12, 8, 8, 8), (2, 3, 4, 6, 2, 2, 2, 2))


@pytest.mark.parametrize("shape", [None, SLIM_34C])
def test_all_engines_agree(shape, tmp_path):
    network = build_network(NetworkConfig(), 24) if shape is None else UNet(shape, 3, 24)
    model = read_model_folder(exported(lived_in(network), tmp_path / "model", street()))
    assert export.check(network, model, street(seed=5)) < 1e-4
    students = [
        Student(model, open_runtime(model, name), model.text_bank)
        for name in ("native", "torch", "onnxruntime")
    ]
    a, *others = (s.label(street(seed=6)) for s in students)
    for b in others:
        near = 5e-3 if torch.cuda.is_available() else 1e-4  # torch in half floats
        assert np.abs(a.voxel_embedding - b.voxel_embedding).max() < near
        assert (a.class_id == b.class_id).mean() > 1 - 10 * near


def test_a_real_sweep_goes_through(shared, model_folder):
    raw = next((shared / "data/nuscenes-one-sample/samples/LIDAR_TOP").iterdir())
    points = np.fromfile(raw, np.float32).reshape(-1, 5)[:, :4]
    sweep = Sweep(points, ("x", "y", "z", "intensity"), 1, "lidar")
    labels = Student.open(model_folder).label(sweep)
    assert len(labels.class_id) == 34688 and labels.class_id.min() >= 1
    assert labels.embedding.shape == (34688, 24)
    assert np.allclose(np.linalg.norm(labels.embedding, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("runtime", ["native", "native16", "native8", "torch", "onnxruntime"])
def test_clouds_without_a_single_good_point_are_unlabelled(model_folder, runtime):
    student = Student.open(model_folder, runtime)
    fields = ("x", "y", "z", "intensity")
    for points in (np.zeros((0, 4), np.float32), np.full((7, 4), np.nan, np.float32)):
        labels = student.label(Sweep(points, fields, 1, "lidar"))
        assert (labels.class_id == 0).all() and (labels.score == 0).all()
        assert labels.embedding.shape == (len(points), 24)


def test_a_cloud_without_intensity_names_the_field(model_folder):
    bare = Sweep(np.ones((3, 3), np.float32), ("x", "y", "z"), 1, "lidar")
    with pytest.raises(InputError, match="no field 'intensity', which the model needs"):
        Student.open(model_folder).label(bare)


def test_absurd_intensities_leave_finite_scores(model_folder):
    sweep = street()
    sweep.points[::7, 3] = np.resize([3e38, -3e38, np.inf, np.nan], len(sweep.points[::7]))
    labels = Student.open(model_folder).label(sweep)
    assert np.isfinite(labels.score).all() and np.isfinite(labels.voxel_embedding).all()


def test_a_new_vocabulary_shares_the_network(model_folder):
    student = Student.open(model_folder)
    trained = student.label(street())
    swapped = student.text_bank.embeddings.copy()
    other = student.with_text_bank(TextBank(student.vocabulary, -swapped))
    labels = other.label(street())
    assert other.runtime is student.runtime
    assert np.array_equal(labels.voxel_embedding, trained.voxel_embedding)
    scores = (-swapped @ labels.voxel_embedding[0]).reshape(-1)
    owner = student.vocabulary.phrase_class_id
    best = max(range(1, owner.max() + 1), key=lambda k: scores[owner == k].max())
    assert labels.class_id[labels.inverse == 0][0] == best


def test_a_weight_left_over_stops_the_export():
    network = build_network(NetworkConfig(), 24)
    network.forgotten = torch.nn.Linear(2, 2)
    with pytest.raises(InputError, match=r"without a place.*forgotten"):
        folded(network)


def test_an_export_that_disagrees_writes_nothing(tmp_path, monkeypatch):
    def wrong(network):
        weights = folded(network)
        weights["head.weight"] = weights["head.weight"] * 1.01
        return weights

    monkeypatch.setattr(export, "folded", wrong)
    with pytest.raises(InputError, match="differ by"):
        exported(lived_in(build_network(NetworkConfig(), 24)), tmp_path / "model", street())
    assert not (tmp_path / "model").exists()


def test_only_standard_operators(model_folder):
    import onnx

    kinds = {n.op_type for n in onnx.load(model_folder / "student.onnx").graph.node}
    assert kinds <= {"Add", "Concat", "Gather", "Identity", "MatMul", "Relu", "Reshape"}


def edit(model_folder, change):
    data = json.loads((model_folder / "model.json").read_text())
    change(data)
    (model_folder / "model.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "student.onnx").write_bytes(b"x"), "SHA-256 is not the one"),
        (lambda f: (f / "student.safetensors").unlink(), "missing from the model folder"),
        (lambda f: (f / "model.json").unlink(), "expected a model folder"),
        (lambda f: (f / "model.json").write_text("{"), "does not describe a model"),
        (lambda f: edit(f, lambda d: d.update(format=99)), "format 99, this version reads 1"),
        (lambda f: edit(f, lambda d: d.pop("grid")), "KeyError: 'grid'"),
        (lambda f: edit(f, lambda d: d.update(embedding=5)), "embedding 5"),
        (lambda f: edit(f, lambda d: d.update(temperature=0)), "temperature 0.0"),
        (lambda f: edit(f, lambda d: d.update(inputs=["colour"])), "inputs .'colour'."),
        (lambda f: edit(f, lambda d: d.update(inputs=["z"])), "weight stem is .27, 3, 24."),
        (lambda f: edit(f, lambda d: d["shape"].update(stem=5)), "expected 125 x 3"),
        (lambda f: edit(f, lambda d: d["shape"].update(layers=[1])), "8 planes and layers"),
        (lambda f: edit(f, lambda d: d["shape"]["layers"].__setitem__(0, 2)), "encode.0.1.first"),
        (
            lambda f: edit(f, lambda d: d["shape"]["layers"].__setitem__(0, 0)),
            "first.bias has no place",
        ),
        (lambda f: edit(f, lambda d: d["grid"].update(size=[1, 1])), "expected three"),
    ],
)
def test_a_damaged_folder_is_one_clear_line(model_folder, tmp_path, damage, said):
    copy = tmp_path / "model"
    shutil.copytree(model_folder, copy)
    damage(copy)
    with pytest.raises(InputError, match=said) as caught:
        Student.open(copy)
    assert "\n" not in str(caught.value)
