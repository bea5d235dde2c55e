"""The newest image of each camera: taken, and decoded, only when someone looks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image as Pillow
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from afov.errors import InputError
from afov.frames import CameraImage, Sweep
from afov.images import decode_compressed, decode_raw
from afov.sources.bag_topics import CameraTopics, camera_of
from afov_ros.subscriptions import Mailbox, decoded, newest, source, stamp_in
from afov_ros.transforms import Transforms

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class CameraInput:
    """One camera. It never waits and nothing waits for it.

    Attributes:
        fault: what was wrong with the last one that someone looked at; "" for nothing.
        refused: images and camera_info that were bad.

    Args:
        topic: image topic; one that ends in "compressed" is CompressedImage.
    """

    def __init__(self, node: Any, topic: str) -> None:
        self.compressed = topic.endswith("compressed")
        self._kind = CompressedImage if self.compressed else Image
        self.topics = CameraTopics.of(topic)
        self.name = self.topics.name
        self.fault = self._bad_input = ""
        self.refused = self._last_refused = 0
        self._node = node
        self._newest: tuple[int, bytes] | None = None
        self._decoded: tuple[bytes, np.ndarray] | None = None
        self._info: Any = None
        self._lock, box = threading.Lock(), Mailbox()
        self._images, self._infos = (
            node.create_subscription(
                kind, name, lambda _: None, NEWEST, callback_group=box, raw=True
            )
            for kind, name in ((self._kind, topic), (CameraInfo, self.topics.info))
        )

    @property
    def frame_id(self) -> str:
        """The camera's optical frame, by its camera_info."""
        return str(self._info.header.frame_id) if self._info is not None else ""

    def look(self) -> tuple[int, bytes] | None:
        """Stamp (nanoseconds) and bytes of the newest image; None before the first."""
        with self._lock:
            if (data := newest(self._images)) is not None:
                try:
                    stamp = stamp_in(data)
                    if stamp == 0:
                        raise InputError("an image without a stamp; it cannot be paired")
                    self._newest, self._bad_input = (stamp, data), ""
                except InputError as error:
                    self.refused += 1
                    self._bad_input = str(error)
                    self._node.warn(f"{self.name}: {error}")
            return self._newest

    def age(self, stamp: int) -> float | None:
        """Seconds from the newest image to a sweep's stamp (nanoseconds); None without an image."""
        seen = self.look()
        return None if seen is None else (stamp - seen[0]) / 1e9

    def forget(self) -> None:
        """After time jumped back: the image is of another time, so is one not yet taken."""
        with self._lock:
            newest(self._images)
            self._newest = self._decoded = None

    def destroy(self) -> None:
        """Listens no longer."""
        for subscription in (self._images, self._infos):
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
            seen: of `look`, when the sweep came.
            tolerance: seconds between the two, at most.
            width: None for the image as it came.

        Raises:
            InputError: none within the tolerance, or it, its camera_info or its transform is bad.
        """
        info = self._intrinsics()
        if seen is None:
            raise InputError(f"{self.name}: no image yet on {self.topics.image.name}")
        if info is None:
            raise InputError(f"{self.name}: no camera_info yet on {self.topics.info}")
        stamp, data = seen
        if abs(stamp - sweep.stamp) > tolerance * 1e9:
            raise InputError(f"{self.name}: image {(sweep.stamp - stamp) / 1e9:.2f} s old")
        with self._counting(stamp):
            message = decoded(data, self._kind)
        frame = message.header.frame_id or info.header.frame_id
        pose = transforms.lookup(frame, sweep.frame_id, stamp, sweep.stamp)
        with self._counting(stamp):
            pixels = self._pixels(data, message)
        if width is not None:
            height = max(1, round(pixels.shape[0] * width / pixels.shape[1]))
            pixels = np.asarray(Pillow.fromarray(pixels).resize((width, height)))
        camera = camera_of(info, self.topics).scaled(pixels.shape[1], pixels.shape[0])
        return CameraImage(self.name, stamp, pixels, camera, pose)

    def _pixels(self, data: bytes, message: Any) -> np.ndarray:
        """Of an image as it came; sweeps come faster than images, so the last one is kept."""
        kept = self._decoded
        if kept is None or kept[0] is not data:
            pixels = decode_compressed(message.data) if self.compressed else decode_raw(message)
            kept = self._decoded = data, pixels
        return kept[1]

    def state(self, stamp: int, tolerance: float) -> tuple[bool, str]:
        """Whether all is well at a sweep's stamp, and what to tell."""
        age = self.age(stamp)
        if age is None:
            return False, self._bad_input or f"no image yet: {source(self._node, self._images)}"
        if self._intrinsics() is None:
            return False, f"no camera_info yet: {source(self._node, self._infos)}"
        # A younger one is no fault of the camera: the sweep took its time.
        if age > tolerance:
            return False, f"stale: the newest image is {age:.2f} s from the newest sweep"
        fault = self._bad_input or self.fault
        return not fault, fault or "ok"

    @contextmanager
    def _counting(self, stamp: int) -> Iterator[None]:
        """A bad image counts once, however many sweeps it is paired with."""
        try:
            yield
        except InputError:
            self.refused += stamp != self._last_refused
            self._last_refused = stamp
            raise

    def _intrinsics(self) -> Any:
        """The newest camera_info that can be used; None before the first."""
        with self._lock:
            if (data := newest(self._infos)) is not None:
                try:
                    message = decoded(data, CameraInfo)
                    camera_of(message, self.topics)
                    self._info = message
                except Exception as error:  # whatever is wrong with it, the sweep goes on
                    self.refused += 1
                    self._node.warn(f"{self.topics.info}: {error}")
            return self._info


def images_of(
    cameras: list[CameraInput],
    seen: dict[str, tuple[int, bytes] | None],
    sweep: Sweep,
    transforms: Transforms,
    tolerance: float,
) -> tuple[list[CameraImage], list[str]]:
    """What the cameras saw of a sweep, as it came, and why the others saw nothing.

    Args:
        seen: what each camera's `look` gave when the sweep came, by name.
        tolerance: as `CameraInput.image`.
    """
    images, faults = [], []
    for camera in cameras:
        try:
            images.append(camera.image(seen.get(camera.name), sweep, transforms, tolerance))
        except InputError as error:
            faults.append(str(error))
    return images, faults
