"""Panoptic training: novel classes stay unknown, images can be missing, a sweep can be learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from afov.errors import InputError
from afov.image_tower import ImageTower
from afov.sources.bags import BagSource
from afov.splits import Split
from afov.student import Student
from afov.vocabulary import Vocabulary
from afov.voxels import VoxelGrid
from afov_train.cli import train
from afov_train.config import AugmentConfig, OptimizerConfig
from afov_train.export import export_student
from afov_train.network.config import NetworkConfig
from afov_train.panoptic.config import (
    DecoderConfig,
    LossConfig,
    PanopticConfig,
    PanopticTrainConfig,
)
from afov_train.panoptic.export import panoptic_files
from afov_train.panoptic.pipeline import panoptic, seen_by_cameras
from afov_train.panoptic.sweeps import PanopticSweep, PanopticSweeps, collate, prepare
from afov_train.panoptic.targets import BaseClasses, PanopticTarget
from afov_train.panoptic.training import PanopticTraining, build_panoptic, train_panoptic
from afov_train.recordings import Recording
from afov_train.teachers.config import TeacherConfig
from afov_train.teachers.image_onnx import image_tower
from afov_train.teachers.open_clip_teacher import OpenClipTeacher

VOCABULARY = Vocabulary.load("nuscenes16")
NAMES = [c.name for c in VOCABULARY.labelled]
GRID = VoxelGrid("cylindrical", (0.5, 3.0, 0.5))
NETWORK = NetworkConfig()
PLAIN = AugmentConfig(False, False, 0.0)
SMALL = DecoderConfig(width=32, layers=2, queries=40, feedforward=64)


@pytest.fixture(scope="module")
def tower():
    return image_tower(TeacherConfig(), (2, 4))


@pytest.fixture(scope="module")
def bank():
    return OpenClipTeacher(TeacherConfig(), VOCABULARY).text_bank


@pytest.fixture(scope="module")
def prepared(drive, tower, tmp_path_factory):
    base = BaseClasses.of(VOCABULARY, ())
    source = BagSource(drive, truth=True)
    return prepare(source, ImageTower(tower), base.ids, None, tmp_path_factory.mktemp("prepared"))


def stage(bank, base=(), **config):
    torch.manual_seed(0)
    classes = BaseClasses.of(VOCABULARY, base)
    settings = PanopticConfig(decoder=SMALL, **config)
    network = build_panoptic(NETWORK, bank, classes, settings)
    result = PanopticTraining(network, bank, classes, settings)
    result.log = lambda *_, **__: None
    return result


def sweeps(files, drop=0.0, augment=None):
    return PanopticSweeps(files, GRID, NETWORK.inputs, augment, drop, 0, 8)


def test_every_weight_of_trunk_and_decoder_learns(bank, prepared):
    one = stage(bank)
    one.training_step(collate([sweeps(prepared)[0], sweeps(prepared)[1]]), 0).backward()
    still = [n for n, p in one.network.named_parameters() if p.grad is None]
    assert not still
    assert one.network.trunk.stem[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "weight",
    ["object", "voxel", "auxiliary", "centre", "mask", "classes", "position", "segments",
     "unlabelled"],
)  # fmt: skip
def test_each_loss_can_be_left_out(bank, prepared, weight):
    batch = collate([sweeps(prepared)[0]])
    held_out = batch.class_id == NAMES.index("manmade") + 1
    batch = batch._replace(class_id=batch.class_id.where(~held_out, 0))
    values = []
    base = [name for name in NAMES if name != "manmade"]
    for losses in (LossConfig(), LossConfig(**{weight: 0.0})):
        one = stage(bank, base, losses=losses)
        values.append(one.training_step(batch, 0).item())
    assert values[1] < values[0]


def test_dropped_images_reach_no_query_but_teach_on(bank, prepared):
    batch = collate([sweeps(prepared, drop=1.0)[0]])
    assert batch.dropped.all() and batch.image.any()
    one, given = stage(bank), []
    ask = one.network.decoder.voxels
    one.network.decoder.voxels = lambda e, image, xyz: given.append(image) or ask(e, image, xyz)
    whole = one.training_step(batch, 0).item()
    assert not given[0].any()
    blind = batch._replace(image=torch.zeros_like(batch.image))
    assert whole > one.training_step(blind, 0).item(), "L_O and L_V still teach"
    one.training_step(batch._replace(dropped=~batch.dropped), 0)
    # The voxels come in another order: labelled ones in front.
    assert torch.equal(given[2].sum(1).sort().values, batch.image.sum(1).sort().values)


def test_the_share_of_dropped_visits_is_the_one_asked_for(prepared):
    data = replace(sweeps(prepared[:1], drop=0.3), length=60)
    share = np.mean([bool(data[i].dropped[0]) for i in range(60)])
    assert 0.15 < share < 0.45


def test_an_augmented_sweep_moves_places_and_keeps_labels(prepared):
    plain, moved = (sweeps(prepared[:1], augment=a)[0] for a in (None, AugmentConfig()))
    assert not np.allclose(plain.xyz[:50], moved.xyz[:50])
    shares = [torch.bincount(b.class_id, minlength=17) / len(b.class_id) for b in (plain, moved)]
    assert (shares[0] - shares[1]).abs().max() < 0.05
    both = collate([plain, moved])
    assert both.coords[:, 0].tolist() == [0] * len(plain.xyz) + [1] * len(moved.xyz)
    assert torch.equal(both.image[len(plain.xyz) :], moved.image)


def test_no_loss_sees_a_label_of_a_novel_class(bank, prepared):
    """Whatever the truth says of novel classes, files and losses are the same."""
    base = BaseClasses.of(VOCABULARY, [n for n in NAMES if n not in ("car", "vegetation")])
    novel = [NAMES.index(n) + 1 for n in ("car", "vegetation")]
    whole = PanopticSweep.load(prepared[0]).target
    assert np.isin(whole.class_id, novel).any()
    hidden = whole.of_classes(base.ids)
    assert not np.isin(hidden.class_id, novel).any()
    assert not hidden.instance_id[np.isin(whole.class_id, novel)].any()
    rest = ~np.isin(whole.class_id, novel)
    assert np.array_equal(hidden.class_id[rest], whole.class_id[rest])
    one = stage(bank, base=[NAMES[i - 1] for i in base.ids])
    owners = bank.vocabulary.phrase_class_id
    assert len(one.text) == np.isin(owners, base.ids).sum(), "nor a name of one"
    with pytest.raises(InputError, match="--base cra: expected classes of barrier"):
        BaseClasses.of(VOCABULARY, ["cra"])
    split = Split.random(VOCABULARY, 4, 3)
    assert np.array_equal(
        BaseClasses.of(VOCABULARY, ["b12n4-3"]).ids, BaseClasses.of(VOCABULARY, split.base).ids
    )


def test_labels_from_a_folder_stand_in_for_truth(frames, tmp_path):
    frame = frames[0]
    assert PanopticTarget.of_frame(frame, tmp_path) is None
    file = tmp_path / f"{frame.token}.npz"
    np.savez(file, class_id=frame.truth.class_id, instance_id=frame.truth.instance_id)
    found = PanopticTarget.of_frame(replace(frame, truth=None), tmp_path)
    assert np.array_equal(found.class_id, frame.truth.class_id)
    np.savez(file, class_id=np.zeros(3), instance_id=np.zeros(3))
    with pytest.raises(InputError, match="label the same recording"):
        PanopticTarget.of_frame(frame, tmp_path)


def cut(file, ids):
    np.savez(file, class_id=ids, instance_id=ids)
    file.write_bytes(file.read_bytes()[:300])


def garbled(file, ids):
    np.savez_compressed(file, class_id=np.arange(len(ids)) % 7, instance_id=ids)
    whole = bytearray(file.read_bytes())
    whole[200:260] = bytes(60)
    file.write_bytes(whole)


def one_array(file, ids):
    with file.open("wb") as stream:
        np.save(stream, ids)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda file, ids: file.write_bytes(b"x"), "expected class_id and instance_id"),
        (lambda file, ids: file.write_bytes(b"PK\x03\x04"), "expected class_id and instance_id"),
        (cut, "expected class_id and instance_id"),
        (garbled, "expected class_id and instance_id"),
        (one_array, "expected class_id and instance_id"),
        (lambda file, ids: np.savez(file, class_id=ids), "expected class_id and instance_id"),
        (lambda file, ids: np.savez(file, class_id=ids.astype(object), instance_id=ids),
         "Object arrays cannot be loaded"),
        (lambda file, ids: np.savez(file, class_id=ids + 256, instance_id=ids),
         "class_id: 256 to 256, expected integers from 0 to 255"),
        (lambda file, ids: np.savez(file, class_id=ids, instance_id=ids - 1),
         "instance_id: -1 to -1, expected integers from 0 to 65535"),
        (lambda file, ids: np.savez(file, class_id=ids, instance_id=ids + 2**16),
         "instance_id: 65536 to 65536, expected"),
        (lambda file, ids: np.savez(file, class_id=ids * np.nan, instance_id=ids),
         "class_id: float64, expected integers"),
        (lambda file, ids: np.savez(file, class_id=ids.astype(str), instance_id=ids),
         "class_id: <U21, expected integers"),
    ],
)  # fmt: skip
def test_labels_that_are_none_name_the_file(frames, tmp_path, write, said):
    """An id that wrapped would come out as another class, or join two things."""
    frame = frames[0]
    file = tmp_path / f"{frame.token}.npz"
    write(file, np.zeros(len(frame.sweep), np.int64))
    with pytest.raises(InputError, match=said) as caught:
        PanopticTarget.of_frame(frame, tmp_path)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_recording_without_labels_is_refused(drive, tower, tmp_path):
    with pytest.raises(InputError, match="no frame has panoptic labels"):
        prepare(BagSource(drive), ImageTower(tower), np.arange(1, 17), tmp_path, tmp_path / "s")


def test_truth_without_instances_is_none(frames):
    """A nuScenes tree with lidarseg alone: of its things every point would be left out."""
    whole = replace(frames[0].truth, panoptic_class_id=frames[0].truth.class_id)
    assert PanopticTarget.of_frame(replace(frames[0], truth=whole), None).instance_id.any()
    semantic = replace(whole, instance_id=whole.instance_id * 0, panoptic_class_id=None)
    assert PanopticTarget.of_frame(replace(frames[0], truth=semantic), None) is None


def panoptic_quality(truth, labels):
    """Mean PQ over the classes of the truth, pair by pair (Kirillov et al. 2019, eq. 1)."""
    each = []
    labelled = truth.class_id > 0
    for class_id in np.unique(truth.class_id[labelled]):
        thing = VOCABULARY.labelled[class_id - 1].thing
        parts = []
        for ids, instances in ((truth.class_id, truth.instance_id),
                               (labels.class_id, labels.instance_id)):  # fmt: skip
            here = labelled & (ids == class_id)
            apart = np.unique(instances[here]) if thing else [None]
            found = [here & (instances == i) if thing else here for i in apart]
            parts.append([m for m in found if m.any()])
        ious = [(a & b).sum() / (a | b).sum() for a in parts[0] for b in parts[1]]
        matched = [iou for iou in ious if iou > 0.5]
        each.append(sum(matched) / ((len(parts[0]) + len(parts[1])) / 2))
    return float(np.mean(each))


@pytest.mark.slow
def test_a_sweep_is_learned_by_heart_with_cameras_and_without(
    bank, tower, frames, prepared, tmp_path
):
    base, grid = BaseClasses.of(VOCABULARY, ()), VoxelGrid("cylindrical", (0.25, 2.0, 0.25))
    config = PanopticConfig(
        steps=70, batch=1, augment=PLAIN, optimizer=OptimizerConfig(learning_rate=4e-3)
    )  # fmt: skip
    torch.manual_seed(0)
    network = build_panoptic(NETWORK, bank, base, config)
    train_panoptic(
        network, prepared[:1], bank, base, NETWORK, grid, config, tmp_path / "panoptic"
    )  # fmt: skip
    frame = frames[0]
    files = panoptic_files(
        network, tower, "single", NAMES, NETWORK.inputs, grid, frame.sweep, frame.images
    )
    model = export_student(
        network.trunk, config=NETWORK, grid=grid, text_bank=bank, temperature=0.07,
        provenance={}, sweep=frame.sweep, folder=tmp_path / "model", panoptic=files,
    )  # fmt: skip
    student = Student.open(model)
    for images in (frame.images, ()):
        quality = panoptic_quality(frame.truth, student.label(frame.sweep, images))
        print("PQ", len(images), quality)
        assert quality > 0.15


def test_wrong_weights_are_found_out_before_sweeps_are_prepared(drive, tmp_path):
    recording, weights = Recording(bag=(drive,)), tmp_path / "none.safetensors"
    config = PanopticTrainConfig(recording=recording, weights=weights, run=tmp_path / "run")
    with pytest.raises(InputError, match=r"--weights .*none\.safetensors: cannot be read"):
        panoptic(config)
    assert not (tmp_path / "run/sweeps").exists()


def test_the_export_is_compared_on_a_sweep_that_cameras_saw(frames):
    blind = [replace(frame, images=()) for frame in frames[:2]]
    assert seen_by_cameras([*blind, frames[2]]) is frames[2]
    assert seen_by_cameras(blind) is blind[0]


@pytest.mark.slow
@pytest.mark.all_cores
def test_the_command_makes_a_model_folder_that_knows_instances(drive, tmp_path, capsys):
    """In two processes; novel classes and all."""
    flags = ["panoptic", "--bag", str(drive), "--runs", str(tmp_path / "runs")]
    flags += ["--base", *NAMES[:10], "--panoptic.steps", "2", "--panoptic.windows", "1", "2"]
    flags += ["--panoptic.decoder.width", "16", "--panoptic.decoder.queries", "8"]
    assert train(flags) == 0
    run = tmp_path / "runs/latest"
    assert "model folder: " in capsys.readouterr().out
    student = Student.open(run / "model")
    assert student.panoptic.files.base == tuple(NAMES[:10])
    frame = next(iter(BagSource(drive)))
    assert len(student.label(frame.sweep, frame.images).instance_id) == len(frame.sweep)
