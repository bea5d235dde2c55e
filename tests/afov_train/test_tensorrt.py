"""The graph that TensorRT gets, the order of runtimes, and afov-export; not TensorRT itself."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from afov import runtimes
from afov.errors import InputError
from afov.frames import Sweep
from afov.kernel_maps import kernel_maps
from afov.model_folder import SAMPLE, ModelFolder, read_model_folder
from afov.runtimes.engine import Choice, difference
from afov.runtimes.onnx_runtime import OnnxRuntime, graph_inputs
from afov.runtimes.precision import typed
from afov.runtimes.profile import fitting, level_of, profile_of
from afov.unet import Shape
from afov_train.cli import export
from afov_train.network.config import NetworkConfig
from afov_train.network.unet import UNet, build_network
from tests.afov_train.conftest import exported, lived_in

SLIM_34C = Shape(5, 4, (4, 8, 8, 12, 12, 8, 8, 8), (2, 3, 4, 6, 2, 2, 2, 2))
OPERATORS = Path(__file__).with_name("tensorrt_operators.txt")
LISTED = {
    word for line in OPERATORS.read_text().splitlines() if line[0] != "#" for word in line.split()
}
REAL_TENSORRT = (found := importlib.util.find_spec("tensorrt")) and found.origin


@pytest.fixture(scope="module", params=["small", "slim 34C"])
def model(request, tmp_path_factory, shared) -> ModelFolder:
    """Exported with a real sweep of 34,688 points."""
    raw = next((shared / "data/nuscenes-one-sample/samples/LIDAR_TOP").iterdir())
    points = np.fromfile(raw, np.float32).reshape(-1, 5)[:, :4]
    sweep = Sweep(points, ("x", "y", "z", "intensity"), 1, "lidar")
    small = request.param == "small"
    network = build_network(NetworkConfig(), 24) if small else UNet(SLIM_34C, 3, 24)
    folder = tmp_path_factory.mktemp("real") / "model"
    return read_model_folder(exported(lived_in(network), folder, sweep))


def run(model, graph, features):
    maps = kernel_maps(model.sample.coords, model.shape.stem)
    return OnnxRuntime(replace(model, onnx=graph)).run(features, maps)


def test_half_floats_agree_on_a_real_sweep(model):
    features = model.sample.features
    assert len(features) == 10155
    half = typed(model.onnx, "fp16")
    assert len(half) < 0.6 * len(model.onnx)
    worst = difference(run(model, half, features), run(model, model.onnx, features), "fp16")
    assert worst < 2e-3


def test_half_floats_agree_where_every_operation_rounds(model):
    """ONNX Runtime may keep float32 between two operations; the reference evaluator rounds."""
    sample = fitting(model.sample, profile_of((), 1000), model.shape.stem)
    maps = kernel_maps(sample.coords, model.shape.stem)
    half = onnx.load_model_from_string(typed(model.onnx, "fp16"))
    names = {i.name for i in half.graph.input}
    feeds = {k: v for k, v in graph_inputs(sample.features, maps).items() if k in names}
    (got,) = ReferenceEvaluator(half).run(None, feeds)
    assert got.dtype == np.float32
    assert difference(got, OnnxRuntime(model).run(sample.features, maps), "fp16") < 5e-3


def test_faulty_inputs_stay_finite_in_half_floats(model):
    """The worst that `afov.inputs` lets through."""
    features = model.sample.features.copy()
    features[::7], features[3::7] = 1000, -1000
    got = run(model, typed(model.onnx, "fp16"), features)
    difference(got, run(model, model.onnx, features), "fp16")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_graph_is_what_tensorrt_reads(model, precision):
    graph = onnx.load_model_from_string(typed(model.onnx, precision)).graph
    kinds = {node.op_type for node in graph.node}
    assert kinds <= LISTED and len(LISTED) > 100
    assert ("Cast" in kinds) == (precision == "fp16")
    for tensor in graph.input:
        kind = TensorProto.FLOAT if tensor.name == "features" else TensorProto.INT32
        rows, *width = tensor.type.tensor_type.shape.dim
        assert tensor.type.tensor_type.elem_type == kind
        # Only the voxels vary, and those of the level that the profile says.
        assert rows.dim_param == f"voxels{level_of(tensor.name)}"
        assert all(d.dim_value for d in width)
    # The only 64-bit integers are constant shapes.
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    wide = {t.name for t in graph.initializer if t.data_type == TensorProto.INT64}
    assert wide == shapes


def test_the_ends_are_float32_and_the_rest_is_not(model):
    graph = onnx.load_model_from_string(typed(model.onnx, "fp16")).graph
    inferred = onnx.shape_inference.infer_shapes(
        onnx.load_model_from_string(typed(model.onnx, "fp16")), strict_mode=True
    )
    kinds = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    products = [n for n in graph.node if n.op_type == "MatMul"]
    halves = [kinds[n.output[0]] == TensorProto.FLOAT16 for n in products]
    assert not halves[0] and not halves[-1] and all(halves[1:-1])
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_a_weight_beyond_half_floats_is_refused(model):
    graph = onnx.load_model_from_string(model.onnx)
    large = onnx.numpy_helper.from_array(np.full(24, 1e5, np.float32), "down.0.bias")
    (place,) = (i for i, t in enumerate(graph.graph.initializer) if t.name == "down.0.bias")
    graph.graph.initializer[place].CopyFrom(large)
    content = graph.SerializeToString()
    with pytest.raises(InputError, match=r"down.0.bias is too large.*--precision fp32"):
        typed(content, "fp16")
    assert typed(content, "fp32") == content


def test_the_folder_says_how_many_voxels_it_saw(model_folder):
    model = read_model_folder(model_folder)
    assert model.voxels[0] == (len(model.sample.coords),) * 3
    assert (model_folder / SAMPLE).stat().st_size < 25 * len(model.sample.coords) + 300


def edited(folder, target, change):
    shutil.copytree(folder, target)
    data = json.loads((target / "model.json").read_text())
    change(data)
    (target / "model.json").write_text(json.dumps(data))
    return target


def test_an_older_folder_opens(model_folder, tmp_path):
    def older(data):
        del data["voxels"], data["sha256"][SAMPLE]

    folder = edited(model_folder, tmp_path / "model", older)
    (folder / SAMPLE).unlink()
    model = read_model_folder(folder)
    assert model.sample is None and profile_of(model.voxels) == profile_of(())


def test_a_damaged_sample_or_count_is_one_clear_line(model_folder, tmp_path):
    folder = edited(model_folder, tmp_path / "a", lambda d: d["voxels"].pop())
    with pytest.raises(InputError, match="expected least, median and most of 5 levels"):
        read_model_folder(folder)
    folder = edited(model_folder, tmp_path / "b", lambda d: d)
    (folder / SAMPLE).write_bytes(b"x")
    with pytest.raises(InputError, match="SHA-256 is not the one"):
        read_model_folder(folder)


FACTS = ("_torch", "_gpu", "_tensorrt", "_onnx_cuda", "library", "integers")


@pytest.mark.parametrize("facts", [f"{n:06b}" for n in range(64)])
def test_the_order_holds_whatever_is_installed(facts):
    here = {name: bit == "1" for name, bit in zip(FACTS, facts, strict=True)}
    with mock.patch.multiple(
        runtimes, **{n: lambda n=n: (here[n] or None) if n == "library" else here[n] for n in here}
    ):
        order = runtimes.order()
    assert len(set(order)) == len(order) and order[-1] == "onnxruntime"
    gpu = here["_torch"] and here["_gpu"]
    assert ("tensorrt" in order) == (gpu and here["_tensorrt"]) == (order[0] == "tensorrt")
    assert ("onnxruntime-cuda" in order[:3]) == here["_onnx_cuda"]
    assert ("torch" in order[:2]) >= gpu
    assert ("torch" in order) == here["_torch"]
    if "native" in order and not gpu and "torch" in order:
        assert order.index("native") < order.index("torch")


def test_the_next_runtime_is_taken_where_one_does_not_open(model_folder, caplog):
    model = read_model_folder(model_folder)
    with caplog.at_level(logging.WARNING):
        runtime = runtimes.open_first(model, ("onnxruntime-cuda", "native", "onnxruntime"))
    assert runtime.name == "native"
    assert "finds no CUDA here" in caplog.text
    with pytest.raises(InputError, match="finds no CUDA here"):
        runtimes.open_first(model, ("onnxruntime-cuda",))


@pytest.mark.skipif(bool(REAL_TENSORRT), reason="TensorRT is installed")
def test_stubs_are_not_taken_for_tensorrt(model_folder):
    assert "tensorrt" not in runtimes.order()
    with pytest.raises(InputError, match="TensorRT is not installed"):
        runtimes.open_runtime(read_model_folder(model_folder), "tensorrt")


@pytest.mark.skipif(bool(REAL_TENSORRT), reason="TensorRT is installed")
def test_the_command_says_in_one_line_what_is_missing(model_folder, capsys):
    assert export(["--model", str(model_folder)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("afov-export: TensorRT is not installed") and not said.out
    assert said.err.count("\n") == 1
    assert not (model_folder / "engines").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--max-voxels", "0"), "--max-voxels 0: expected a positive number"),
        (("--model", "nowhere"), "expected a model folder"),
    ],
)
def test_the_command_names_what_is_wrong(model_folder, capsys, flags, said):
    assert export(["--model", str(model_folder), *flags]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.skipif(not REAL_TENSORRT, reason="needs TensorRT and a GPU")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_agrees_with_onnx_runtime(model, precision):
    from afov.device.runtime import embedding
    from afov.runtimes.tensorrt_runtime import TensorRtNetwork

    sample = model.sample
    maps = kernel_maps(sample.coords, model.shape.stem)
    expected = OnnxRuntime(model).run(sample.features, maps)
    choice = Choice(precision)
    for _ in range(2):  # built, then from its file
        network = TensorRtNetwork(model, choice)
        got = embedding(network, sample.features, sample.coords, model.shape.stem)
        difference(got, expected, precision)
