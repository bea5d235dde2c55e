"""Real sweeps through an exported panoptic model: six cameras, one, none; KITTI's one camera.

The real SemanticKITTI scan has no image at hand, KITTI's own frame has one, and a part of a scan.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from afov.pairing import pair_images
from afov.sources.nuscenes import NuScenesSource
from afov.sources.semantickitti import SemanticKittiSource
from afov.student import Student
from afov.vocabulary import Vocabulary
from afov_train.teachers.config import TeacherConfig
from afov_train.teachers.image_onnx import image_tower
from afov_train.teachers.open_clip_teacher import OpenClipTeacher
from tests.afov_train.test_panoptic_export import overlapping, untrained, write  # noqa: F401

# KITTI's numbers: the colour camera ahead, 6 cm beside the grey one; LiDAR axes turned.
CALIBRATION = """\
P2: 718.856 0 607.193 45.38 0 718.856 185.216 -0.11 0 0 1 0.0038
Tr: 0.0004 -1 -0.008 -0.012 -0.007 0.008 -1 -0.054 1 0.0005 -0.007 -0.292
"""
SIZE = (1241, 376)


@pytest.fixture(scope="module")
def tower():
    return image_tower(TeacherConfig(), (2, 4))


def model(vocabulary, tower, frame, folder):
    bank = OpenClipTeacher(TeacherConfig(), Vocabulary.load(vocabulary)).text_bank
    return Student.open(write(untrained(bank), bank, tower, frame, folder))


@pytest.fixture(scope="module")
def nuscenes(shared, tower, tmp_path_factory):
    frame = next(iter(NuScenesSource(shared / "data/nuscenes-one-sample", "v1.0-mini")))
    return frame, model("nuscenes16", tower, frame, tmp_path_factory.mktemp("n") / "model")


def in_a_tree(root, tower, scan, image, calibration):
    """One frame as SemanticKITTI lays it out, and a model."""
    sequence = root / "sequences/00"
    for part, file in (("velodyne", scan), ("image_2", image)):
        (sequence / part).mkdir(parents=True)
        (sequence / part / f"000000{file.suffix}").symlink_to(file)
    (sequence / "calib.txt").write_text(calibration)
    frame = next(iter(SemanticKittiSource(root)))
    return frame, model("semantickitti19", tower, frame, root / "model")


@pytest.fixture(scope="module")
def kitti(shared, tower, tmp_path_factory):
    """The real scan in a tree; the data at hand has no image, so one of noise of KITTI's size."""
    scan = shared / "data/semantickitti-one-frame/000000.bin"
    if not scan.exists():
        pytest.skip(f"needs {scan}")
    root = tmp_path_factory.mktemp("kitti")
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    Image.fromarray(pixels).save(root / "noise.png")
    return in_a_tree(root, tower, scan, root / "noise.png", CALIBRATION)


def check(student, frame, labels):
    """Every point has a class and an id that fit each other; ids count from 1."""
    count = len(frame.sweep)
    assert labels.class_id.shape == labels.instance_id.shape == labels.score.shape == (count,)
    assert labels.class_id.any() and labels.class_id.max() < len(student.vocabulary.names)
    assert np.isfinite(labels.score).all() and np.isfinite(labels.voxel_embedding).all()
    thing = np.array([False, *(c.thing for c in student.vocabulary.labelled)])
    assert np.array_equal(labels.instance_id > 0, thing[labels.class_id])
    # An id is one object of one class; a mask may lose all its points to a coarser voxel's others.
    for one in np.unique(labels.instance_id[labels.instance_id > 0]):
        assert len(np.unique(labels.class_id[labels.instance_id == one])) == 1


def check_seeing_and_blind(student, frame):
    """Both hold, and the image makes a difference."""
    seeing, blind = (student.label(frame.sweep, images) for images in (frame.images, ()))
    for labels in (seeing, blind):
        check(student, frame, labels)
    assert not np.array_equal(seeing.voxel_embedding, blind.voxel_embedding)


@pytest.mark.parametrize("cameras", [6, 1, 0])
def test_a_nuscenes_sweep_with_all_cameras_one_and_none(nuscenes, cameras, overlapping):  # noqa: F811
    frame, student = nuscenes
    labels = student.label(frame.sweep, frame.images[:cameras])
    assert len(frame.sweep) == 34688 and len(frame.images) == 6
    check(student, frame, labels)


def test_a_kitti_scan_with_its_camera_and_without(kitti, overlapping):  # noqa: F811
    frame, student = kitti
    assert len(frame.sweep) == 123389
    (image,) = frame.images
    assert image.image.shape == (SIZE[1], SIZE[0], 3)
    seen = student.panoptic.tower.look(frame.sweep.xyz, frame.images)
    assert 0.1 < len(seen.point) / len(frame.sweep) < 0.25
    assert (frame.sweep.xyz[seen.point, 0] > 0).all(), "the camera looks ahead"
    check_seeing_and_blind(student, frame)


@pytest.fixture(scope="module")
def kitti_camera(shared, tower, tmp_path_factory):
    """KITTI's frame 8: the scan where the camera looks, its real image and calibration."""
    folder = shared / "data/kitti-000008"
    if not folder.exists():
        pytest.skip(f"needs {folder}")
    camera = json.loads((folder / "000008.json").read_text())["images"]["CAM2"]
    rows = {"P2": camera["cam2img"], "Tr": camera["lidar2cam"]}
    lines = (f"{k}: {' '.join(map(str, np.ravel(m)[:12]))}" for k, m in rows.items())
    root, files = (
        tmp_path_factory.mktemp("kitti8"),
        (folder / f"000008.{k}" for k in ("bin", "png")),
    )
    return in_a_tree(root, tower, *files, "\n".join(lines))


def test_a_kitti_frame_with_its_real_image_and_without(kitti_camera, overlapping):  # noqa: F811
    frame, student = kitti_camera
    (image,) = frame.images
    covered = pair_images(frame.sweep.xyz, frame.images)[1]
    ahead = frame.sweep.xyz[:, 0] > 2
    assert covered[ahead].mean() > 0.99, "the scan is cropped to what the camera sees"
    assert len(np.unique(image.image)) > 200
    check_seeing_and_blind(student, frame)
