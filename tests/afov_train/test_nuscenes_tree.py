"""The simulated nuScenes tree: the devkit opens it, evaluates it, and it holds the same drive."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from nuscenes.utils.splits import create_splits_scenes

from afov.errors import InputError
from afov.metrics import confusion, iou, mean_iou
from afov.sources.bags import BagSource
from afov.sources.nuscenes import NuScenesSource
from afov.sources.nuscenes_classes import RAW_TO_16
from afov.sources.nuscenes_splits import with_papers_splits
from afov_train.nuscenes_eval import (
    Submission,
    evaluate_officially,
)
from afov_train.simulation.config import SimConfig
from afov_train.simulation.drive import simulate
from afov_train.simulation.write_foxglove import write_foxglove
from afov_train.simulation.write_nuscenes import write_nuscenes
from tests.afov_train.conftest import bank, labels_of, open_tree


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
        submission.write(frame.token, labels_of(predicted), bank())
        matrix = matrix + confusion(frame.truth.class_id, predicted, 16)
    assert np.isnan(iou(matrix)).sum() == (0 if buses else 1)
    theirs = evaluate_officially(source, tmp_path)
    assert theirs["miou"] == pytest.approx(mean_iou(matrix), abs=1e-6)
    per_class = [v for k, v in theirs["iou_per_class"].items() if k != "ignore"]
    assert np.allclose(per_class, iou(matrix), atol=1e-6, equal_nan=True)
    assert 0.2 < theirs["miou"] < 0.8


def test_what_the_devkit_refuses_is_said_in_one_line(tree, frames, tmp_path):
    source = open_tree(tree)
    Submission(tmp_path, "mini_val").lidarseg.mkdir(parents=True)
    with pytest.raises(InputError, match=r"prediction \.bin file .* does not exist"):
        evaluate_officially(source, tmp_path)
    small = tmp_path / "one"
    write_nuscenes(frames[:2], small, per_scene=2, rate=1.0)
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
