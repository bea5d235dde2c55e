"""CLIP's towers as TensorRT would get them, and ONNX Runtime where it does not; no TensorRT."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from afov.errors import InputError
from afov.model_parts import TOWER_FILES, write_text_tower
from afov.runtimes.engine import Choice, Identity, sha256, trusted_engine
from afov.runtimes.tower_plans import TowerPlan, plans_in
from afov.towers import OnnxTower, beside
from afov_train.teachers.config import TeacherConfig
from afov_train.teachers.image_onnx import image_tower
from afov_train.teachers.text_onnx import text_tower
from tests.afov_train.test_tensorrt import LISTED

REAL_TENSORRT = (found := importlib.util.find_spec("tensorrt")) and found.origin


@pytest.fixture(scope="module", params=["image tower", "text tower"])
def plan(request) -> TowerPlan:
    """The embedded teacher's."""
    if request.param == "image tower":
        return TowerPlan.of(image_tower(TeacherConfig(), (2, 3)))
    return TowerPlan.of(text_tower(TeacherConfig()))


class Rounding:
    """The graph with onnx's reference evaluator, which rounds after every operation."""

    def __init__(self, graph: bytes) -> None:
        model = onnx.load_model_from_string(graph)
        self.name = model.graph.input[0].name
        self.kind = OnnxTower(graph, "tower").kind
        self.evaluator = ReferenceEvaluator(model)

    def __call__(self, array: np.ndarray) -> np.ndarray:
        (answer,) = self.evaluator.run(None, {self.name: array.astype(self.kind)})
        assert answer.dtype == np.float32
        return answer


def test_half_floats_agree(plan):
    half = plan.graph("fp16")
    assert plan.difference(OnnxTower(half, "tower"), "fp16") < 4e-3
    short = replace(plan, samples=plan.samples[-1:])
    assert short.difference(Rounding(half), "fp16") < 8e-3
    assert plan.graph("fp32") is plan.onnx


class Engines:
    """TensorRT's place taken by ONNX Runtime: an engine is the typed graph, built and counted."""

    def __init__(self, plan, folder, precision="fp16"):
        self.plan, self.folder, self.precision, self.built = plan, folder, precision, 0
        graph = sha256(plan.graph(precision))
        self.identity = Identity(graph, "10.13.0", "8.7", precision, plan.ranges)

    def build(self):
        self.built += 1
        return self.plan.graph(self.precision)

    def trusted(self):
        return trusted_engine(
            self.folder, self.identity, self.build, self.start,
            lambda run: self.plan.difference(run, self.precision),
        )  # fmt: skip

    def start(self, content):
        return OnnxTower(content, self.plan.what)


def test_an_engine_is_compared_once_and_taken_while_it_is_whole(plan, tmp_path):
    engines = Engines(plan, tmp_path)
    first = engines.trusted()(plan.samples[0])
    file = tmp_path / engines.identity.file
    said = json.loads(file.with_suffix(".json").read_text())
    assert said["difference"] < 4e-3
    assert np.array_equal(engines.trusted()(plan.samples[0]), first) and engines.built == 1
    file.write_bytes(file.read_bytes()[:-1])
    engines.trusted()
    assert engines.built == 2


def test_an_engine_that_sees_something_else_is_refused(plan, tmp_path):
    engines = Engines(plan, tmp_path, "fp32")
    engines.start = lambda content: lambda given: OnnxTower(content, "tower")(given) * 1.01
    with pytest.raises(InputError, match=f"relative on the {plan.what}, .* was not stored"):
        engines.trusted()
    assert not list(tmp_path.iterdir())


def test_the_towers_of_a_folder_are_found(model_folder, tmp_path):
    assert plans_in(model_folder) == []
    shutil.copytree(model_folder, tmp_path / "model")
    described = tmp_path / "model/model.json"
    data = json.loads(described.read_text())
    data["text_tower"] = write_text_tower(text_tower(TeacherConfig()), tmp_path / "model")
    for name in TOWER_FILES:
        data["sha256"][name] = sha256((tmp_path / "model" / name).read_bytes())
    described.write_text(json.dumps(data))
    (plan,) = plans_in(tmp_path / "model")
    assert plan.what == "text tower" and plan.ranges.context == 20


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_graph_is_what_tensorrt_reads(plan, precision):
    graph = onnx.load_model_from_string(plan.graph(precision)).graph
    assert {node.op_type for node in graph.node} <= LISTED - {"OneHot"}
    kinds = {t.type.tensor_type.elem_type for t in graph.input}
    assert kinds <= {TensorProto.UINT8, TensorProto.INT32}
    # The only 64-bit integers that are stored are sizes and axes.
    wide = {t.name for t in graph.initializer if t.data_type == TensorProto.INT64}
    for node in graph.node:
        for i, name in enumerate(node.input):
            shapes = i > 0 and node.op_type in ("Reshape", "Slice", "Squeeze", "Unsqueeze")
            assert name not in wide or shapes


def test_products_are_in_half_floats_and_the_rest_is_not(plan):
    model = onnx.load_model_from_string(plan.graph("fp16"))
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
    assert len(plan.graph("fp16")) < 0.95 * len(plan.onnx)


def test_the_end_of_a_text_is_its_first_end():
    """Also where one comes later: open_clip takes the first of the highest ids."""
    plan = TowerPlan.of(text_tower(TeacherConfig()))
    tokens = plan.samples[0]
    twice = np.concatenate((tokens, tokens[:, -1:], tokens[:, :1]), 1)
    once, more = (plan.reference()(t) for t in (tokens, twice))
    np.testing.assert_allclose(more, once, atol=1e-5)


@pytest.mark.skipif(bool(REAL_TENSORRT), reason="TensorRT is installed")
def test_without_tensorrt_a_tower_runs_on_onnx_runtime(caplog, tmp_path):
    files = text_tower(TeacherConfig())
    with caplog.at_level(logging.WARNING):
        assert beside("tensorrt", files, tmp_path) is None
    assert "TensorRT is not installed" in caplog.text and "ONNX Runtime runs it" in caplog.text
    caplog.clear()
    assert beside("torch", files, tmp_path) is None and not caplog.text


@pytest.mark.skipif(not REAL_TENSORRT, reason="needs TensorRT and a GPU")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_engines_agree_with_onnx_runtime(plan, tmp_path, precision):
    from afov.runtimes.tensorrt_tower import TensorRtTower

    with pytest.raises(InputError, match="afov-export builds one"):
        TensorRtTower(plan, tmp_path)
    choice = Choice(precision)
    TensorRtTower(plan, tmp_path, choice)  # compared in here
    choice.save(tmp_path / "engines")
    plan.difference(TensorRtTower(plan, tmp_path), precision)


def test_what_is_no_tower_is_named():
    with pytest.raises(InputError, match="image tower: cannot be opened"):
        OnnxTower(b"x", "image tower")
