"""Images are decoded by a pool: in order, few at a time, and what is broken is counted."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from afov.cameras import Camera
from afov.errors import InputError
from afov.frames import Frame, Sweep
from afov.sources.decoding import AHEAD, Encoded, decoded

CAMERA = Camera(16, 8, np.array([[8.0, 0, 8], [0, 8.0, 4], [0, 0, 1]]))
SWEEP = Sweep(np.zeros((1, 3), np.float32), ("x", "y", "z"), 0, "lidar")


def jpeg(shade, size=(16, 8)):
    stream = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(stream, "JPEG")
    return stream.getvalue()


class Slow(Encoded):
    """The earlier the frame, the longer its image takes."""

    def decode(self):
        time.sleep(0.02 / (1 + self.stamp))
        return super().decode()


def encoded(place, data, kind=Encoded):
    return kind("front", place, SimpleNamespace(data=data), True, CAMERA, np.eye(4))


def found(count, kind=Encoded, broken=(), ends=None):
    """Frames with one image each, whose grey is their place; `ends` is raised after the last."""
    for place in range(count):
        data = b"no picture" if place in broken else jpeg(10 * place)
        yield Frame(str(place), SWEEP, ()), [encoded(place, data, kind)]
    if ends:
        raise ends


def test_frames_keep_their_order_and_their_images():
    frames = list(decoded(found(12, Slow), Counter()))
    assert [f.token for f in frames] == [str(i) for i in range(12)]
    assert [int(f.images[0].image.mean()) for f in frames] == [10 * i for i in range(12)]


def test_a_slow_user_finds_few_frames_decoded():
    read = []

    def watched():
        for frame in found(30):
            read.append(frame)
            yield frame

    for used, _ in enumerate(decoded(watched(), Counter()), start=1):
        assert len(read) <= used + AHEAD


def test_an_image_that_cannot_be_decoded_is_left_out_and_counted():
    skipped = Counter()
    frames = list(decoded(found(6, broken=(1, 4)), skipped))
    assert [len(f.images) for f in frames] == [1, 0, 1, 1, 0, 1]
    assert skipped == {"front: corrupt image": 2}


def test_frames_before_the_damage_come_first():
    frames = decoded(found(4, ends=InputError("bag: damaged")), Counter())
    assert [next(frames).token for _ in range(4)] == list("0123")
    with pytest.raises(InputError, match="damaged"):
        next(frames)


def test_whoever_stops_early_leaves_no_thread():
    frames = decoded(found(9, Slow), Counter())
    next(frames)
    frames.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


def test_the_camera_is_that_of_the_pixels():
    image = encoded(0, jpeg(9, (32, 16))).decode()
    assert (image.camera.width, image.camera.height) == (32, 16)
    assert image.camera.K[0, 0] == 16
