"""Which topics of a bag belong together: the cloud, and each camera's images and camera_info."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afov.cameras import Camera
from afov.errors import InputError
from afov.sources.messages import Topic

TRUTH = "/truth"


@dataclass(frozen=True)
class BagTopics:
    """Which topics to take; found by type when not named."""

    cloud: str | None = None
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class CameraTopics:
    """One camera: its name, its image topic and its camera_info topic."""

    name: str
    image: Topic
    info: str

    @classmethod
    def beside(cls, image: Topic) -> CameraTopics:
        """By ROS's convention: a/b/image_raw[/compressed] has its camera_info at a/b."""
        parent = image.name.removesuffix("/compressed").rsplit("/", 1)[0]
        name = parent.strip("/~").replace("/", "_").lower() or "camera"
        return cls(name, image, f"{parent}/camera_info")

    @classmethod
    def of(cls, image: str) -> CameraTopics:
        """Of an image topic's name alone; one that ends in "compressed" is CompressedImage."""
        kind = "CompressedImage" if image.endswith("compressed") else "Image"
        return cls.beside(Topic(image, f"sensor_msgs/msg/{kind}", 0))

    @property
    def rectified(self) -> bool:
        """By ROS's convention the topic says so: image_rect, image_rect_color, ..."""
        return "rect" in self.image.name.rsplit("/", 2)[-1] or "image_rect" in self.image.name


def choose_cloud(path: Path, topics: tuple[Topic, ...], named: str | None) -> Topic:
    """The LiDAR's topic; never one of truth."""
    clouds = {
        t.name: t for t in topics if t.kind == "cloud" and not t.name.lower().startswith(TRUTH)
    }
    if named is not None:
        if named not in clouds:
            raise InputError(
                f"{path}: no cloud topic {named!r}; there are: {', '.join(clouds) or 'none'}"
            )
        return clouds[named]
    if not clouds:
        found = ", ".join(f"{t.name} ({t.type})" for t in topics) or "no topics at all"
        raise InputError(f"{path}: no PointCloud2 topic; it holds {found}")
    if len(clouds) > 1:
        raise InputError(
            f"{path}: several clouds; pick one with --cloud-topic: {', '.join(clouds)}"
        )
    return next(iter(clouds.values()))


def choose_cameras(
    path: Path, topics: tuple[Topic, ...], named: tuple[str, ...], blind: bool = False
) -> tuple[CameraTopics, ...]:
    """Image topics with the camera_info beside them, one per camera.

    Args:
        blind: none will do, where the bag has no images.
    """
    images = {t.name: t for t in topics if t.kind in ("image", "compressed")}
    infos = {t.name for t in topics if t.kind == "info"}
    for name in named:
        if name not in images:
            raise InputError(
                f"{path}: no image topic {name!r}; there are: {', '.join(images) or 'none'}"
            )
    if not images and blind:
        return ()
    if not images:
        raise InputError(f"{path}: no camera images (Image or CompressedImage); cameras teach")
    cameras: dict[str, CameraTopics] = {}
    for topic in images.values():
        if named and topic.name not in named:
            continue
        camera = CameraTopics.beside(topic)
        if camera.info in infos:
            # One topic per camera: the first by name, unless others are asked for.
            cameras.setdefault(camera.name, camera)
    if not cameras:
        raise InputError(
            f"{path}: no camera_info beside {', '.join(images)}; expected <camera>/camera_info"
        )
    return tuple(cameras.values())


def camera_of(info: Any, topics: CameraTopics) -> Camera:
    """Intrinsics for the images of that topic: P when they are rectified, else K and D."""
    lower = hasattr(info, "k")
    K, D, P = (info.k, info.d, info.p) if lower else (info.K, info.D, info.P)
    try:
        if topics.rectified and len(P) == 12 and P[0] > 0:
            return Camera.rectified(info.width, info.height, np.array(P).reshape(3, 4))
        D = np.zeros(0) if topics.rectified else np.array(D, float)
        model = info.distortion_model if len(D) and D.any() else "none"
        D = D if model != "none" else np.zeros(0)
        return Camera(info.width, info.height, np.array(K, float).reshape(3, 3), model, D)
    except (InputError, ValueError) as error:
        raise InputError(f"{topics.info}: {error}") from None
