"""A drive: the vehicle goes through streets and records frames, with truth.

The world frame holds the streets kilometres apart, one after the other in time with a pause
between. Poses: world_from_base(image.stamp) is
`frame.world_from_lidar @ inv(image.camera_from_lidar) @ inv(RIG.base_from_camera[image.name])`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from afov.frames import CameraImage, Frame, Sweep, Truth
from afov.sources.nuscenes_classes import RAW_TO_16
from afov.transforms import inverse, transform_points
from afov_train.simulation.config import SimConfig
from afov_train.simulation.rig import MOUNTS, Rig, rig
from afov_train.simulation.sensors import (
    PERIOD,
    Moment,
    Returns,
    Surfaces,
    image,
    sector,
    sweep_columns,
)
from afov_train.simulation.traffic import busy_street
from afov_train.simulation.world import SPREAD

FIELDS = ("x", "y", "z", "intensity", "ring", "time")
EPOCH = 1_700_000_000_000_000_000  # the first street's time, nanoseconds
PAUSE = 60.0  # seconds between streets


def simulate(config: SimConfig) -> Iterator[Frame]:
    """Frames with truth, in time order; streets are cast in `config.workers` processes."""
    if config.workers <= 1:
        for index in range(config.streets):
            yield from street_frames(config, index)
        return
    with ProcessPoolExecutor(config.workers, get_context("spawn")) as pool:
        waiting: deque[Future[list[Frame]]] = deque()
        for index in range(config.streets):
            waiting.append(pool.submit(street_frames, config, index))
            # A few streets ahead, not all: images are large.
            if len(waiting) > config.workers + 1:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def street_frames(config: SimConfig, index: int) -> list[Frame]:
    """The frames of one street."""
    surfaces = Surfaces(busy_street(config.seed * 100_003 + index))
    mounts = rig(config.width, config.height)
    first = index * (PAUSE + config.frames_per_street / config.rate)
    rng = np.random.default_rng((config.seed, index, 11))
    return [
        _frame(surfaces, mounts, index, EPOCH + int(first * 1e9), PERIOD + i / config.rate, rng)
        for i in range(config.frames_per_street)
    ]


def camera_shares() -> dict[str, float]:
    """Where in the turn each camera fires: as the LiDAR's beam passes its axis."""
    return {name: ((180 - mount[3]) % 360) / 360 or 1.0 for name, mount in MOUNTS.items()}


def _frame(
    surfaces: Surfaces, mounts: Rig, index: int, epoch: int, t: float, rng: np.random.Generator
) -> Frame:
    """The frame whose sweep ends `t` seconds into the street."""
    street = surfaces.street
    world_from_street = np.eye(4)
    world_from_street[0, 3] = SPREAD * index
    end = street.ego(t) @ mounts.base_from_lidar
    shares = camera_shares()
    _, times = sweep_columns()
    # Each camera and the columns nearest to its axis see the street at the camera's time.
    nearest = np.argmin(
        np.abs((times / PERIOD + 1)[:, None] - np.array([*shares.values()])), axis=1
    )
    images, sectors = [], []
    for i, (name, share) in enumerate(shares.items()):
        # Whole microseconds, all that nuScenes' tables can hold.
        offset = 1000 * round((share - 1) * PERIOD * 1e6)
        moment = surfaces.at(t + offset / 1e9)
        pose = street.ego(t + offset / 1e9) @ mounts.base_from_camera[name]
        rgb, _ = image(moment, mounts.cameras[name], pose, rng)
        stamp = epoch + round(t * 1e9) + offset
        images.append(CameraImage(name, stamp, rgb, mounts.cameras[name], inverse(pose) @ end))
        sectors.append(_columns(moment, np.flatnonzero(nearest == i), t, mounts, rng))
    sweep, truth = _join(sectors, inverse(end), epoch + round(t * 1e9))
    return Frame(str(sweep.stamp), sweep, tuple(images), world_from_street @ end, truth)


def _columns(
    moment: Moment, columns: np.ndarray, t: float, mounts: Rig, rng: np.random.Generator
) -> Returns:
    _, times = sweep_columns()
    poses = [moment.surfaces.street.ego(t + float(times[c])) for c in columns]
    return sector(moment, columns, poses, mounts.base_from_lidar, rng)


def _join(sectors: list[Returns], lidar_from_street: np.ndarray, stamp: int) -> tuple[Sweep, Truth]:
    """One sweep in the sensor's frame at its stamp (motion-compensated), in the order of time."""

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(s, name) for s in sectors])

    order = np.argsort(joined("time"), kind="stable")
    xyz = transform_points(lidar_from_street, joined("xyz"))
    columns = (*xyz.T, joined("intensity"), joined("ring"), joined("time"))
    points = np.stack(columns, 1)[order].astype(np.float32)
    raw = joined("raw")[order]
    class_id = RAW_TO_16[raw]
    truth = Truth(class_id, joined("instance")[order], raw, class_id)
    return Sweep(points, FIELDS, stamp, "lidar_top"), truth


def views(
    seed: int, index: int, count: int, width: int, height: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images of one street for training a teacher: rgb (H, W, 3) and raw (H, W), 255 = sky."""
    surfaces = Surfaces(busy_street(seed * 100_003 + index))
    mounts = rig(width, height)
    rng = np.random.default_rng((seed, index, 13))
    names = list(mounts.cameras)
    for i in range(count):
        t = float(rng.uniform(0, 4))
        name = names[(i + index) % len(names)]
        pose = surfaces.street.ego(t) @ mounts.base_from_camera[name]
        yield image(surfaces.at(t), mounts.cameras[name], pose, rng)
