"""PointCloud2 to NumPy and back: any layout, any order of bytes, and no trust in sizes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afov.clouds import (
    NUMBERS,
    point_fields,
    read_points,
    scaled_intensity,
    to_sweep,
    unusual_intensity,
)
from afov.errors import InputError


def message(points, *, height=1, row_padding=0, big_endian=False, **changes):
    """A message as a driver would fill it, by NumPy's own byte layout."""
    width, step = len(points) // max(height, 1), points.dtype.itemsize
    rows = points.reshape(height, width)
    data = b"".join(row.tobytes() + b"\xaa" * row_padding for row in rows)
    fields = [
        SimpleNamespace(name=n, offset=o, datatype=d, count=c)
        for n, o, d, c in point_fields(points.dtype)
    ]
    stamp = SimpleNamespace(sec=12, nanosec=34)
    content = {
        "header": SimpleNamespace(stamp=stamp, frame_id="lidar"),
        "height": height, "width": width, "fields": fields, "is_bigendian": big_endian,
        "point_step": step, "row_step": width * step + row_padding, "data": data,
        "is_dense": False,
    }  # fmt: skip
    return SimpleNamespace(**{**content, **changes})


@st.composite
def layouts(draw):
    """Structured dtypes with gaps, odd offsets and either byte order."""
    order = draw(st.sampled_from("<>"))
    names, formats, offsets, place = [], [], [], 0
    for i in range(draw(st.integers(1, 6))):
        place += draw(st.integers(0, 3))
        base = np.dtype(order + draw(st.sampled_from([d.str[1:] for d in NUMBERS])))
        count = draw(st.integers(1, 3))
        names.append(f"f{i}")
        formats.append(base if count == 1 else np.dtype((base, (count,))))
        offsets.append(place)
        place += count * base.itemsize
    size = place + draw(st.integers(0, 5))
    return order == ">", np.dtype(
        {"names": names, "formats": formats, "offsets": offsets, "itemsize": size}
    )


@settings(max_examples=150, deadline=None)
@given(layouts(), st.integers(1, 4), st.integers(0, 5), st.integers(0, 7), st.integers(0, 2**32))
def test_every_layout_comes_back_bit_for_bit(layout, height, width, padding, seed):
    big_endian, dtype = layout
    raw = np.random.default_rng(seed).integers(0, 256, height * width * dtype.itemsize, np.uint8)
    points = raw.view(dtype)
    got = read_points(message(points, height=height, row_padding=padding, big_endian=big_endian))
    assert len(got) == height * width
    for name in dtype.names:
        assert got[name].tobytes() == points[name].tobytes()


XYZI = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "u1")])


def test_reading_is_a_view_of_the_message():
    points = np.zeros(5, XYZI)
    cloud = message(points)
    assert np.shares_memory(read_points(cloud), np.frombuffer(cloud.data, np.uint8))


def test_points_that_are_not_finite_stay_in_their_place():
    points = np.zeros(3, XYZI)
    points["x"] = [np.nan, np.inf, 2]
    sweep = to_sweep(message(points))
    assert len(sweep) == 3 and np.isnan(sweep.xyz[0, 0]) and np.isinf(sweep.xyz[1, 0])
    assert sweep.fields == ("x", "y", "z", "intensity") and sweep.stamp == 12 * 10**9 + 34


def test_zero_points_are_a_cloud():
    assert len(to_sweep(message(np.zeros(0, XYZI)))) == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 1000}, "data has"),
        ({"row_step": 1, "height": 2, "width": 2}, "rows of 1"),
        ({"point_step": 3}, "do not fit in point_step 3"),
        ({"height": 2**20, "width": 2**20}, "at most"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(changes, said):
    cloud = message(np.zeros(4, XYZI))
    vars(cloud).update(changes)
    with pytest.raises(InputError, match=said):
        read_points(cloud)


def test_a_cloud_without_z_names_the_field():
    flat = np.zeros(2, [("x", "<f4"), ("y", "<f4")])
    with pytest.raises(InputError, match="no field 'z'; its fields: x, y"):
        to_sweep(message(flat))


def test_a_field_of_several_values_counts_with_its_first():
    names = ("x", "y", "z", "intensity", "ring", "time")
    points = np.zeros(3, [(name, "<f8", (2,)) for name in names])
    for i, name in enumerate(names):
        points[name] = [[i, -1]] * 3
    sweep = to_sweep(message(points))
    assert sweep.fields == names and sweep.points.tolist() == [[0, 1, 2, 3, 4, 5]] * 3


def test_a_real_awkward_cloud(shared):
    """Unaligned float64 at offset 18; x of the first points as struct reads them."""
    import struct

    from rosbags.typesys import Stores, get_typestore

    data = (shared / "data/odd-clouds/dds_message.bin").read_bytes()
    cloud = get_typestore(Stores.ROS2_HUMBLE).deserialize_cdr(data, "sensor_msgs/msg/PointCloud2")
    points = read_points(cloud)
    assert len(points) == 64000
    for i in (0, 777, 63999):
        at = i * 26
        expected = struct.unpack_from("<ffff", cloud.data, at)
        got = tuple(points[n][i] for n in ("x", "y", "z", "intensity"))
        assert np.array_equal(got, np.array(expected, np.float32), equal_nan=True)
        assert points["ring"][i] == struct.unpack_from("<H", cloud.data, at + 16)[0]
        assert points["timestamp"][i] == struct.unpack_from("<d", cloud.data, at + 18)[0]


def test_agrees_with_sensor_msgs_py():
    theirs = pytest.importorskip("sensor_msgs_py.point_cloud2", reason="comes with a robot's ROS")
    points = np.random.default_rng(0).integers(0, 256, 13 * 8, np.uint8).view(XYZI)
    cloud = message(points)
    assert theirs.read_points(cloud).tobytes() == read_points(cloud).tobytes()


def test_an_intensity_of_another_range_is_noticed_and_can_be_scaled():
    dtype = np.dtype([(n, "<f4") for n in ("x", "y", "z", "intensity")])
    points = np.zeros(5, dtype)
    points["intensity"] = [0, 0.25, 0.5, 1, np.nan]
    sweep = to_sweep(message(points))
    assert "0..1, expected 0..255; set intensity_scale to 255" in unusual_intensity(sweep)
    scaled = scaled_intensity(sweep, 255.0)
    assert scaled.points[:4, 3].tolist() == [0, 63.75, 127.5, 255] and np.isnan(scaled.points[4, 3])
    assert unusual_intensity(scaled) is None
    points["intensity"] = [0, 3, 500, 65535, 0]
    assert "0..65535" in unusual_intensity(to_sweep(message(points)))
    points["intensity"] = 0  # a sensor that has none to tell
    assert unusual_intensity(to_sweep(message(points))) is None
    bare = points[["x", "y", "z"]].astype([(n, "<f4") for n in "xyz"])
    assert unusual_intensity(scaled_intensity(to_sweep(message(bare)), 255.0)) is None
