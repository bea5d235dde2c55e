"""Point-pixel pairing, six cameras: against the official code's way, nuscenes-devkit's classes."""

from __future__ import annotations

import numpy as np
from compare import ROOT, Row, by_turns, run
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import view_points
from pyquaternion import Quaternion

from afov.cameras import Camera
from afov.frames import CameraImage
from afov.native import call
from afov.pairing import MIN_DEPTH, pair_images
from afov.transforms import inverse, matrix_from

GOLDEN = ROOT.parent / "shared/golden/pairing_scene0061.npz"
Golden = dict[str, np.ndarray]


def official(golden: Golden, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Points and pixels (row, column): LiDAR, ego, world, ego at the image's time, camera."""
    height, width = golden["image_hw"]
    points = np.c_[golden["points"], np.zeros(len(golden["points"]), np.float32)].T
    cloud = LidarPointCloud(points.copy())
    for key in ("lidar2ego", "lidar_ego2global"):
        cloud.rotate(Quaternion(golden[f"{key}_q"]).rotation_matrix)
        cloud.translate(golden[f"{key}_t"])
    for key in (f"{name}_ego2global", f"{name}_cam2ego"):
        cloud.translate(-golden[f"{key}_t"])
        cloud.rotate(Quaternion(golden[f"{key}_q"]).rotation_matrix.T)
    depth = cloud.points[2]
    uv = view_points(cloud.points[:3], golden[f"{name}_K"], normalize=True)
    seen = depth > MIN_DEPTH
    seen &= (uv[0] > 0) & (uv[0] < width - 1) & (uv[1] > 0) & (uv[1] < height - 1)
    return np.flatnonzero(seen), np.round(uv[:2, seen].T[:, ::-1]).astype(np.int64)


def images(golden: Golden) -> list[CameraImage]:
    """The same cameras as a source gives them."""

    def pose(key: str) -> np.ndarray:
        w, x, y, z = golden[f"{key}_q"]
        return matrix_from(np.array([x, y, z, w]), golden[f"{key}_t"])

    height, width = map(int, golden["image_hw"])
    world = pose("lidar_ego2global") @ pose("lidar2ego")
    return [
        CameraImage(
            name,
            0,
            np.zeros((1, 1, 3), np.uint8),
            Camera(width, height, golden[f"{name}_K"]),
            inverse(pose(f"{name}_ego2global") @ pose(f"{name}_cam2ego")) @ world,
        )
        for name in golden["cameras"]
    ]


def rows(repeat: int) -> list[Row]:
    """One row; none without the golden file."""
    if not GOLDEN.exists():
        return []
    call("keep_memory")
    golden = dict(np.load(GOLDEN, allow_pickle=False))
    cameras = images(golden)
    for camera, pairs in zip(cameras, pair_images(golden["points"], cameras)[0], strict=True):
        assert np.array_equal(official(golden, camera.name)[0], pairs.point)
    times = by_turns(
        repeat,
        ours=lambda: pair_images(golden["points"], cameras),
        official=lambda: [official(golden, name) for name in golden["cameras"]],
    )
    return [Row("pairing, six cameras", "official way in NumPy", *times.values(), target=10)]


if __name__ == "__main__":
    run(rows, 15)
