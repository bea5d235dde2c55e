"""A head shortened to what it can say gives the same labels and embeddings as the whole one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from afov.model_folder import ModelFolder
from afov.native import integers, library
from afov.runtimes import open_runtime
from afov.short_head import shortened
from afov.student import Student
from afov.text_bank import TextBank
from afov.unet import Shape
from afov.voxels import VoxelGrid
from afov_train.network.unet import UNet
from afov_train.student_onnx import folded, graph
from tests.afov_train.conftest import bank, lived_in, street

SHAPE = Shape(3, 8, (8, 16, 16, 16, 16, 16, 8, 13), (1, 1, 1, 1, 1, 1, 1, 1))
RUNTIMES = ["torch", "onnxruntime"]
RUNTIMES += ["native"] if library() is not None else []
RUNTIMES += ["native16", "native8"] if integers() else []


def model(width):
    network = lived_in(UNet(SHAPE, 3, width)).eval()
    weights = folded(network)
    onnx = graph(SHAPE, weights, 3).SerializeToString()
    names = ("intensity", "rho", "z")
    return ModelFolder(None, onnx, weights, SHAPE, VoxelGrid(), names, bank(width), 0.07, {})


@pytest.mark.parametrize("name", RUNTIMES)
def test_labels_and_embeddings_are_those_of_the_whole_head(name):
    whole = model(64)
    short = Student.of(whole, name)
    expected = Student(whole, open_runtime(whole, name), whole.text_bank).label(street())
    got = short.label(street())
    assert got.rows.shape[1] == (64 if name == "onnxruntime" else 14)
    near = {"native16": 2e-3, "native8": 5e-2}.get(name, 1e-5)
    if name == "torch" and torch.cuda.is_available():  # in half floats
        near = 5e-3
    assert np.abs(got.voxel_embedding - expected.voxel_embedding).max() < near
    assert got.embedding.shape == (len(street()), 64)
    assert np.abs(got.score - expected.score).max() < 10 * near
    assert (got.class_id == expected.class_id).mean() > 0.995
    corrected = (s.corrected(x, street(), "refined") for s, x in ((short, got), (short, expected)))
    same = [c.class_id for c in corrected]
    assert (same[0] == same[1]).mean() > 0.98


def test_another_vocabulary_is_taken_at_once():
    student = Student.of(model(64), "torch")
    mirrored = TextBank(student.vocabulary, -student.text_bank.embeddings)
    labels = student.with_text_bank(mirrored).label(street())
    best, _ = mirrored.classify(labels.voxel_embedding.copy(), 0.07)
    known = labels.inverse >= 0
    assert np.array_equal(labels.class_id[known], best[labels.inverse[known]])


def test_a_narrow_clip_space_is_left_alone():
    narrow = model(10)
    assert shortened(narrow) == (narrow, None)
