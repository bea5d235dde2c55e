"""Pseudo-instances: clusters as DBSCAN has them, masks cleaned by them, ids that last."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afov.errors import InputError
from afov.frames import Sweep
from afov.pairing import pair_images
from afov.panoptic_quality import no_sweeps, panoptic_quality, panoptic_summary
from afov.sources.bags import BagSource
from afov.student import Student
from afov.vocabulary import Vocabulary
from afov.voxels import VoxelGrid
from afov_train.clusters import dbscan
from afov_train.panoptic.config import DecoderConfig, PanopticConfig, PanopticTrainConfig
from afov_train.panoptic.follow import Followed
from afov_train.panoptic.instances import instances, pseudo_instances
from afov_train.panoptic.pipeline import panoptic
from afov_train.panoptic.targets import PanopticTarget
from afov_train.recordings import Recording
from afov_train.simulation.config import SimConfig
from afov_train.simulation.drive import simulate
from afov_train.taught import NO_PHRASE, UNKNOWN_POSE, TaughtSweep
from afov_train.teachers.config import TeacherConfig
from tests.afov_train.conftest import copied

VOCABULARY = Vocabulary.load("nuscenes16")
THING = np.array([False, *(c.thing for c in VOCABULARY.labelled)])
FIRST = np.array([np.argmax(VOCABULARY.phrase_class_id == k) for k in range(17)])
CAR, PEDESTRIAN, ROAD = map(VOCABULARY.names.index, ("car", "pedestrian", "driveable_surface"))


@given(st.integers(0, 80), st.integers(0, 2**32 - 1), st.floats(0.2, 3.0), st.integers(1, 6))
@settings(max_examples=80, deadline=None)
def test_clusters_are_dbscans(count, seed, radius, least):
    """The definition, in all pairs; a border point may lie in reach of two clusters."""
    xyz = np.random.default_rng(seed).uniform(0, 8, (count, 3))
    xyz[: count // 2] /= 4
    apart = np.linalg.norm(xyz[:, None] - xyz[None], axis=2)
    core = (apart <= radius).sum(1) >= least
    together = (apart <= radius) & core[:, None] & core[None]
    for _ in range(7):  # 2^7 steps from core to core
        together = (together.astype(int) @ together) > 0
    cluster = dbscan(xyz, radius, least)
    same = cluster[:, None] == cluster[None]
    assert np.array_equal(same[np.ix_(core, core)], together[np.ix_(core, core)])
    near_core = ((apart <= radius) & core[None]).any(1)
    assert ((cluster >= 0) == near_core).all()
    for k in np.flatnonzero(near_core):
        assert (cluster[core & (apart[k] <= radius)] == cluster[k]).any()
    assert set(cluster[cluster >= 0]) == set(range(cluster.max(initial=-1) + 1))


def test_clusters_are_scikit_learns():
    cluster = pytest.importorskip("sklearn.cluster")
    xyz = np.random.default_rng(0).uniform(0, 30, (3000, 3)) * [1, 1, 0.1]
    theirs = cluster.DBSCAN(eps=0.7, min_samples=4).fit(xyz)
    ours = dbscan(xyz, 0.7, 4)
    core = theirs.core_sample_indices_
    pairs = np.unique(np.stack((theirs.labels_[core], ours[core])), axis=1)
    assert len(pairs.T) == len(set(pairs[0])) == len(set(pairs[1])) > 10
    assert ((theirs.labels_ < 0) == (ours < 0)).all()


def box(x, y, points=120, size=(4.0, 1.8, 1.5), seed=0):
    """(points, 3) in a box on the ground."""
    rng = np.random.default_rng(seed)
    return rng.uniform([0, 0, 0], size, (points, 3)) + np.array([x, y, -1])


def taught(xyz, class_id, segments=(), world=None, stamp=0):
    """A sweep whose points have these classes.

    Args:
        segments: (camera, class, points) of every segment.
    """
    pairs = [
        np.stack([points, *(np.full_like(points, v) for v in (camera, 0, 0, k))], 1)
        for k, (camera, _, points) in enumerate(segments)
    ]
    phrase = np.where(class_id > 0, FIRST[class_id], NO_PHRASE).astype(np.int32)
    return TaughtSweep(
        "t", Sweep(xyz.astype(np.float32), ("x", "y", "z"), stamp, "lidar"), phrase,
        np.ones(len(xyz), np.float32), np.ones(len(xyz), bool),
        np.concatenate([np.zeros((0, 5), int), *pairs]).astype(np.int32),
        np.array([FIRST[c] for _, c, _ in segments], np.int32), np.zeros((len(segments), 1)),
        np.zeros((0, 2), np.int32), UNKNOWN_POSE if world is None else world,
    )  # fmt: skip


def groups(target):
    """The instances as sets of points."""
    ids = target.instance_id
    return {frozenset(np.flatnonzero(ids == one)) for one in set(ids) - {0}}


def test_one_segment_per_phrase_falls_into_its_clusters():
    xyz = np.concatenate((box(5, 0), box(12, 0, seed=1), box(5, 8, seed=2)))
    class_id = np.repeat([CAR, CAR, ROAD], 120)
    found = instances(taught(xyz, class_id, [(0, CAR, np.arange(240))]), VOCABULARY)
    assert groups(found) == {frozenset(range(120)), frozenset(range(120, 240))}
    assert np.array_equal(found.class_id, class_id)
    assert found.class_id.dtype == np.uint8 and found.instance_id.dtype == np.uint16


def test_a_mask_becomes_the_cluster_that_it_overlaps_most():
    """It misses a third of its car and takes points of another one behind."""
    xyz = np.concatenate((box(5, 0), box(12, 0, seed=1)))
    masks = [(0, CAR, np.r_[0:80, 120:130]), (0, CAR, np.r_[80:85, 130:240])]
    found = instances(taught(xyz, np.full(240, CAR), masks), VOCABULARY)
    assert groups(found) == {frozenset(range(120)), frozenset(range(120, 240))}


def test_points_take_the_class_of_most_around_them_and_small_objects_keep_theirs():
    xyz = np.concatenate((box(5, 0, 400), box(9.1, 0, 120, (0.5, 0.5, 1.7), 1)))
    truth = np.repeat([CAR, PEDESTRIAN], (400, 120))
    said = np.where(np.random.default_rng(0).random(520) < 0.15, CAR + PEDESTRIAN - truth, truth)
    found = instances(taught(xyz, said), VOCABULARY)
    assert (found.class_id == truth).mean() > 0.97 > (said == truth).mean()


def test_masks_tell_apart_what_touches():
    xyz = np.concatenate((box(5, 0, 60, (0.5, 0.5, 1.7)), box(5.5, 0, 60, (0.5, 0.5, 1.7), 1)))
    masks = [(0, PEDESTRIAN, np.arange(60)), (0, PEDESTRIAN, np.arange(60, 120))]
    found = instances(taught(xyz, np.full(120, PEDESTRIAN), masks), VOCABULARY)
    assert groups(found) == {frozenset(range(60)), frozenset(range(60, 120))}
    together = instances(taught(xyz, np.full(120, PEDESTRIAN)), VOCABULARY)
    assert groups(together) == {frozenset(range(120))}


def test_a_car_that_two_cameras_see_in_part_is_one():
    xyz = np.concatenate((box(5, 0), box(30, 0, 50, seed=1)))
    masks = [(0, CAR, np.arange(70)), (1, CAR, np.arange(65, 120)), (1, CAR, np.arange(120, 170))]
    found = instances(taught(xyz, np.full(170, CAR), masks), VOCABULARY)
    assert groups(found) == {frozenset(range(120)), frozenset(range(120, 170))}


def test_instances_are_counted_without_a_gap_though_masks_may_hide_one():
    xyz = np.concatenate([box(5 + 0.6 * k, 0, 60, (0.5, 0.5, 1.7), k) for k in range(3)])
    whole, parts = np.arange(180), np.split(np.arange(180), 3)
    masks = [(0, PEDESTRIAN, whole), *((0, PEDESTRIAN, part) for part in parts)]
    found = instances(taught(xyz, np.full(180, PEDESTRIAN), masks), VOCABULARY)
    assert groups(found) == {frozenset(part) for part in parts}
    assert set(found.instance_id) == {1, 2, 3}


def test_stray_points_of_things_stay_unlabelled_and_stuff_has_no_instance():
    xyz = np.concatenate((box(5, 0), [[40, 40, 0], [60, 10, 0], [np.nan] * 3], box(0, 9, seed=1)))
    class_id = np.r_[np.full(123, CAR), np.full(120, ROAD)]
    found = instances(taught(xyz, class_id), VOCABULARY)
    assert found.class_id[120:123].tolist() == [0, 0, 0]
    assert set(found.instance_id[120:]) == {0} and (found.class_id[123:] == ROAD).all()
    nothing = instances(taught(np.zeros((0, 3)), np.zeros(0, int)), VOCABULARY)
    assert len(nothing.class_id) == len(nothing.instance_id) == 0


def street(step, ego=8.0, fast=12.0):
    """A parked car, one overtaking, a pedestrian, in the frame of a LiDAR that moves along x."""
    seconds = 0.1 * step
    world = np.eye(4)
    world[0, 3] = ego * seconds
    parts = [
        box(20, -4, seed=step), box(-5 + fast * seconds, 4, seed=step + 100),
        box(25, -8 + 1.3 * seconds, 40, (0.5, 0.5, 1.7), step + 200),
    ]  # fmt: skip
    order = np.random.default_rng(step).permutation(280)
    class_id = np.repeat([CAR, CAR, PEDESTRIAN], (120, 120, 40))[order]
    xyz = (np.concatenate(parts) - world[:3, 3])[order]
    truth = np.repeat([1, 2, 3], (120, 120, 40))[order]
    return taught(xyz, class_id, world=world, stamp=step * 100_000_000), truth


def test_ids_last_while_sensor_and_objects_move():
    seen = {}
    sweeps = [street(step) for step in range(25)]
    targets = pseudo_instances((sweep for sweep, _ in sweeps), VOCABULARY)
    for (_, truth), target in zip(sweeps, targets, strict=True):
        for k in (1, 2, 3):
            seen.setdefault(k, set()).update(target.instance_id[truth == k])
    assert all(len(ids) == 1 for ids in seen.values()) and len(set.union(*seen.values())) == 3


def test_an_object_hidden_for_a_moment_keeps_its_id_and_one_gone_for_long_does_not():
    followed, one = Followed(), np.ones(120, np.uint16)
    ids = [
        int(followed.ids(box(4 * t, 0), one, np.eye(4), round(t * 1e9))[1])
        for t in (0.0, 0.1, 0.2, 0.3, 0.9, 2.5)
    ]
    assert ids == [1, 1, 1, 1, 1, 2]
    assert followed.ids(box(0, 0), one, np.eye(4), 0)[1] == 3  # time jumped back: another drive


def test_without_poses_every_sweep_has_new_ids():
    sweeps = [replace(street(step)[0], world_from_lidar=UNKNOWN_POSE) for step in range(2)]
    one, other = (set(t.instance_id) for t in pseudo_instances(sweeps, VOCABULARY))
    assert one == {1, 2, 3} and other == {4, 5, 6}


def seen_by_a_perfect_teacher(frame, rng, instances_told_apart):
    """Segments of the true objects in every image, blurred by up to two pixels' neighbours."""
    truth = frame.truth
    number = truth.instance_id if instances_told_apart else truth.class_id
    segments = []
    for camera, found in enumerate(pair_images(frame.sweep.xyz, frame.images)[0]):
        # At a mask's edge a point takes the label of its neighbour in the image.
        order = np.lexsort((found.col, found.row // 6))
        shift = np.clip(np.arange(len(order)) + rng.integers(-1, 2, len(order)), 0, len(order) - 1)
        says = found.point[order][shift]
        key = truth.class_id[says].astype(int) * 1000 + number[says]
        for one in np.unique(key[truth.class_id[says] > 0]):
            segments.append((camera, one // 1000, found.point[order][key == one]))
    return taught(
        frame.sweep.xyz, truth.class_id, segments, frame.world_from_lidar, frame.sweep.stamp
    )


@pytest.fixture(scope="module")
def moving():
    """One street, sweeps a tenth of a second apart; the images are not looked at."""
    config = SimConfig(9, 1, frames_per_street=3, rate=10.0, width=160, height=90, workers=1)
    return list(simulate(config))


@pytest.mark.parametrize("told_apart", [True, False])
def test_objects_of_a_simulated_drive(moving, told_apart):
    rng, quality, ids = np.random.default_rng(0), no_sweeps(16), {}
    sweeps = [seen_by_a_perfect_teacher(f, rng, told_apart) for f in moving]
    for frame, found in zip(moving, pseudo_instances(sweeps, VOCABULARY), strict=True):
        truth = frame.truth
        quality += panoptic_quality(
            truth.panoptic_class_id, truth.instance_id, found.class_id, found.instance_id, 16, 15
        )
        for one in np.unique(truth.instance_id[THING[truth.class_id]]):
            inside = found.instance_id[truth.instance_id == one]
            if len(inside) >= 30 and (inside > 0).mean() > 0.7:
                ids.setdefault(one, []).append(np.bincount(inside[inside > 0]).argmax())
    assert panoptic_summary(quality, VOCABULARY)["things"]["PQ"] > 0.8
    often = [said for said in ids.values() if len(said) == len(moving)]
    assert len(often) > 8 and np.mean([len(set(said)) == 1 for said in often]) > 0.9


@pytest.mark.slow
def test_a_panoptic_model_is_trained_without_a_label(drive, tmp_path):
    """From the bag alone, truth unread, to a model folder; its labels are better than none."""
    blind = copied(
        drive, tmp_path / "b.mcap", lambda t, d: None if t.startswith("/truth") else d
    )  # fmt: skip
    config = PanopticTrainConfig(
        recording=Recording(bag=(blind,), every=4),
        pseudo=True,
        teacher=TeacherConfig(overlap=0.0),
        grid=VoxelGrid(size=(0.5, 3.0, 0.5)),
        panoptic=PanopticConfig(steps=1, batch=1, decoder=DecoderConfig(32, 1, 8, 8, 2, 32)),
        run=tmp_path / "run",
    )
    run = panoptic(config)
    assert Student.open(run / "model").panoptic is not None
    quality = no_sweeps(16)
    for frame in BagSource(drive, truth=True, every=4):
        target = PanopticTarget.of_frame(frame, run / "pseudo/0/instances")
        quality += panoptic_quality(
            frame.truth.class_id, frame.truth.instance_id, target.class_id, target.instance_id,
            16, 15,
        )  # fmt: skip
    found = panoptic_summary(quality, VOCABULARY)
    assert 0.1 < found["things"]["PQ"] < 0.9 and found["stuff"]["PQ"] > 0.3


def test_labels_come_from_one_place(drive, tmp_path):
    config = PanopticTrainConfig(recording=Recording(bag=(drive,)), pseudo=True, labels=tmp_path)
    with pytest.raises(InputError, match="name one of the two"):
        panoptic(config)
