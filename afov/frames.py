"""What every source yields and everything downstream takes: a sweep with its images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from afov.cameras import Camera


@dataclass(frozen=True)
class Sweep:
    """One turn of a LiDAR.

    Attributes:
        points: (N, C) float32, one column per name in `fields`; x y z come first, in metres, in
            the sensor's own frame. Points may be NaN or infinite; none is ever removed.
        fields: column names, beginning with "x", "y", "z"; then, where the source has them,
            "intensity", "ring", "time" (seconds relative to `stamp`).
        stamp: nanoseconds, from the message's header or the dataset, never the log time.
        frame_id: name of the sensor's coordinate frame.
    """

    points: np.ndarray
    fields: tuple[str, ...]
    stamp: int
    frame_id: str

    @property
    def xyz(self) -> np.ndarray:
        """(N, 3) float32 view, metres, LiDAR frame."""
        return self.points[:, :3]

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class CameraImage:
    """One image, and where its camera was when it was taken.

    Attributes:
        name: the camera's name, as the source has it ("cam_front").
        stamp: nanoseconds, the image's own time.
        image: (H, W, 3) uint8, RGB.
        camera: intrinsics and distortion for that size.
        camera_from_lidar: (4, 4) float64; takes points in the LiDAR frame at the SWEEP's stamp
            to the camera's optical frame (z forward) at the IMAGE's stamp: ego motion included.
    """

    name: str
    stamp: int
    image: np.ndarray
    camera: Camera
    camera_from_lidar: np.ndarray


@dataclass(frozen=True)
class Truth:
    """Ground truth per point; only evaluation ever asks a source for it.

    Attributes:
        class_id: (N,) uint8, the source's evaluation classes (`nuscenes16`: 1..16), 0 = ignore.
        instance_id: (N,) uint16, 0 = none; no two instances of one class share an id.
        raw: (N,) uint8 or uint16, the data set's own class index (nuScenes lidarseg: 0..31).
        panoptic_class_id: (N,) uint8, `class_id` as panoptic evaluation counts it: 0 also where
            the data set gives a point of a thing to no instance, or to several. None where the
            source has no instances.
    """

    class_id: np.ndarray
    instance_id: np.ndarray
    raw: np.ndarray
    panoptic_class_id: np.ndarray | None = None


@dataclass(frozen=True)
class Frame:
    """A sweep, its nearest images, and (for evaluation) its truth.

    Attributes:
        token: unique and stable within the source, usable as a file name.
        world_from_lidar: (4, 4) float64 pose at the sweep's stamp in a fixed frame, or None.
    """

    token: str
    sweep: Sweep
    images: tuple[CameraImage, ...]
    world_from_lidar: np.ndarray | None = None
    truth: Truth | None = None


class Source(Protocol):
    """A recording. Iterating streams its frames in time order; it can be iterated again."""

    name: str

    @property
    def key(self) -> str:
        """Changes with everything that a frame of it depends on, besides its token."""
        ...

    def __iter__(self) -> Iterator[Frame]: ...

    def __len__(self) -> int:
        """Number of frames, as far as the source knows before reading (progress bars)."""
        ...

    @property
    def skipped(self) -> dict[str, int]:
        """What was left out in the last pass, counted by reason ("corrupt jpeg": 1)."""
        ...
