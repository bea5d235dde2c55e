"""A panoptic model folder: ONNX as torch, with cameras and without, on a simulated sweep."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
from scipy.sparse import csr_array

from afov import panoptic as inference
from afov.clouds import read_points
from afov.device.runtime import DeviceRuntime
from afov.errors import InputError
from afov.frames import Sweep
from afov.image_tower import ImageTower, unit
from afov.inputs import inputs
from afov.labelled import published_ids
from afov.labelled_bag import SEGMENTATION
from afov.names import Names
from afov.pairing import pair_images
from afov.panoptic_head import Answers
from afov.runtimes.torch_dense import TorchNetwork
from afov.sources.bags import BagSource
from afov.student import Student, at_points
from afov.text_bank import TextBank
from afov.towers import open_session
from afov.tracking import follow
from afov.vocabulary import Vocabulary
from afov.voxels import VoxelGrid
from afov_train.cli import predict
from afov_train.export import export_student
from afov_train.network.config import NetworkConfig
from afov_train.panoptic import export
from afov_train.panoptic import graph as decoder_graph
from afov_train.panoptic.config import DecoderConfig, PanopticConfig
from afov_train.panoptic.decoder import Decoder
from afov_train.panoptic.targets import BaseClasses
from afov_train.panoptic.training import build_panoptic
from afov_train.teachers import image_onnx
from afov_train.teachers.config import TeacherConfig
from afov_train.teachers.image_onnx import image_tower
from afov_train.teachers.open_clip_teacher import OpenClipTeacher
from tests.afov_train.conftest import copied, lived_in

GRID = VoxelGrid("cylindrical", (0.25, 2.0, 0.25))
NETWORK = NetworkConfig()


@pytest.fixture(scope="module")
def tower():
    return image_tower(TeacherConfig(), (2, 4))


@pytest.fixture(scope="module")
def bank():
    return OpenClipTeacher(TeacherConfig(), Vocabulary.load("nuscenes16")).text_bank


def untrained(bank, **decoder):
    torch.manual_seed(0)
    base = BaseClasses.of(bank.vocabulary, ())
    config = PanopticConfig(decoder=DecoderConfig(width=32, queries=12, **decoder))
    network = build_panoptic(NETWORK, bank, base, config)
    lived_in(network.trunk)
    # So that queries answer something: a class is likely at any cosine.
    network.decoder.bias.data.fill_(1.0)
    return network


@pytest.fixture
def overlapping(monkeypatch):
    """An untrained decoder's masks overlap, and all would be dropped for it."""
    monkeypatch.setattr(inference, "VISIBLE", 0.0)


