"""Images decoded ahead, by a pool: frames keep their order, and few of them lie in memory."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from afov.cameras import Camera
from afov.errors import InputError
from afov.frames import CameraImage, Frame
from afov.images import decode_compressed, decode_raw
from afov.native import call, library

_Decoding = tuple[str, Future[CameraImage]]  # and whose image it is
AHEAD = 2  # frames that are decoded while one is used
THREADS = 8  # at most; decoders let go of Python's lock


@dataclass(frozen=True)
class Encoded:
    """An image as it lies in the bag, of a known camera at a known place."""

    name: str
    stamp: int
    message: Any
    compressed: bool
    camera: Camera
    camera_from_lidar: np.ndarray

    def decode(self) -> CameraImage:
        """With its pixels, and the camera of their size.

        Raises:
            InputError: they cannot be decoded.
        """
        message = self.message
        pixels = decode_compressed(message.data) if self.compressed else decode_raw(message)
        camera = self.camera
        if pixels.shape[:2] != (camera.height, camera.width):
            camera = camera.scaled(pixels.shape[1], pixels.shape[0])
        return CameraImage(self.name, self.stamp, pixels, camera, self.camera_from_lidar)


def decoded(found: Iterator[tuple[Frame, list[Encoded]]], skipped: Counter[str]) -> Iterator[Frame]:
    """Frames with their images, in the order of `found`, which is read `AHEAD` frames ahead.

    Args:
        found: frames without images, and what these are decoded from.
        skipped: where images are counted that cannot be decoded.

    Raises:
        InputError: what `found` raises, after the frames that came before it.
    """
    waiting: deque[tuple[Frame, list[_Decoding]]] = deque()
    damage: InputError | None = None
    if library() is not None:
        call("keep_memory")  # or each image would come in fresh pages
    pool = ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), THREADS), "decode")
    try:
        while True:
            try:
                frame, images = next(found)
            except StopIteration:
                break
            except InputError as error:
                damage = error
                break
            waiting.append((frame, [(i.name, pool.submit(i.decode)) for i in images]))
            if len(waiting) > AHEAD:
                yield _whole(*waiting.popleft(), skipped)
        while waiting:
            yield _whole(*waiting.popleft(), skipped)
    finally:
        pool.shutdown(cancel_futures=True)
    if damage is not None:
        raise damage


def _whole(frame: Frame, images: list[_Decoding], skipped: Counter[str]) -> Frame:
    whole = []
    for name, image in images:
        try:
            whole.append(image.result())
        except InputError as error:
            skipped[f"{name}: {str(error).split(':')[0]}"] += 1
    return replace(frame, images=tuple(whole))
