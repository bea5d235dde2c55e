"""A sweep on the device: labels, padding, half floats and buffers that are reused.

The device is a GPU where there is one, and the CPU elsewhere.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afov.device import graphs
from afov.device.graphs import Replayed
from afov.device.runtime import DeviceRuntime, embedding
from afov.errors import InputError
from afov.frames import Sweep
from afov.kernel_maps import kernel_maps
from afov.model_folder import ModelFolder
from afov.runtimes.engine import difference
from afov.runtimes.onnx_runtime import OnnxRuntime
from afov.runtimes.precision import typed
from afov.runtimes.torch_dense import TorchNetwork
from afov.runtimes.torch_runtime import TorchRuntime
from afov.short_head import shortened
from afov.student import Student
from afov.text_bank import TextBank
from afov.unet import Shape, unet
from afov.voxels import VoxelGrid
from afov_train.network.unet import UNet
from afov_train.student_onnx import folded, graph
from tests.afov.test_kernel_maps import coordinates
from tests.afov_train.conftest import bank, lived_in, street

SHAPES = (
    Shape(3, 8, (8, 16, 16, 16, 16, 16, 8, 13), (1, 1, 1, 1, 1, 1, 1, 1)),
    Shape(5, 5, (6, 11, 7, 13, 9, 3, 17, 10), (2, 1, 2, 1, 1, 2, 1, 2)),
)
HERE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="module", params=SHAPES, ids=["stem 3", "stem 5"])
def model(request) -> ModelFolder:
    network = lived_in(UNet(request.param, 3, 64)).eval()
    weights = folded(network)
    onnx = graph(request.param, weights, 3).SerializeToString()
    names = ("intensity", "rho", "z")
    grid = VoxelGrid("cartesian", (0.4, 0.4, 0.4))
    return ModelFolder(None, onnx, weights, request.param, grid, names, bank(64), 0.07, {})


class Tight(TorchNetwork):
    """Without a row of padding."""

    def sizes(self, counts):
        return counts


class Slowly:
    """The network's definition in float64, voxel by voxel: neighbours come from a dictionary."""

    def __init__(self, model, coords):
        self.weights = {k: v.astype(np.float64) for k, v in model.weights.items()}
        self.stem = model.shape.stem
        self.levels = [[tuple(c) for c in coords.tolist()]]
        for _ in range(4):
            self.levels.append(sorted({tuple(v >> 1 for v in c) for c in self.levels[-1]}))
        self.place = [{c: i for i, c in enumerate(level)} for level in self.levels]

    def has(self, name):
        return f"{name}.weight" in self.weights

    def subm(self, x, name, level, plus=None):
        kernel = self.stem if level < 0 else 3
        offsets = np.stack(np.meshgrid(*[np.arange(kernel) - kernel // 2] * 3, indexing="ij"), -1)
        place, weight = self.place[max(level, 0)], self.weights[f"{name}.weight"]
        out = np.zeros((len(x), weight.shape[2])) + self.weights[f"{name}.bias"]
        for voxel, i in place.items():
            for k, offset in enumerate(offsets.reshape(-1, 3).tolist()):
                j = place.get(tuple(a + b for a, b in zip(voxel, offset, strict=True)))
                if j is not None:
                    out[i] += x[j] @ weight[k]
        return np.maximum(out if plus is None else out + plus, 0)

    def down(self, x, name, level):
        weight = self.weights[f"{name}.weight"]
        out = np.zeros((len(self.levels[level + 1]), weight.shape[2]))
        for (a, b, c), i in self.place[level].items():
            parent = self.place[level + 1][a >> 1, b >> 1, c >> 1]
            out[parent] += x[i] @ weight[4 * (a & 1) + 2 * (b & 1) + (c & 1)]
        return np.maximum(out + self.weights[f"{name}.bias"], 0)

    def up(self, x, name, level):
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        rows = [
            x[self.place[level + 1][a >> 1, b >> 1, c >> 1]]
            @ weight[4 * (a & 1) + 2 * (b & 1) + (c & 1)]
            for a, b, c in self.levels[level]
        ]
        return np.maximum(np.array(rows) + bias, 0)

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def join(self, x, skip):
        return np.hstack((x, skip))


def told(coords, seed=0):
    """Features of voxels."""
    return np.random.default_rng(seed).normal(size=(len(coords), 3)).astype(np.float32)


@settings(max_examples=15, deadline=None)
@given(coords=coordinates.filter(len))
def test_the_network_is_its_definition_in_float64(model, coords):
    features = told(coords)
    expected = unet(model.shape, Slowly(model, coords), features.astype(np.float64))
    for network in (TorchNetwork(model, HERE, half=False), Tight(model, HERE, half=False)):
        got = embedding(network, features, coords, model.shape.stem)
        assert got.shape == expected.shape and got.dtype == np.float32
        assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()


def test_padding_changes_nothing(model):
    coords = np.unique(np.random.default_rng(1).integers(-20, 20, (3000, 3)), axis=0)
    coords, features = coords.astype(np.int32), told(coords[:, 0])
    padded, tight = (
        embedding(network(model, HERE, half=False), features, coords, model.shape.stem)
        for network in (TorchNetwork, Tight)
    )
    assert np.abs(padded - tight).max() < 1e-6 * np.abs(tight).max()


def test_half_floats_are_those_of_the_graph(model):
    """Against ONNX Runtime on the graph that TensorRT gets, and on the one in float32."""
    coords = np.unique(np.random.default_rng(2).integers(-12, 12, (2000, 3)), axis=0)
    coords, features = coords.astype(np.int32), told(coords[:, 0])
    maps = kernel_maps(coords, model.shape.stem)
    network = TorchNetwork(model, HERE, half=True)
    halves = {n for n, w in network.weights.items() if w.dtype == torch.float16}
    ends = {f"{n}.{w}" for n in ("stem", "head") for w in ("weight", "bias")}
    assert halves == set(model.weights) - ends
    got = embedding(network, features, coords, model.shape.stem)
    for precision in ("fp16", "fp32"):
        expected = OnnxRuntime(replace(model, onnx=typed(model.onnx, precision)))
        assert difference(got, expected.run(features, maps), "fp16") < 3e-3


def test_a_weight_beyond_half_floats_keeps_the_network_in_float32(model):
    loud = replace(model, weights=model.weights | {"down.0.bias": np.full(6, 1e5, np.float32)})
    assert TorchNetwork(loud, HERE).kind == torch.float32
    assert (TorchNetwork(model, HERE).kind == torch.float16) == (HERE.type == "cuda")


@pytest.fixture(scope="module", params=["short head", "whole head"])
def students(request, model) -> tuple[Student, Student]:
    """On the device, and on the host."""
    short, basis = shortened(model) if request.param == "short head" else (model, None)
    there = DeviceRuntime(short, TorchNetwork(short, HERE, half=False))
    return tuple(Student(model, r, model.text_bank, basis) for r in (there, TorchRuntime(short)))


def same(students, sweep):
    """Both students' labels, compared."""
    got, expected = (student.label(sweep) for student in students)
    assert got.class_id.dtype == np.uint8 and got.score.dtype == np.float32
    np.testing.assert_array_equal(got.inverse, expected.inverse)
    assert np.abs(got.score - expected.score).max(initial=0) < 1e-4
    assert (got.class_id != expected.class_id).sum() <= 0.001 * len(sweep)
    assert np.abs(got.embedding - expected.embedding).max(initial=0) < 1e-5
    return got


def test_labels_are_the_hosts(students):
    for points, seed in ((4000, 0), (900, 1), (4000, 2), (60, 3), (3900, 4)):  # shapes recur
        labels = same(students, street(points, seed))
        assert set(labels.seconds) == {"voxels", "network"}
    assert len(students[0].runtime._embed.kept) <= 4


def test_embeddings_stay_there_until_somebody_asks(students):
    first = students[0].label(street(1500, 5))
    students[0].label(street(1500, 6))
    assert all(callable(first.__dict__[name]) for name in ("rows", "inverse"))
    expected = students[1].label(street(1500, 5))
    assert np.abs(first.embedding - expected.embedding).max() < 1e-5
    assert isinstance(first.__dict__["rows"], np.ndarray)
    again = students[0].label(street(1500, 5))
    pairs = zip(students, (again, expected), strict=True)
    corrected = [s.corrected(x, street(1500, 5), "refined") for s, x in pairs]
    assert (corrected[0].class_id == corrected[1].class_id).mean() > 0.99


def test_a_real_sweep(students, shared):
    raw = next((shared / "data/nuscenes-one-sample/samples/LIDAR_TOP").iterdir())
    points = np.fromfile(raw, np.float32).reshape(-1, 5)
    same(students, Sweep(points, ("x", "y", "z", "intensity", "ring"), 1, "lidar"))


@pytest.mark.parametrize("points", [np.zeros((0, 4)), np.full((9, 4), np.nan), np.ones((1, 4))])
def test_next_to_nothing(students, points):
    sweep = Sweep(points.astype(np.float32), ("x", "y", "z", "intensity"), 1, "lidar")
    labels = same(students, sweep)
    assert (labels.class_id > 0).sum() == np.isfinite(points).all(1).sum()


def test_faulty_values_spread_no_further_than_on_the_host(students):
    sweep = street()
    sweep.points[::7, 3], sweep.points[3::7, 3], sweep.points[5::7, 3] = np.nan, 1e38, -np.inf
    sweep.points[::11, 2] = 5000
    same(students, sweep)


def test_a_missing_field_is_named(students):
    with pytest.raises(InputError, match="no field 'intensity'"):
        students[0].label(Sweep(street().points[:, :3], ("x", "y", "z"), 1, "lidar"))


def test_another_vocabulary_is_taken_at_once(students):
    mirrored = TextBank(students[0].vocabulary, -students[0].text_bank.embeddings)
    before = students[0].label(street()).class_id
    other = same([s.with_text_bank(mirrored) for s in students], street())
    assert (other.class_id != before).mean() > 0.5
    assert np.array_equal(same(students, street()).class_id, before)


def test_the_network_alone_gives_what_the_decoder_takes(students):
    """`embed`, on which panoptic models go on with the processor."""
    (voxels, rows, _), (expected, whole, _) = (student.embed(street()) for student in students)
    for name in ("coords", "representative", "inverse"):
        a, b = getattr(voxels, name), getattr(expected, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert np.abs(rows - whole).max() < 1e-5 * np.abs(whole).max()


@settings(max_examples=30)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=60))
def test_buffers_are_kept_for_the_last_shapes_only(sizes):
    prepared = []

    def prepare():
        prepared.append(1)
        return lambda x: (x * 2,)

    work = Replayed(prepare, HERE)
    for i, size in enumerate(sizes):
        given_ = torch.full((size,), float(i), device=HERE)
        assert torch.equal(work(given_)[0], 2 * given_)
    last = list(dict.fromkeys(reversed(sizes)))[: graphs.KEPT]
    assert [s[0][0] for s in work.kept] == last[::-1]
    assert len(prepared) >= len(set(sizes))
