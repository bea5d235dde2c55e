"""Image messages to RGB: every encoding against a picture encoded the other way here."""

from __future__ import annotations

import io
from array import array
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from afov.errors import InputError
from afov.images import BAYER, COLOR, MAX_PIXELS, YUV, decode_compressed, decode_raw


def message(encoding, rows, width, *, padding=0, data=None):
    """A sensor_msgs/Image of (H, bytes) rows, each followed by padding that must not be seen."""
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return SimpleNamespace(
        encoding=encoding, height=len(rows), width=width, step=padded.shape[1], is_bigendian=0,
        data=padded.tobytes() if data is None else data,
    )  # fmt: skip


def smooth(height=32, width=48):
    """A picture without edges, so that what interpolation loses is small."""
    v, u = np.mgrid[:height, :width]
    return np.stack((40 + 4 * u, 220 - 3 * u - v, 60 + 5 * v), 2).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", COLOR)
def test_colour_encodings_come_back_exactly(encoding, padding):
    picture = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    order = {"rgb": [0, 1, 2], "bgr": [2, 1, 0], "8UC": [2, 1, 0]}[encoding[:3]]
    stored = picture[:, :, order]
    if encoding.endswith("a8"):
        stored = np.concatenate((stored, np.full((7, 9, 1), 200, np.uint8)), 2)
    got = decode_raw(message(encoding, stored.reshape(7, -1), 9, padding=padding))
    assert np.array_equal(got, picture) and got.flags.c_contiguous


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_is_grey_in_all_channels(encoding):
    plane = np.arange(35, dtype=np.uint8).reshape(5, 7)
    got = decode_raw(message(encoding, plane, 7, padding=1))
    assert np.array_equal(got, np.stack((plane,) * 3, 2))


@pytest.mark.parametrize("encoding", BAYER)
def test_bayer_keeps_the_known_and_interpolates_the_rest(encoding):
    picture = smooth()
    colours = encoding.removeprefix("bayer_")[:4]  # rggb: row by row of the 2 x 2 tile
    raw = np.empty(picture.shape[:2], np.uint8)
    for i, colour in enumerate(colours):
        row, col = divmod(i, 2)
        raw[row::2, col::2] = picture[row::2, col::2, "rgb".index(colour)]
    got = decode_raw(message(encoding, raw, 48, padding=3)).astype(int)
    for i, colour in enumerate(colours):
        row, col = divmod(i, 2)
        channel = "rgb".index(colour)
        assert np.array_equal(got[row::2, col::2, channel], raw[row::2, col::2])
    assert np.abs(got - picture)[1:-1, 1:-1].max() <= 6


@pytest.mark.parametrize("encoding", YUV)
def test_yuv_comes_back_as_it_was_within_its_own_rounding(encoding):
    picture = smooth().astype(float)
    r, g, b = np.moveaxis(picture, 2, 0)
    # BT.601, studio swing.
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = (128 - 0.148 * r - 0.291 * g + 0.439 * b)[:, ::2]
    v = (128 + 0.439 * r - 0.368 * g - 0.071 * b)[:, ::2]
    packed = np.empty((32, 96))
    luma = 1 if encoding in ("yuv422", "uyvy") else 0
    packed[:, luma::2] = y
    packed[:, 1 - luma :: 4], packed[:, 3 - luma :: 4] = u, v
    rows = np.rint(packed).clip(0, 255).astype(np.uint8)
    got = decode_raw(message(encoding, rows, 48, padding=2)).astype(float)
    assert got.shape == picture.shape and np.abs(got - picture).max() < 9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoding": "32FC1"}, r"encoding '32FC1' is not supported: expected rgb8, bgr8"),
        ({"step": 20}, r"9 x 7 rgb8 in rows of 20 bytes needs 189 bytes, data has 189"),
        ({"data": b"abc"}, r"needs 189 bytes, data has 3"),
        ({"height": 2**31, "step": 27}, r"data has 189"),
        ({"height": 0}, r"9 x 0 is no size for rgb8"),
        ({"encoding": "yuv422"}, r"9 x 7 is no size for yuv422"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(change, said):
    good = message("rgb8", np.zeros((7, 27), np.uint8), 9)
    with pytest.raises(InputError, match=said):
        decode_raw(SimpleNamespace(**{**vars(good), **change}))


@given(
    st.sampled_from((*COLOR, *BAYER, *YUV, "mono8", "16UC1")),
    st.integers(0, 9), st.integers(0, 9), st.integers(0, 40), st.binary(max_size=400),
)  # fmt: skip
def test_any_message_gives_an_image_or_one_line(encoding, height, width, step, data):
    msg = SimpleNamespace(encoding=encoding, height=height, width=width, step=step, data=data)
    try:
        got = decode_raw(msg)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert got.shape == (height, width, 3) and got.dtype == np.uint8


def compressed(picture, kind):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind)
    return stream.getvalue()


