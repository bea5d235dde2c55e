"""The simulated nuScenes tree: the devkit opens it, evaluates it, and it holds the same drive."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest
from nuscenes.utils.splits import create_splits_scenes

from afov.errors import InputError
from afov.metrics import confusion, iou, mean_iou
from afov.panoptic_quality import no_sweeps, panoptic_quality, panoptic_summary
from afov.sources.bags import BagSource
from afov.sources.nuscenes import NuScenesSource
from afov.sources.nuscenes_classes import RAW_TO_16
from afov.sources.nuscenes_splits import with_papers_splits
from afov.splits import Split
from afov.student import Labels
from afov.vocabulary import Vocabulary
from afov_train.evaluate import evaluate
from afov_train.nuscenes_eval import (
    Submission,
    evaluate_officially,
    evaluate_panoptic_officially,
)
from afov_train.simulation.config import SimConfig
from afov_train.simulation.drive import simulate
from afov_train.simulation.write_foxglove import write_foxglove
from afov_train.simulation.write_nuscenes import write_nuscenes


@pytest.fixture(scope="module")
def tree(frames, tmp_path_factory):
    root = tmp_path_factory.mktemp("tree") / "nuscenes"
    write_nuscenes(frames, root, per_scene=2, rate=1.0)
    return root


def open_tree(root, **options):
    return NuScenesSource(root, "v1.0-mini", "mini_val", truth=True, **options)


def test_three_formats_hold_the_same_frames(frames, drive, tree, tmp_path):
    foxglove = tmp_path / "foxglove.mcap"
    write_foxglove(frames, foxglove)
    sources = (BagSource(drive, truth=True), BagSource(foxglove, truth=True), open_tree(tree))
    for bag, fox, nuscenes in zip(*sources, strict=True):
        for other in (fox, nuscenes):
            assert_same(bag, other)


def assert_same(one, other):
    columns = [one.sweep.fields.index(n) for n in other.sweep.fields]
    assert {"x", "y", "z", "intensity", "ring"} <= set(other.sweep.fields)
    assert np.array_equal(one.sweep.points[:, columns], other.sweep.points)
    assert one.sweep.stamp == other.sweep.stamp
    assert np.allclose(one.world_from_lidar, other.world_from_lidar, atol=1e-6)
    for name in ("class_id", "raw", "panoptic_class_id"):
        assert np.array_equal(getattr(one.truth, name), getattr(other.truth, name))
    # Of nuScenes' panoptic numbers the last three digits are the street's own.
    assert np.array_equal(one.truth.instance_id % 1000, other.truth.instance_id % 1000)
    assert np.array_equal(one.truth.instance_id > 0, other.truth.instance_id > 0)
    by_name = {i.name: i for i in one.images}
    assert set(by_name) == {i.name for i in other.images} and len(by_name) == 6
    for image in other.images:
        mine = by_name[image.name]
        assert mine.stamp == image.stamp and np.array_equal(mine.image, image.image)
        assert np.allclose(mine.camera.K, image.camera.K)
        assert np.allclose(mine.camera_from_lidar, image.camera_from_lidar, atol=1e-6)


def test_sweeps_between_keyframes_come_with_their_own_images(tmp_path):
    config = SimConfig(5, 1, frames_per_street=5, rate=4.0, width=200, height=112, workers=1)
    made = list(simulate(config))
    write_nuscenes(made, tmp_path / "t", per_scene=5, rate=4.0)
    keyframes = NuScenesSource(tmp_path / "t", "v1.0-mini", truth=True)
    everything = NuScenesSource(tmp_path / "t", "v1.0-mini", truth=True, sweeps=True)
    assert len(keyframes) == 3 and len(everything) == 5
    assert [f.sweep.stamp for f in keyframes] == [f.sweep.stamp for f in made[::2]]
    for frame, original in zip(everything, made, strict=True):
        assert np.array_equal(frame.sweep.xyz, original.sweep.xyz)
        assert {i.stamp for i in frame.images} == {i.stamp for i in original.images}
    assert [f.truth is not None for f in everything] == [True, False, True, False, True]


def corrupted(truth, rng):
    """A prediction with every kind of fault that a student makes, and no 0."""
    wrong = rng.random(len(truth)) < 0.3
    return np.where(wrong | (truth == 0), rng.integers(1, 17, len(truth)), truth).astype(np.uint8)


def labels_of(class_id, instance_id=None):
    nothing = np.zeros((0, 4), np.float32)
    inverse = np.full(len(class_id), -1)
    return Labels(class_id, np.ones(len(class_id)), nothing, inverse, {}, instance_id)


def without_buses(frame):
    """The same sweep in a world where what was a bus is a building."""
    raw = np.where(np.isin(frame.truth.raw, (15, 16)), 28, frame.truth.raw).astype(np.uint8)
    return replace(frame, truth=replace(frame.truth, raw=raw, class_id=RAW_TO_16[raw]))


@pytest.mark.parametrize("buses", [True, False])
def test_the_devkits_evaluation_agrees_with_ours(frames, tmp_path, buses):
    """Also where a class occurs neither in truth nor in prediction: absent, not perfect."""
    world = frames if buses else [without_buses(f) for f in frames]
    write_nuscenes(world, tmp_path / "t", per_scene=2, rate=1.0)
    source, rng, matrix = open_tree(tmp_path / "t"), np.random.default_rng(0), 0
    submission = Submission(tmp_path, "mini_val")
    for frame in source:
        predicted = corrupted(frame.truth.class_id, rng)
        if not buses:
            predicted[predicted == 3] = 15
        submission.write(frame.token, labels_of(predicted))
        matrix = matrix + confusion(frame.truth.class_id, predicted, 16)
    assert np.isnan(iou(matrix)).sum() == (0 if buses else 1)
    theirs = evaluate_officially(source, tmp_path)
    assert theirs["miou"] == pytest.approx(mean_iou(matrix), abs=1e-6)
    per_class = [v for k, v in theirs["iou_per_class"].items() if k != "ignore"]
    assert np.allclose(per_class, iou(matrix), atol=1e-6, equal_nan=True)
    assert 0.2 < theirs["miou"] < 0.8


def as_annotated(root, rng):
    """Some points of things fall out of their boxes: the real labels say 0 of them."""
    for file in (root / "panoptic/v1.0-mini").iterdir():
        with np.load(file) as data:
            both = data["data"]
        outside = (both % 1000 > 0) & (rng.random(len(both)) < 0.1)
        np.savez_compressed(file, data=np.where(outside, 0, both).astype(np.uint16))


def segmented(truth, rng):
    """Instances with every kind of fault: cut, joined, shifted to others, left out."""
    number = truth.instance_id % 1000
    cut = (rng.random(number.max() + 1) < 0.3)[number] & (np.arange(len(number)) % 2 > 0)
    joined = (rng.random(number.max() + 1) < 0.2)[number]
    number = np.where(joined, number // 2, number + 200 * cut)
    return np.where(rng.random(len(number)) < 0.05, 0, number).astype(np.uint16)


@pytest.mark.parametrize("boxes", [True, False])
def test_the_devkits_panoptic_evaluation_agrees_with_ours(frames, tmp_path, boxes):
    write_nuscenes(frames, tmp_path / "t", per_scene=2, rate=1.0)
    rng = np.random.default_rng(3)
    if boxes:
        as_annotated(tmp_path / "t", rng)
    source, submission = open_tree(tmp_path / "t"), Submission(tmp_path, "mini_val")
    vocabulary, quality = Vocabulary.load("nuscenes16"), no_sweeps(16)
    for frame in source:
        truth = frame.truth
        left_out = (truth.class_id > 0) & (truth.panoptic_class_id == 0)
        assert left_out.any() == boxes and not truth.instance_id[left_out].any()
        predicted = np.where(rng.random(len(truth.raw)) < 0.1, 15, truth.class_id).astype(np.uint8)
        predicted[predicted == 0] = 4
        number = np.where(predicted <= 10, segmented(truth, rng), 0).astype(np.uint16)
        submission.write(frame.token, labels_of(predicted, number))
        quality += panoptic_quality(
            truth.panoptic_class_id, truth.instance_id, predicted, number, 16, 15
        )
    theirs = evaluate_panoptic_officially(source, tmp_path)
    for i, name in enumerate(vocabulary.names[1:]):
        figures = [quality.pq[i], quality.sq[i], quality.rq[i], quality.iou[i]]
        official = [theirs[name][figure] for figure in ("PQ", "SQ", "RQ", "IoU")]
        assert np.nan_to_num(figures) == pytest.approx(official, abs=1e-6)
    ours = panoptic_summary(quality, vocabulary)
    names = {"PQ": "PQ", "SQ": "SQ", "RQ": "RQ", "mIoU": "mIoU", "PQ-dagger": "PQ_dagger"}
    assert not np.isnan(quality.pq).any()  # every class occurs, so the means agree as well
    for mine, official in names.items():
        assert ours["all"][mine] == pytest.approx(theirs["all"][official], abs=1e-6)
    assert 0.3 < ours["things"]["PQ"] < 0.9


def test_a_submission_numbers_instances_with_three_digits(tmp_path):
    submission = Submission(tmp_path, "mini_val")
    class_id, instance_id = np.array([4, 16, 4], np.uint8), np.array([999, 0, 1], np.uint16)
    submission.write("a", labels_of(class_id, instance_id))
    with np.load(tmp_path / "panoptic/mini_val/a_panoptic.npz") as data:
        assert data["data"].dtype == np.uint16 and data["data"].tolist() == [4999, 16000, 4001]
    with pytest.raises(InputError, match="instance 1000; nuScenes' format ends at 999"):
        submission.write("b", labels_of(class_id, instance_id + np.uint16(1)))


@dataclass(frozen=True)
class Witness:
    """A student that says what it is told, sweep by sweep."""

    vocabulary: Vocabulary
    said: dict

    def label(self, sweep, images=()):
        return self.said[sweep.stamp]

    def corrected(self, labels, sweep, afi):
        return labels


def test_evaluation_counts_segments_where_truth_and_student_know_instances(frames, tree, tmp_path):
    vocabulary = Vocabulary.load("nuscenes16")
    answers = {
        f.sweep.stamp: labels_of(f.truth.class_id, f.truth.instance_id) for f in frames
    }  # fmt: skip
    split = Split.named(vocabulary, "nuscenes-b12n4")
    result = evaluate([open_tree(tree)], Witness(vocabulary, answers), split=split)
    assert set(result.panoptic.pq[~np.isnan(result.panoptic.pq)]) == {1.0}
    rows = {row[0]: row[1:] for row in result.panoptic_rows()}
    assert rows["vegetation (novel)"] == ["100.0"] * 4 + [""]
    assert rows["mean of novel things"] == ["100.0"] * 5
    result.save(tmp_path)
    assert (tmp_path / "panoptic.csv").read_text().count("\n") == len(rows)
    assert json.loads((tmp_path / "metrics.json").read_text())["panoptic"]["all"]["PQ"] == 1
    assert "mean of novel stuff" in str(result)

    semantic = {stamp: replace(a, instance_id=None) for stamp, a in answers.items()}
    plain = evaluate([open_tree(tree)], Witness(vocabulary, semantic))
    assert plain.panoptic is None and plain.panoptic_rows() == []
    assert np.array_equal(plain.matrices["student, all"], result.matrices["student, all"])
    shutil.copytree(tree, tmp_path / "t")
    (tmp_path / "t/v1.0-mini/panoptic.json").unlink()
    without = evaluate([open_tree(tmp_path / "t")], Witness(vocabulary, answers))
    assert without.panoptic is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"PK\x03\x04 and no more", "expected an .npz with one array 'data'"),
        ({"labels": np.zeros(5, np.uint16)}, "expected an .npz with one array 'data'"),
        ({"data": np.zeros(5, np.uint16)}, r"uint16 of shape \(5,\), expected \d+ numbers"),
        ({"data": np.full(9, 4.5)}, "float64 of shape"),
        ({"data": np.array([object()])}, "expected an .npz with one array 'data'"),
    ],
)
def test_panoptic_labels_that_are_none_name_the_file(frames, tmp_path, data, said):
    write_nuscenes(frames[:2], tmp_path / "t", per_scene=2, rate=1.0)
    file = next((tmp_path / "t/panoptic/v1.0-mini").iterdir())
    if isinstance(data, bytes):
        file.write_bytes(data)
    else:
        np.savez(file, **data)
    with pytest.raises(InputError, match=r"_panoptic\.npz: .*" + said):
        list(open_tree(tmp_path / "t"))


def test_what_the_devkit_refuses_is_said_in_one_line(tree, frames, tmp_path):
    source = open_tree(tree)
    Submission(tmp_path, "mini_val").lidarseg.mkdir(parents=True)
    with pytest.raises(InputError, match=r"prediction \.bin file .* does not exist"):
        evaluate_officially(source, tmp_path)
    small = tmp_path / "one"
    write_nuscenes(frames[:2], small, per_scene=2, rate=1.0)
    with pytest.raises(InputError, match=r"panoptic/mini_val\) does not exist"):
        evaluate_panoptic_officially(source, tmp_path)
    with pytest.raises(InputError, match=r"every scene of mini_val; not in this tree: scene-0916"):
        evaluate_officially(open_tree(small), tmp_path)
    with pytest.raises(InputError, match="not empty"):
        write_nuscenes(frames, tree, per_scene=2, rate=1.0)


def test_labels_that_do_not_fit_their_sweep_name_the_file(frames, tmp_path):
    write_nuscenes(frames[:2], tmp_path / "t", per_scene=2, rate=1.0)
    label = next((tmp_path / "t/lidarseg/v1.0-mini").iterdir())
    label.write_bytes(label.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"_lidarseg\.bin: \d+ labels for \d+ points"):
        list(open_tree(tmp_path / "t"))


def test_training_never_reads_the_trees_truth(tree, tmp_path):
    blind = tmp_path / "blind"
    shutil.copytree(tree, blind)
    for file in (*(blind / "lidarseg").rglob("*.bin"), *(blind / "panoptic").rglob("*.npz")):
        file.write_bytes(b"")
    training = NuScenesSource(blind, "v1.0-mini", "mini_val")
    reference = open_tree(tree)
    for one, other in zip(training, reference, strict=True):
        assert one.truth is None and np.array_equal(one.sweep.points, other.sweep.points)


def test_the_papers_split_parts_the_training_scenes():
    official = create_splits_scenes()
    splits = with_papers_splits(official)
    assert len(splits["train600"]) == 600 and len(splits["train100"]) == 100
    assert sorted(splits["train600"] + splits["train100"]) == sorted(official["train"])
    assert {k: splits[k] for k in official} == official


def test_a_share_of_the_labels_is_every_nth_scene(tree):
    source = open_tree(tree)
    names = [s["name"] for s in source.scenes]
    assert len(names) == 2
    assert [s["name"] for s in source.every(2).scenes] == names[1:]
    assert len(source) == 2 * len(source.every(2)) and source.every(1).scenes == source.scenes
    with pytest.raises(InputError, match="2 scenes, so none is the 100th"):
        source.every(100)
