"""SemanticKITTI: geometry by the data set's own formula, labels of the real frame, bad files."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from nuscenes.eval.panoptic.panoptic_seg_evaluator import PanopticEval
from PIL import Image

from afov.errors import InputError
from afov.pairing import pair
from afov.panoptic_quality import SEMANTICKITTI_MIN_POINTS, panoptic_quality
from afov.sources.semantickitti import TO_19, SemanticKittiSource, read_labels, read_sweep
from afov.vocabulary import Vocabulary

# KITTI's kind of numbers: the colour camera 6 cm beside the grey one, LiDAR axes turned.
P2 = np.array([[707.0, 0, 604.1, 45.8], [0, 707.0, 180.5, -0.3], [0, 0, 1, 0.005]])
TR = np.array(
    [[0.01, -0.9999, 0.008, -0.01], [0.01, -0.008, -0.9999, -0.06], [1, 0.01, 0.01, -0.3]]
)
FRAMES = 3


@pytest.fixture
def tree(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("00", "08"):
        folder = tmp_path / "sequences" / name
        for part in ("velodyne", "labels", "image_2"):
            (folder / part).mkdir(parents=True)
        for k in range(FRAMES):
            xyz = rng.uniform([2, -20, -2], [50, 20, 2], (400, 3))
            points = np.c_[xyz, rng.uniform(0, 1, 400)].astype(np.float32)
            points.tofile(folder / f"velodyne/{k:06d}.bin")
            label = rng.choice([0, 10, 40, 81, 252, 99, 7, 60000], 400).astype(np.uint32)
            (label | (rng.integers(0, 9, 400).astype(np.uint32) << 16)).tofile(
                folder / f"labels/{k:06d}.label"
            )
            Image.new("RGB", (1226, 370), (k, 0, 0)).save(folder / f"image_2/{k:06d}.png")
        lines = {"P0": P2, "P2": P2, "Tr": TR}
        text = [f"{n}: " + " ".join(map(str, m.ravel())) for n, m in lines.items()]
        (folder / "calib.txt").write_text("\n".join(text))
        (folder / "times.txt").write_text("\n".join(f"{k * 0.1:e}" for k in range(FRAMES)))
        poses = [np.c_[np.eye(3), [0, 0, 2.0 * k]].ravel() for k in range(FRAMES)]
        (folder / "poses.txt").write_text("\n".join(" ".join(map(str, p)) for p in poses))
    return tmp_path


def test_points_fall_where_the_data_sets_formula_puts_them(tree):
    frame = next(iter(SemanticKittiSource(tree, "val")))
    (image,) = frame.images
    xyz1 = np.c_[frame.sweep.xyz.astype(float), np.ones(len(frame.sweep))]
    u, v, w = P2 @ np.vstack((TR, [0, 0, 0, 1])) @ xyz1.T
    pairs = pair(frame.sweep.xyz, image)
    assert len(pairs.point) > 100
    assert np.abs(pairs.col - (u / w)[pairs.point]).max() <= 0.51
    assert np.abs(pairs.row - (v / w)[pairs.point]).max() <= 0.51


def test_poses_bring_a_fixed_point_back_to_itself(tree):
    frames = list(SemanticKittiSource(tree, sequences=("00",)))
    assert [f.token for f in frames] == ["00-000000", "00-000001", "00-000002"]
    assert [f.sweep.stamp for f in frames] == [0, 10**8, 2 * 10**8]
    # The camera moves 2 m along its z a frame: so the LiDAR moves about 2 m along its x.
    moved = frames[1].world_from_lidar[:3, 3] - frames[0].world_from_lidar[:3, 3]
    assert np.allclose(moved, [2, 0.02, 0.02], atol=0.03)
    assert np.allclose(frames[0].world_from_lidar, np.eye(4), atol=0.03)


def test_splits_sequences_and_every_nth(tree):
    assert len(SemanticKittiSource(tree)) == 6
    assert len(SemanticKittiSource(tree, "train")) == len(SemanticKittiSource(tree, "val")) == 3
    assert [f.token for f in SemanticKittiSource(tree, every=2)] == [
        "00-000000", "00-000002", "08-000000", "08-000002",
    ]  # fmt: skip
    with pytest.raises(InputError, match="expected one of train, val, test"):
        SemanticKittiSource(tree, "mini")
    with pytest.raises(InputError, match="no sequence '11'; there are 00, 08"):
        SemanticKittiSource(tree, sequences=("11",))
    with pytest.raises(InputError, match="no sequence with a velodyne/ folder"):
        SemanticKittiSource(tree / "sequences")


def test_truth_comes_only_where_it_is_asked_for(tree):
    assert all(f.truth is None for f in SemanticKittiSource(tree))
    frame = next(iter(SemanticKittiSource(tree, truth=True)))
    raw = frame.truth.raw
    expected = {0: 0, 10: 1, 40: 9, 81: 19, 252: 1, 99: 0, 7: 0, 60000: 0}
    assert frame.truth.class_id.tolist() == [expected[int(r)] for r in raw]
    assert 0 < frame.truth.instance_id.max() < 9


def test_every_evaluation_class_has_a_raw_one():
    names = Vocabulary.load("semantickitti19").names
    assert len(names) == 20 and set(TO_19) == set(range(20))
    moving = {252: "car", 253: "bicyclist", 254: "person", 255: "motorcyclist", 258: "truck"}
    assert {r: names[TO_19[r]] for r in moving} == moving


def test_the_real_frame(shared):
    folder = shared / "data/semantickitti-one-frame"
    points = read_sweep(folder / "000000.bin")
    truth = read_labels(folder / "000000.label", len(points))
    assert (
        points.shape == (123_389, 4) and points[:, 3].min() >= 0 and 100 < points[:, 3].max() <= 255
    )
    assert {252, 254} <= set(truth.raw.tolist())
    assert (truth.class_id[truth.raw == 252] == 1).all()
    road = truth.class_id == 9
    assert road.mean() > 0.05 and np.median(points[road, 2]) < -1.4


def test_instances_of_the_real_frame_are_what_the_official_evaluator_reads(shared):
    file = shared / "data/semantickitti-one-frame/000000.label"
    truth = read_labels(file, 123_389)
    words = struct.unpack("<123389I", file.read_bytes())
    assert truth.instance_id.tolist() == [w >> 16 for w in words]
    cars = truth.instance_id[truth.class_id == 1]
    assert np.unique(cars).tolist() == [1, 2, 3, 194, 195, 196, 198]

    rng = np.random.default_rng(0)
    said = np.where(rng.random(len(words)) < 0.2, 15, truth.class_id)
    number = np.where(rng.random(len(words)) < 0.2, 0, truth.instance_id)
    columns = (truth.panoptic_class_id, truth.instance_id, said, number)
    judge = PanopticEval(20, ignore=[0], offset=100_000, min_points=SEMANTICKITTI_MIN_POINTS)
    judge.addBatch(said, number, *(c.astype(int) for c in columns[:2]))
    quality = panoptic_quality(*columns, 19, SEMANTICKITTI_MIN_POINTS)
    assert np.nan_to_num(quality.pq) == pytest.approx(judge.getPQ()[3][1:], abs=1e-9)
    assert np.nan_to_num(quality.iou) == pytest.approx(judge.getSemIoU()[1][1:], abs=1e-9)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("velodyne/000000.bin", b"12345", "5 bytes, expected a multiple of 16"),
        ("labels/000000.label", b"1234", "4 bytes, expected 1600 for 400 points"),
        ("calib.txt", b"P2: 1 2 3", "no line 'P2:' with 12 numbers"),
        ("poses.txt", b"1 2 3", "expected 12 numbers in every line"),
        ("times.txt", b"now", "expected numbers"),
    ],
)
def test_a_bad_file_is_named(tree, file, content, said):
    (tree / "sequences/00" / file).write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        list(SemanticKittiSource(tree, "train", truth=True))
    assert file in str(caught.value)


def test_a_bad_image_is_counted_and_the_sweep_stays(tree):
    (tree / "sequences/00/image_2/000000.png").write_bytes(b"no image")
    (tree / "sequences/00/image_2/000001.png").unlink()
    source = SemanticKittiSource(tree, "train")
    assert [len(f.images) for f in source] == [0, 0, 1]
    assert source.skipped == {"image_2: corrupt image": 1, "image_2: no image": 1}
