"""A panoptic model on the node: cameras are looked at when they are there, never waited for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

import afov.panoptic
from afov.cameras import Camera
from afov.clouds import read_points
from afov.frames import CameraImage
from afov.student import Labels, Student
from afov.vocabulary import Vocabulary
from afov.voxels import VoxelGrid
from tests.afov_ros.conftest import Peer, message, random_sweep, running, structured

NAME = "fused"
WIDTH, HEIGHT, FOCAL = 160, 96, 100.0
OPTICAL = Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
SWEEP = random_sweep(2500, seed=3)
PIXELS = np.random.default_rng(2).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture(scope="module")
def panoptic_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained: what it answers is arbitrary, but depends on the images."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("open_clip")
    from afov_train.export import export_student
    from afov_train.network.config import NetworkConfig
    from afov_train.panoptic.config import DecoderConfig, PanopticConfig
    from afov_train.panoptic.export import panoptic_files
    from afov_train.panoptic.targets import BaseClasses
    from afov_train.panoptic.training import build_panoptic
    from afov_train.teachers.config import TeacherConfig
    from afov_train.teachers.image_onnx import image_tower
    from afov_train.teachers.open_clip_teacher import OpenClipTeacher

    torch.set_num_threads(1)
    torch.manual_seed(0)
    bank = OpenClipTeacher(TeacherConfig(), Vocabulary.load("nuscenes16")).text_bank
    config = PanopticConfig(decoder=DecoderConfig(width=32, proposals=4, queries=12))
    network = build_panoptic(NetworkConfig(), bank, BaseClasses.of(bank.vocabulary, ()), config)
    network.decoder.bias.data.fill_(1.0)
    # Initial weights would make little of an image.
    network.decoder.mix[0].weight.data[:, bank.embeddings.shape[1] :] *= 30
    tower, grid = image_tower(TeacherConfig(), (1, 2)), VoxelGrid("cylindrical")
    inputs, names = NetworkConfig().inputs, [c.name for c in bank.vocabulary.labelled]
    files = panoptic_files(network, tower, "single", names, inputs, grid, SWEEP, (seen(),))
    return export_student(
        network.trunk, config=NetworkConfig(), grid=grid, text_bank=bank, temperature=0.07,
        provenance={}, sweep=SWEEP, folder=tmp_path_factory.mktemp("fused") / "model",
        panoptic=files,
    )  # fmt: skip


def seen() -> CameraImage:
    """The camera's image, mounted at the LiDAR and looking ahead."""
    matrix = np.eye(4)
    matrix[:3, :3] = OPTICAL.as_matrix().T
    k = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    return CameraImage("cam_a", 0, PIXELS, Camera(WIDTH, HEIGHT, k), matrix)


@pytest.fixture(scope="module")
def answers(panoptic_model: Path) -> tuple[Labels, Labels]:
    """The student's own, with the image and without."""
    patch = pytest.MonkeyPatch()
    patch.setattr(afov.panoptic, "VISIBLE", 0.0)
    student = Student.open(panoptic_model)
    seeing, blind = (student.label(SWEEP, images) for images in ((seen(),), ()))
    patch.undo()
    assert seeing.instance_id is not None and seeing.instance_id.any()
    assert np.median(np.abs(seeing.score - blind.score)) > 1e-3
    return seeing, blind


@pytest.fixture(scope="module")
def peer(
    panoptic_model: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Peer]:
    from sensor_msgs.msg import CameraInfo, Image, PointCloud2

    file = tmp_path_factory.mktemp("mounts") / "mounts.yaml"
    turn = [float(v) for v in OPTICAL.as_quat()]
    mount = {"parent": "lidar", "child": "cam_a", "translation": [0.0] * 3, "rotation": turn}
    file.write_text(yaml.safe_dump({"frames": [mount]}))
    parameters = [f"model:={panoptic_model}", "cameras:=[/cam_a/image_raw]"]
    parameters.append(f"extrinsics:={file}")
    program = Path(__file__).with_name("untrained_panoptic.py")
    with running(NAME, *parameters, environment=environment, program=program):
        peer = Peer()
        peer.images = peer.ros.create_publisher(Image, "/cam_a/image_raw", 5)
        peer.infos = peer.ros.create_publisher(CameraInfo, "/cam_a/camera_info", 5)
        peer.answered = peer.listen(PointCloud2, f"/{NAME}/segmentation")
        yield peer
        peer.close()


def labelled(peer: Peer, second: int, done: Any, *, image: bool) -> np.ndarray:
    """The first answer at that second that satisfies `done`."""
    from sensor_msgs.msg import CameraInfo, Image

    cloud = message(structured(SWEEP), stamp=(second, 0))
    picture = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
    picture.data = PIXELS.tobytes()
    k = [FOCAL, 0.0, WIDTH / 2, 0.0, FOCAL, HEIGHT / 2, 0.0, 0.0, 1.0]
    info = CameraInfo(width=WIDTH, height=HEIGHT, k=k)
    for header in (picture.header, info.header):
        header.frame_id, header.stamp.sec = "cam_a", second
    found: list[np.ndarray] = []

    def heard() -> bool:
        if image:
            peer.infos.publish(info)
            peer.images.publish(picture)
        for answer in peer.answered:
            if answer.header.stamp.sec == second and done(read_points(answer)):
                found.append(read_points(answer))
        return bool(found)

    peer.stream(cloud, heard)
    return found[0]


def same(points: np.ndarray, labels: Labels) -> bool:
    ids = np.where(labels.class_id == 0, 255, labels.class_id)
    near = np.abs(points["probability"] - labels.score) < 3e-4
    return bool(((points["class_id"] == ids) & near).mean() > 0.99)


def test_labels_are_those_with_the_cameras_image_when_it_is_there(
    peer: Peer, answers: tuple[Labels, Labels]
) -> None:
    seeing, _ = answers
    points = labelled(peer, 100, lambda p: same(p, seeing), image=True)
    assert seeing.instance_id is not None
    # Ids are others, that last; what belongs together is the same.
    both = seeing.instance_id, points["instance_id"]
    pairs = {(int(a), int(b)) for a, b in zip(*both, strict=True)}
    assert len(pairs - {(0, 0)}) == len({a for a, _ in pairs} - {0}) > 0


def test_a_camera_that_falls_silent_is_done_without(
    peer: Peer, answers: tuple[Labels, Labels]
) -> None:
    seeing, blind = answers
    labelled(peer, 200, lambda p: same(p, seeing), image=True)
    points = labelled(peer, 205, lambda p: True, image=False)
    assert same(points, blind) and not same(points, seeing)
