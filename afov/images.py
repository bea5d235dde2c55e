"""Image messages to RGB."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from afov.errors import InputError

# Channel order of 8-bit colour encodings, as indices of R, G, B.
COLOR = {
    "rgb8": (3, (0, 1, 2)), "bgr8": (3, (2, 1, 0)), "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)), "8UC3": (3, (2, 1, 0)),
}  # fmt: skip
# Where red and blue stand in the 2 x 2 tile.
BAYER = {
    "bayer_rggb8": ((0, 0), (1, 1)), "bayer_bggr8": ((1, 1), (0, 0)),
    "bayer_gbrg8": ((1, 0), (0, 1)), "bayer_grbg8": ((0, 1), (1, 0)),
}  # fmt: skip
MONO = ("mono8", "8UC1")
YUV = {"yuv422": (1, 0), "uyvy": (1, 0), "yuv422_yuy2": (0, 1), "yuyv": (0, 1)}
JPEG_COLOURS = ("YCbCr", "RGB", "Gray")  # CMYK is rounded another way than by Pillow
MAX_PIXELS = 100_000_000


def decode_compressed(data: Any) -> np.ndarray:
    """A JPEG or PNG as (H, W, 3) uint8 RGB.

    Raises:
        InputError: it cannot be decoded.
    """
    whole = _whole_jpeg(data)
    if whole is not None:
        return whole
    try:
        with Image.open(io.BytesIO(bytes(data)), formats=("JPEG", "PNG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"corrupt image: {image.width} x {image.height} is absurdly large")
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # Pillow raises many types on broken data
        raise InputError(f"corrupt image: {error}") from None


def _whole_jpeg(data: Any) -> np.ndarray | None:
    """A JPEG without a fault; None for anything else, on which Pillow has the last word.

    The same pixels in two thirds of Pillow's time, which copies them twice more, under Python's
    lock.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in JPEG_COLOURS or height * width > MAX_PIXELS:
            return None
        pixels: np.ndarray = simplejpeg.decode_jpeg(data)
    except ValueError:
        return None
    return pixels


def decode_raw(msg: Any) -> np.ndarray:
    """A sensor_msgs/Image as (H, W, 3) uint8 RGB.

    Raises:
        InputError: an encoding that is not supported, or sizes that contradict each other.
    """
    encoding, height, width, step = msg.encoding, msg.height, msg.width, msg.step
    if encoding in COLOR:
        channels = COLOR[encoding][0]
    elif encoding in YUV:
        channels = 2
    elif encoding in BAYER or encoding in MONO:
        channels = 1
    else:
        known = ", ".join((*COLOR, *MONO, *BAYER, *YUV))
        raise InputError(f"image encoding {encoding!r} is not supported: expected {known}")
    if height < 1 or width < 1 or (encoding in YUV and width % 2):
        raise InputError(f"corrupt image: {width} x {height} is no size for {encoding}")
    data = np.frombuffer(msg.data, np.uint8)
    if step < width * channels or len(data) < height * step or height * width > MAX_PIXELS:
        raise InputError(
            f"corrupt image: {width} x {height} {encoding} in rows of {step} bytes needs "
            f"{height * max(step, width * channels)} bytes, data has {len(data)}"
        )
    pixels = data[: height * step].reshape(height, step)[:, : width * channels]
    if encoding in MONO:
        return np.repeat(pixels[:, :, None], 3, 2)
    if encoding in COLOR:
        return np.ascontiguousarray(pixels.reshape(height, width, -1)[:, :, COLOR[encoding][1]])
    return (
        _from_bayer(pixels, *BAYER[encoding]) if encoding in BAYER else _from_yuv(pixels, encoding)
    )


def _from_bayer(raw: np.ndarray, red: tuple[int, int], blue: tuple[int, int]) -> np.ndarray:
    """Bilinear: each colour is the mean of its known neighbours in 3 x 3."""
    height, width = raw.shape
    rows, cols = np.mgrid[:height, :width] % 2
    is_red = (rows == red[0]) & (cols == red[1])
    is_blue = (rows == blue[0]) & (cols == blue[1])
    result = np.empty((height, width, 3), np.uint8)
    for channel, known in enumerate((is_red, ~is_red & ~is_blue, is_blue)):
        value, weight = _around(raw * known.astype(np.float32)), _around(known.astype(np.float32))
        mean = value / np.maximum(weight, 1e-6)
        result[..., channel] = np.where(known, raw, np.rint(mean))
    return result


def _around(plane: np.ndarray) -> np.ndarray:
    """Sum over 3 x 3 with weights 1 2 1."""
    padded = np.pad(plane, 1)
    tall = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return tall[:, :-2] + 2 * tall[:, 1:-1] + tall[:, 2:]


def _from_yuv(pixels: np.ndarray, encoding: str) -> np.ndarray:
    """4:2:2, BT.601 as OpenCV has it."""
    luma, chroma = YUV[encoding]
    y = 1.164 * (pixels[:, luma::2].astype(np.float32) - 16)
    uv = pixels[:, chroma::2].astype(np.float32) - 128
    u, v = (np.repeat(uv[:, i::2], 2, 1) for i in (0, 1))
    rgb = np.stack((y + 1.596 * v, y - 0.392 * u - 0.813 * v, y + 2.017 * u), 2)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