def test_png_is_exact_whatever_its_mode():
    picture = smooth()
    assert np.array_equal(decode_compressed(compressed(picture, "PNG")), picture)
    grey = picture[:, :, 0]
    assert np.array_equal(decode_compressed(compressed(grey, "PNG"))[:, :, 1], grey)
    with_alpha = np.dstack((picture, np.full(picture.shape[:2], 9, np.uint8)))
    assert np.array_equal(decode_compressed(compressed(with_alpha, "PNG")), picture)


def test_a_jpeg_is_close():
    picture = smooth()
    assert np.abs(decode_compressed(compressed(picture, "JPEG")).astype(int) - picture).mean() < 5


def jpeg(mode="RGB", **options):
    """A small noisy JPEG's bytes, of a size that is no multiple of its blocks."""
    noise = np.random.default_rng(0).integers(0, 256, (57, 83, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(stream, "JPEG", quality=80, **options)
    return stream.getvalue()


def as_pillow(data):
    """The pixels that Pillow alone makes of it; None where it refuses."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return np.asarray(image.convert("RGB"))
    except Exception:
        return None


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        *(("RGB", {"subsampling": sampling}) for sampling in (0, 1, 2)),
        ("RGB", {"progressive": True}), ("RGB", {"keep_rgb": True}),
        ("RGB", {"restart_marker_rows": 1}), ("L", {}), ("CMYK", {}),
    ],
)  # fmt: skip
def test_a_jpeg_is_what_pillow_makes_of_it(mode, options):
    data = jpeg(mode, **options)
    assert np.array_equal(decode_compressed(np.frombuffer(data, np.uint8)), as_pillow(data))
    assert np.array_equal(decode_compressed(array("B", data)), as_pillow(data))
    for end in (len(data) // 2, len(data) - 2):  # half an image is none
        with pytest.raises(InputError, match="corrupt image"):
            decode_compressed(data[:end])


@given(st.data())
def test_a_damaged_jpeg_is_what_pillow_makes_of_it(data):
    """Pillow has the last word: what it refuses is refused, and what it forgives looks the same."""
    whole = jpeg()
    changed = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    if data.draw(st.booleans()):
        changed = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 4)) if changed else 0):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    expected = as_pillow(bytes(changed))
    if expected is None or expected.size > 3 * MAX_PIXELS:
        with pytest.raises(InputError, match="corrupt image"):
            decode_compressed(bytes(changed))
    else:
        assert np.array_equal(decode_compressed(bytes(changed)), expected)


def test_a_size_that_no_camera_has_is_refused_before_memory_is_asked_for():
    data = bytearray(jpeg())
    size = data.index(b"\xff\xc0") + 5
    data[size : size + 4] = (20000).to_bytes(2, "big") * 2
    with pytest.raises(InputError, match="corrupt image"):
        decode_compressed(bytes(data))


@pytest.mark.parametrize("data", [b"", b"no image", compressed(smooth(), "JPEG")[:200]])
def test_broken_images_are_corrupt_not_a_crash(data):
    with pytest.raises(InputError, match="corrupt image"):
        decode_compressed(np.frombuffer(data, np.uint8))


def test_other_formats_are_not_even_tried():
    with pytest.raises(InputError, match="corrupt image"):
        decode_compressed(compressed(smooth(), "GIF"))