def write(network, bank, tower, frame, folder, head="voxels"):
    known = [c.name for c in bank.vocabulary.labelled]
    files = export.panoptic_files(
        network, tower, head, known[:8], NETWORK.inputs, GRID, frame.sweep, frame.images
    )
    return export_student(
        network.trunk, config=NETWORK, grid=GRID, text_bank=bank, temperature=0.07,
        provenance={"test": "yes"}, sweep=frame.sweep, folder=folder, panoptic=files,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(bank, tower, frames, tmp_path_factory):
    path = tmp_path_factory.mktemp("panoptic") / "model"
    return write(untrained(bank), bank, tower, frames[0], path)


@pytest.mark.parametrize("runtime", ["native", "torch"])
@pytest.mark.parametrize("cameras", [True, False])
def test_the_folder_answers_as_torch_does(
    folder, bank, tower, frames, cameras, runtime, overlapping
):
    frame = frames[1]
    images = frame.images if cameras else ()
    network = untrained(bank).eval()
    student = Student.open(folder, runtime)
    # Otherwise the mask's voxels may outvote its query.
    student.panoptic.files = replace(student.panoptic.files, head="single")
    labels = student.label(frame.sweep, images)

    voxels = GRID.voxelize(frame.sweep.xyz)
    coords = torch.from_numpy(np.pad(voxels.coords, ((0, 0), (1, 0))))
    seen = ImageTower(tower).look(frame.sweep.xyz, images).of_voxels(voxels.inverse, len(voxels))
    assert seen.any() == cameras
    with torch.inference_mode():
        rows = network.trunk(
            torch.from_numpy(inputs(frame.sweep, voxels, NETWORK.inputs)), coords, 1
        )
        xyz = torch.from_numpy(frame.sweep.xyz[voxels.representative])
        wanted = network.decoder(rows, torch.from_numpy(seen), xyz)[-1]
    got = student.panoptic.answers(rows.numpy(), seen, xyz.numpy())
    assert np.abs(got.embedding - wanted.embedding.numpy()).max() < 1e-4
    assert np.abs(got.mask - wanted.mask.numpy()).max() < 1e-4 * wanted.mask.abs().max()

    assert labels.instance_id.shape == labels.class_id.shape == (len(frame.sweep),)
    assert labels.class_id.any(), "the untrained model labels something"
    held = labels.class_id > 0
    thing = np.array([False, *(c.thing for c in student.vocabulary.labelled)])
    assert np.array_equal(labels.instance_id > 0, thing[labels.class_id])
    assert not labels.score[~held].any() and (labels.score[held] > 0.2).all()
    # A point's embedding names its class.
    owner = bank.class_scores(labels.embedding[held]).argmax(1) + 1
    assert np.array_equal(owner, labels.class_id[held])
    assert {"image tower", "image features", "decoder", "masks"} <= set(labels.seconds)


def test_rows_from_a_device_are_answered_as_the_hosts(folder, frames, overlapping):
    host = Student.open(folder, "onnxruntime")
    network = TorchNetwork(host.model, "cpu", half=False)
    there = replace(host, runtime=DeviceRuntime(host.model, network))
    got, expected = (s.label(frames[1].sweep, frames[1].images) for s in (there, host))
    assert got.class_id.any()
    for name in ("class_id", "instance_id"):
        assert (getattr(got, name) == getattr(expected, name)).mean() > 0.99
    assert np.abs(got.score - expected.score).mean() < 1e-3


@pytest.mark.parametrize("voxels", [1, 30, 700])
def test_the_graph_answers_as_torch_does_for_few_voxels_and_many(voxels):
    torch.manual_seed(0)
    config = DecoderConfig(width=32, proposals=10, queries=6)
    decoder = Decoder(config, 12, 3, 0.07).eval()
    embedding, image = torch.randn(2, voxels, 12)
    image = torch.nn.functional.normalize(image, dim=1)
    image[::3] = 0
    rows = embedding, image, torch.randn(voxels, 3) * 20
    with torch.inference_mode():
        wanted = decoder(*rows)[-1]
    session = open_session(decoder_graph.graph(decoder, 12).SerializeToString(), "decoder")
    feeds = {n: r.numpy() for n, r in zip(("embedding", "image", "xyz"), rows, strict=True)}
    rows, mask = session.run(["class_embedding", "mask"], feeds)
    assert np.abs(rows - wanted.embedding.numpy()).max() < 1e-5
    # Where a mask ends; far away it is a difference of large numbers.
    edge = wanted.mask.abs().numpy() < 10
    assert edge.any() and np.abs(mask - wanted.mask.numpy())[edge].max() < 2e-3


def test_a_semantic_folder_knows_no_instances(model_folder, frames):
    student = Student.open(model_folder)
    labels = student.label(frames[0].sweep, frames[0].images)
    assert student.panoptic is None and labels.instance_id is None
    assert list(labels.seconds) == ["voxels", "kernel maps", "network", "labels"]


@pytest.mark.parametrize("head", ["voxels", "single", "ensemble"])
def test_a_vocabulary_of_some_classes_leaves_the_rest_without_a_label(
    folder, bank, frames, overlapping, head
):
    """The model's other classes take what is theirs: one class alone is not true of everything."""
    student = Student.open(folder)
    student.panoptic.files = replace(student.panoptic.files, head=head)
    everything = student.label(frames[0].sweep, frames[0].images)
    found, size = np.unique(everything.class_id[everything.class_id > 0], return_counts=True)
    asked = int(found[size.argmax()])
    chosen = Vocabulary("one", bank.vocabulary.labelled[asked - 1 : asked])
    mine = np.isin(bank.vocabulary.phrases, chosen.phrases)
    other = student.with_text_bank(TextBank(chosen, bank.embeddings[mine]))
    labels = other.label(frames[0].sweep, frames[0].images)
    assert len(found) > 1 and other.panoptic is student.panoptic
    assert np.array_equal(labels.class_id == 1, everything.class_id == asked)
    assert labels.class_id.max() == 1


def test_clouds_without_a_single_good_point_have_no_instances(folder, frames):
    student = Student.open(folder)
    for points in (np.zeros((0, 4), np.float32), np.full((7, 4), np.nan, np.float32)):
        sweep = Sweep(points, ("x", "y", "z", "intensity"), 1, "lidar")
        labels = student.label(sweep, frames[0].images)
        assert not labels.class_id.any() and len(labels.instance_id) == len(points)


def test_instances_keep_their_labels_through_afi(folder, frames):
    student = Student.open(folder)
    labels = student.label(frames[0].sweep)
    assert student.corrected(labels, frames[0].sweep, "refined") is labels


def test_the_baseline_pools_what_cameras_see(bank, tower, frames, tmp_path, overlapping):
    network = untrained(bank, fusion=False)
    student = Student.open(write(network, bank, tower, frames[0], tmp_path / "m", "ensemble"))
    frame = frames[0]
    seeing, blind = (student.label(frame.sweep, images) for images in (frame.images, ()))
    assert not np.array_equal(seeing.class_id, blind.class_id)


def test_a_mask_is_named_by_its_query_and_by_its_voxels(folder):
    student = Student.open(folder)
    head, bank, rng = student.panoptic, student.text_bank, np.random.default_rng(5)
    voxels, width = 30, bank.embeddings.shape[1]
    embedding, image, of_query = (
        rng.normal(size=(n, width)).astype(np.float32) for n in (voxels, voxels, 6)
    )
    image, of_query = unit(image), unit(of_query)
    image[::3] = 0  # no camera sees these
    answers = Answers(of_query, rng.normal(size=(6, voxels)).astype(np.float32))
    answers.mask[5] = -1  # holds nothing
    known = np.isin([c.name for c in bank.vocabulary.labelled], head.files.base)
    share = np.where(known, 0.4, 0.8)
    for seen in (image, np.zeros_like(image)):
        inside = csr_array(answers.mask > 0, dtype=np.float32)
        got = head.probability(
            of_query, inside, head.said(embedding, seen), Names(bank, bank, 0.07)
        )
        for q in range(6):
            cosine = bank.class_scores(of_query[q : q + 1])[0]
            learned = 1 / (1 + np.exp(-(head.files.scale * cosine + head.files.bias)))
            rows = [v for v in range(voxels) if answers.mask[q, v] > 0]
            if not rows:
                assert np.allclose(got[q], learned, rtol=1e-5)
                continue
            mean = sum(seen[v] + embedding[v] / np.linalg.norm(embedding[v]) for v in rows)
            said = bank.probabilities((mean / np.linalg.norm(mean))[None], 0.07)[0, 1:]
            assert np.allclose(got[q], learned ** (1 - share) * said**share, rtol=1e-4)


def test_points_take_the_feature_of_the_place_their_pixel_lies_in(tower, frames):
    frame, eyes = frames[0], ImageTower(tower)
    seen = eyes.look(frame.sweep.xyz, frame.images)
    pairs, _ = pair_images(frame.sweep.xyz, frame.images, occlusion=True)
    assert len(seen.point) == sum(len(p.point) for p in pairs)
    grids = [eyes.features(i.image) for i in frame.images]
    h, w, width = grids[0].shape
    assert width == 96 and np.allclose(np.linalg.norm(grids[0], axis=2), 1, atol=1e-4)
    rng, before = np.random.default_rng(0), 0
    for image, grid, found in zip(frame.images, grids, pairs, strict=True):
        for i in rng.choice(len(found.point), 20):
            y = int((found.row[i] + 0.5) / image.camera.height * h)
            x = int((found.col[i] + 0.5) / image.camera.width * w)
            assert seen.point[before + i] == found.point[i]
            assert np.array_equal(seen.feature[seen.place[before + i]], grid[y, x])
        before += len(found.point)


def test_an_image_is_looked_at_once(tower, frames, monkeypatch):
    """Sweeps come faster than images; another drive's image of the same name and time is new."""
    frame, eyes, looked = frames[0], ImageTower(tower), []
    look = eyes.features
    monkeypatch.setattr(eyes, "features", lambda image: looked.append(image) or look(image))
    first, again = (eyes.maps(frame.images) for _ in range(2))
    assert len(looked) == len(frame.images)
    assert all(a is b for a, b in zip(first, again, strict=True))
    black = [replace(frame.images[0], image=frame.images[0].image * 0)]
    later = [replace(frame.images[1], stamp=frame.images[1].stamp + 1)]
    (dark,), (same,) = eyes.maps(black), eyes.maps(later)
    assert len(looked) == len(frame.images) + 2
    assert np.array_equal(same, first[1]) and not np.array_equal(dark, first[0])


def test_image_features_name_what_they_show(tower, bank, frames):
    """The small teacher, at the vehicle, still tells simulated classes apart: the path is sound."""
    frame = frames[0]
    seen = ImageTower(tower).look(frame.sweep.xyz, frame.images)
    rows = seen.of_voxels(np.arange(len(frame.sweep)), len(frame.sweep))
    known = rows.any(1) & (frame.truth.class_id > 0)
    said = bank.class_scores(rows[known]).argmax(1) + 1
    assert (said == frame.truth.class_id[known]).mean() > 0.6
    assert at_points(rows, np.array([-1])).sum() == 0


def test_a_class_token_tower_is_exported_as_dense_features_has_it(monkeypatch):
    import open_clip

    from afov_train.teachers import open_clip_teacher

    torch.manual_seed(0)
    config = {
        "image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8,
        "ls_init_value": 0.3,
    }  # fmt: skip
    text = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
    model = open_clip.CLIP(24, config, text, quick_gelu=True).eval().requires_grad_(False)
    real = open_clip_teacher.load_open_clip(TeacherConfig())
    monkeypatch.setattr(open_clip_teacher, "load_open_clip", lambda _: (model, *real[1:]))
    files = image_tower(TeacherConfig(), (2, 1))  # compared with torch in here
    assert (files.height, files.width, files.embedding) == (64, 32, 24)
    assert ImageTower(files).features(np.zeros((9, 7, 3), np.uint8)).shape == (8, 4, 24)


def test_an_image_tower_that_disagrees_is_refused(monkeypatch):
    monkeypatch.setattr(image_onnx, "WINDOW", 0.5)
    with pytest.raises(InputError, match="see an image"):
        image_tower(TeacherConfig(), (1, 1))


def test_a_decoder_that_disagrees_writes_nothing(bank, tower, frames, tmp_path, monkeypatch):
    monkeypatch.setattr(decoder_graph, "METRES", 51.0)
    with pytest.raises(InputError, match="nothing was written"):
        write(untrained(bank), bank, tower, frames[0], tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_only_standard_operators(folder):
    for name in ("panoptic.onnx", "image_tower.onnx"):
        graph = onnx.load(folder / name).graph
        assert {n.domain for n in graph.node} == {""}
    size = [d.dim_param or d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    assert size == [128, 256, 3]
    decoder = onnx.load(folder / "panoptic.onnx").graph.output[1]
    assert decoder.type.tensor_type.shape.dim[1].dim_param == "voxels"


def test_a_session_takes_cuda_or_the_processor_and_no_engine_builder():
    """Whatever else ONNX Runtime was built with; every sweep has another number of voxels."""
    ports = [
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["v"]) for n in ("x", "y")
    ]
    same = onnx.helper.make_node("Identity", ["x"], ["y"])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([same], "same", ports[:1], ports[1:]),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    session = open_session(model.SerializeToString(), "same")
    assert set(session.get_providers()) <= {"CUDAExecutionProvider", "CPUExecutionProvider"}
    assert session.run(None, {"x": np.ones(3, np.float32)})[0].tolist() == [1, 1, 1]


def put(folder, data, name, other):
    """Another graph of the folder in a graph's place, and its hash."""
    shutil.copyfile(folder / other, folder / name)
    data["sha256"][name] = data["sha256"][other]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f, d: (f / "panoptic.onnx").write_bytes(b"x"), "SHA-256 is not the one"),
        (lambda f, d: (f / "image_tower.onnx").unlink(), "missing from the model folder"),
        (lambda f, d: d["panoptic"].update(head="two"), "expected one of voxels, single, ensemble"),
        (lambda f, d: d["panoptic"].update(base="car"), "expected a list of class names"),
        (lambda f, d: d["panoptic"].update(scale=-1), "scale > 0"),
        (lambda f, d: d["panoptic"].pop("image"), "no panoptic part .KeyError"),
        (lambda f, d: d["panoptic"]["image"].update(width=99), r"tower: takes .* 256, 3.* 99, 3"),
        (lambda f, d: put(f, d, "panoptic.onnx", "image_tower.onnx"), "mask decoder: takes"),
        (lambda f, d: put(f, d, "image_tower.onnx", "student.onnx"), "image tower: takes"),
    ],
)
def test_a_damaged_panoptic_part_is_one_clear_line(folder, tmp_path, damage, said):
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    data = json.loads((copy / "model.json").read_text())
    damage(copy, data)
    (copy / "model.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=said) as caught:
        Student.open(copy)
    assert "\n" not in str(caught.value)


def test_a_decoder_of_one_proposal_and_stuff_still_goes_out(bank, tower, frames):
    config = DecoderConfig(width=16, layers=1, proposals=1, queries=0, heads=2, feedforward=16)
    base = BaseClasses.of(bank.vocabulary, ())
    network = build_panoptic(NETWORK, bank, base, replace(PanopticConfig(), decoder=config))
    files = export.panoptic_files(
        network, tower, "single", (), NETWORK.inputs, GRID, frames[0].sweep, ()
    )
    assert files.scale == pytest.approx(1 / 0.07, rel=1e-5)
    with torch.no_grad():  # another decoder than the one that was written
        network.decoder.outline[0].weight *= 1.05
    with pytest.raises(InputError, match=r"decode .* apart"):
        export.check(network, files, NETWORK.inputs, GRID, frames[0].sweep, ())


def test_predict_shows_the_model_what_the_cameras_saw(folder, drive, tmp_path, overlapping):
    out = tmp_path / "labelled.mcap"
    assert predict(["--bag", str(drive), "--model", str(folder), "--out", str(out)]) == 0
    student, frames = Student.open(folder), {f.sweep.stamp: f for f in BagSource(drive)}
    blind = 0
    with AnyReader([out], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as bag:
        wanted = [c for c in bag.connections if c.topic == SEGMENTATION]
        for connection, stamp, raw in bag.messages(connections=wanted):
            points = read_points(bag.deserialize(raw, connection.msgtype))
            frame = frames.pop(stamp)
            labels = student.label(frame.sweep, frame.images)
            assert np.array_equal(points["class_id"], published_ids(labels, 0.0))
            assert np.array_equal(points["instance_id"] > 0, labels.instance_id > 0)
            unseen = published_ids(student.label(frame.sweep), 0.0)
            blind += int((unseen != points["class_id"]).sum())
    assert not frames and blind, "images make a difference, or this proves nothing"


def test_predict_follows_things_through_a_recording_without_images(
    folder, drive, tmp_path, overlapping, monkeypatch
):
    """With the vehicle's poses, or its own motion would be taken for the things'."""
    bag, out = tmp_path / "blind.mcap", tmp_path / "labelled.mcap"
    copied(drive, bag, lambda t, d: None if "image_rect" in t else d)
    poses = []
    monkeypatch.setattr(
        "afov_train.predict.follow",
        lambda tracker, sweep, labels, *known: (
            poses.append(known[-1]) or follow(tracker, sweep, labels, *known)
        ),
    )
    assert predict(["--bag", str(bag), "--model", str(folder), "--out", str(out)]) == 0
    frames = list(BagSource(drive))
    assert len(poses) == len(frames)
    for pose, frame in zip(poses, frames, strict=True):
        assert np.allclose(pose, frame.world_from_lidar)
