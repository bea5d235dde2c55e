"""The newest image of each camera, kept as it came; decoded only when someone looks."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image as Pillow
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from afov.errors import InputError
from afov.frames import CameraImage, Sweep
from afov.images import decode_compressed, decode_raw
from afov.sources.bag_topics import CameraTopics, camera_of
from afov.sources.messages import Topic
from afov_ros.subscriptions import decoded, stamp_in, subscribe
from afov_ros.transforms import Transforms

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class CameraInput:
    """One camera. It never waits and nothing waits for it.

    Attributes:
        newest: stamp (nanoseconds) and bytes of the newest image; None before the first.
        fault: what was wrong with the last one that someone looked at; "" for nothing.

    Args:
        topic: image topic; one that ends in "compressed" is CompressedImage.
    """

    def __init__(self, node: Any, topic: str, group: Any) -> None:
        self.compressed = topic.endswith("compressed")
        self._kind = CompressedImage if self.compressed else Image
        self.topics = _topics(topic)
        self.name = self.topics.name
        self.fault = self._bad_input = ""
        self._node = node
        self.newest: tuple[int, bytes] | None = None
        self._info: Any = None
        self._subscriptions = [
            node.create_subscription(
                self._kind, topic, self._take, NEWEST, callback_group=group, raw=True
            ),
            subscribe(node, CameraInfo, self.topics.info, self._take_info, NEWEST, group),
        ]

    @staticmethod
    def name_of(topic: str) -> str:
        """The camera's name: its namespace with underscores."""
        return _topics(topic).name

    @property
    def frame_id(self) -> str:
        """The camera's optical frame, by its camera_info."""
        return str(self._info.header.frame_id) if self._info is not None else ""

    def age(self, stamp: int) -> float | None:
        """Seconds from the newest image to a sweep's stamp (nanoseconds); None without an image."""
        newest = self.newest
        return None if newest is None else (stamp - newest[0]) / 1e9

    def forget(self) -> None:
        """After time jumped back: the image is of another time."""
        self.newest = None

    def destroy(self) -> None:
        """Listens no longer."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def image(
        self,
        seen: tuple[int, bytes] | None,
        sweep: Sweep,
        transforms: Transforms,
        tolerance: float,
        width: int | None = None,
    ) -> CameraImage:
        """An image, `width` pixels wide, paired with the sweep through tf at both times.

        Args:
            seen: `newest` when the sweep came.
            tolerance: seconds between the two, at most.
            width: None for the image as it came.

        Raises:
            InputError: none within the tolerance, or it, its camera_info or its transform is bad.
        """
        info = self._info
        if seen is None:
            raise InputError(f"{self.name}: no image yet on {self.topics.image.name}")
        if info is None:
            raise InputError(f"{self.name}: no camera_info yet on {self.topics.info}")
        stamp, data = seen
        if abs(stamp - sweep.stamp) > tolerance * 1e9:
            raise InputError(f"{self.name}: image {(sweep.stamp - stamp) / 1e9:.2f} s old")
        message = decoded(data, self._kind)
        frame = message.header.frame_id or info.header.frame_id
        pose = transforms.lookup(frame, sweep.frame_id, stamp, sweep.stamp)
        pixels = decode_compressed(message.data) if self.compressed else decode_raw(message)
        if width is not None:
            height = max(1, round(pixels.shape[0] * width / pixels.shape[1]))
            pixels = np.asarray(Pillow.fromarray(pixels).resize((width, height)))
        camera = camera_of(info, self.topics).scaled(pixels.shape[1], pixels.shape[0])
        return CameraImage(self.name, stamp, pixels, camera, pose)

    def state(self, stamp: int, tolerance: float) -> tuple[bool, str]:
        """Whether all is well at a sweep's stamp, and what to tell."""
        age = self.age(stamp)
        if age is None:
            return False, self._bad_input or f"no image yet on {self.topics.image.name}"
        if self._info is None:
            return False, f"no camera_info yet on {self.topics.info}"
        # A younger one is no fault of the camera: the sweep took its time.
        if age > tolerance:
            return False, f"stale: the newest image is {age:.2f} s from the newest sweep"
        fault = self._bad_input or self.fault
        return not fault, fault or "ok"

    def _take(self, data: bytes) -> None:
        try:
            stamp = stamp_in(data)
            if stamp == 0:
                raise InputError("an image without a stamp; it cannot be paired")
            self.newest, self._bad_input = (stamp, data), ""
        except InputError as error:
            self._bad_input = str(error)
            self._node.warn(f"{self.name}: {error}")

    def _take_info(self, message: Any) -> None:
        camera_of(message, self.topics)  # a bad one is warned about and not kept
        self._info = message


def images_of(
    cameras: list[CameraInput],
    seen: dict[str, tuple[int, bytes] | None],
    sweep: Sweep,
    transforms: Transforms,
    tolerance: float,
) -> tuple[list[CameraImage], list[str]]:
    """What the cameras saw of a sweep, as it came, and why the others saw nothing.

    Args:
        seen: each camera's `newest` when the sweep came, by name; nothing is waited for.
        tolerance: as `CameraInput.image`.
    """
    images, faults = [], []
    for camera in cameras:
        try:
            images.append(camera.image(seen.get(camera.name), sweep, transforms, tolerance))
        except InputError as error:
            faults.append(str(error))
    return images, faults


def _topics(image: str) -> CameraTopics:
    kind = "CompressedImage" if image.endswith("compressed") else "Image"
    return CameraTopics.beside(Topic(image, f"sensor_msgs/msg/{kind}", 0))
