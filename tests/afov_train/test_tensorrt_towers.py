"""CLIP's towers as TensorRT would get them, and ONNX Runtime where it does not; no TensorRT."""

from __future__ import annotations

import importlib.util
import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from afov.errors import InputError
from afov.runtimes import require_tensorrt
from afov.runtimes.engine import Choice, difference
from afov.runtimes.precision import typed_tower
from afov.text_tower import Prompts, TextTower
from afov.towers import OnnxTower, beside
from afov_train.teachers.config import TeacherConfig
from afov_train.teachers.image_onnx import image_tower
from afov_train.teachers.text_onnx import text_tower
from tests.afov_train.test_tensorrt import LISTED

REAL_TENSORRT = (found := importlib.util.find_spec("tensorrt")) and found.origin


@pytest.fixture(scope="module", params=["image tower", "text tower"])
def tower(request) -> tuple[bytes, np.ndarray]:
    """The embedded teacher's, and what it takes."""
    if request.param == "image tower":
        files = image_tower(TeacherConfig(), (2, 3))
        size = (files.height, files.width, 3)
        return files.onnx, np.random.default_rng(0).integers(0, 256, size, np.uint8)
    files = text_tower(TeacherConfig())
    return files.onnx, Prompts(files)("a traffic cone beside the road")


def rows(answer: np.ndarray) -> np.ndarray:
    return answer.reshape(-1, answer.shape[-1])


def test_half_floats_agree(tower):
    graph, given = tower
    half = typed_tower(graph, "fp16")
    expected = rows(OnnxTower(graph, "tower")(given))
    assert difference(rows(OnnxTower(half, "tower")(given)), expected, "fp16") < 4e-3
    # ONNX Runtime may keep float32 between two operations; the reference evaluator rounds.
    model = onnx.load_model_from_string(half)
    name = model.graph.input[0].name
    fed = given if name == "image" else given.astype(np.int32)
    (got,) = ReferenceEvaluator(model).run(None, {name: fed})
    assert got.dtype == np.float32
    assert difference(rows(got), expected, "fp16") < 8e-3
    assert typed_tower(graph, "fp32") is graph


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_graph_is_what_tensorrt_reads(tower, precision):
    graph = onnx.load_model_from_string(typed_tower(tower[0], precision)).graph
    assert {node.op_type for node in graph.node} <= LISTED - {"OneHot"}
    kinds = {t.type.tensor_type.elem_type for t in graph.input}
    assert kinds <= {TensorProto.UINT8, TensorProto.INT32}
    # The only 64-bit integers that are stored are sizes and axes.
    wide = {t.name for t in graph.initializer if t.data_type == TensorProto.INT64}
    for node in graph.node:
        for i, name in enumerate(node.input):
            shapes = i > 0 and node.op_type in ("Reshape", "Slice", "Squeeze", "Unsqueeze")
            assert name not in wide or shapes


def test_products_are_in_half_floats_and_the_rest_is_not(tower):
    model = onnx.load_model_from_string(typed_tower(tower[0], "fp16"))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output)}
    kinds |= {t.name: t.data_type for t in inferred.initializer}
    floats = {TensorProto.FLOAT, TensorProto.FLOAT16}
    for node in inferred.node:
        product = node.op_type in ("MatMul", "Conv")
        if node.op_type == "Cast":
            continue
        found = {kinds[n] for n in (*node.input, *node.output) if n in kinds} & floats
        assert found <= {TensorProto.FLOAT16 if product else TensorProto.FLOAT}
    assert len(typed_tower(tower[0], "fp16")) < 0.95 * len(tower[0])


def test_the_end_of_a_text_is_its_first_end(tower):
    """Also where it says "<end_of_text>" itself: as ArgMax in open_clip takes it."""
    graph, given = tower
    if given.dtype == np.uint8:
        pytest.skip("an image")
    twice = np.concatenate((given, given[:, -1:], given[:, :1]), 1)
    once, more = (OnnxTower(graph, "text tower")(tokens) for tokens in (given, twice))
    np.testing.assert_allclose(more, once, atol=1e-5)


@pytest.mark.skipif(bool(REAL_TENSORRT), reason="TensorRT is installed")
def test_without_tensorrt_a_tower_runs_on_onnx_runtime(caplog):
    with caplog.at_level(logging.WARNING):
        assert beside("tensorrt", require_tensorrt) is None
    assert "TensorRT is not installed" in caplog.text and "ONNX Runtime runs it" in caplog.text
    caplog.clear()
    assert beside("torch", require_tensorrt) is None and not caplog.text


@pytest.mark.skipif(not REAL_TENSORRT, reason="needs TensorRT and a GPU")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_engines_agree_with_onnx_runtime(tmp_path, precision):
    from afov.runtimes import tensorrt_towers

    image, text = image_tower(TeacherConfig(), (2, 3)), text_tower(TeacherConfig())
    choice = Choice(precision)
    for build, files in ((tensorrt_towers.image_tower, image), (tensorrt_towers.text_tower, text)):
        with pytest.raises(InputError, match="afov-export builds one"):
            build(files, tmp_path)
        build(files, tmp_path, choice)  # compared in here
    choice.save(tmp_path / "engines")
    phrases = ["car", "a man's bicycle", "x " * 90]
    on_gpu = TextTower(text, tensorrt_towers.text_tower(text, tmp_path)).embed(phrases)
    difference(on_gpu, TextTower(text).embed(phrases), precision)


def test_what_is_no_tower_is_named():
    with pytest.raises(InputError, match="image tower: cannot be opened"):
        OnnxTower(b"x", "image tower")
