"""The simulated vehicle's sensors: nuScenes' mounts and intrinsics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from afov.cameras import Camera
from afov_train.simulation.world import pose2d

# Name: place in base_link (x, y, z, metres), heading (degrees), focal length of 1600 x 900 pixels.
MOUNTS = {
    "cam_front": (1.70, 0.016, 1.511, 0.0, 1266.0),
    "cam_front_right": (1.551, -0.493, 1.496, -56.0, 1260.0),
    "cam_back_right": (1.015, -0.480, 1.562, -110.0, 1259.0),
    "cam_back": (0.028, 0.003, 1.579, 180.0, 809.0),
    "cam_back_left": (1.036, 0.485, 1.591, 108.0, 1256.0),
    "cam_front_left": (1.523, 0.494, 1.509, 55.0, 1272.0),
}
LIDAR = (0.943, 0.0, 1.84)


@dataclass(frozen=True)
class Rig:
    """Where the sensors sit.

    Attributes:
        base_from_lidar: (4, 4); nuScenes turns its LiDAR: x right, y forward, z up.
        base_from_camera: (4, 4) by name, to optical frames: x right, y down, z forward.
        cameras: intrinsics by name, in nuScenes' order.
    """

    base_from_lidar: np.ndarray
    base_from_camera: dict[str, np.ndarray]
    cameras: dict[str, Camera]


def rig(width: int = 800, height: int = 448) -> Rig:
    """The rig with images of that size; rows beyond 16:9 are cut, not squeezed."""
    lidar = pose2d(LIDAR[0], LIDAR[1], -np.pi / 2, LIDAR[2])
    optical = np.eye(4)
    optical[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    mounts, cameras = {}, {}
    for name, (x, y, z, heading, focal) in MOUNTS.items():
        mounts[name] = pose2d(x, y, np.deg2rad(heading), z) @ optical
        f = focal * width / 1600
        K = np.array([[f, 0, width / 2], [0, f, height / 2 + 12 * width / 1600], [0, 0, 1]])
        cameras[name] = Camera(width, height, K)
    return Rig(lidar, mounts, cameras)


RIG = rig()
