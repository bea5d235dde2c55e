"""PointCloud2 to NumPy and back, for any message object with the standard attributes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from afov.errors import InputError
from afov.frames import Sweep

# sensor_msgs/PointField datatypes.
DATATYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
NUMBERS = {np.dtype(code): number for number, code in DATATYPES.items()}
# Other names that drivers give to the same thing.
ALIASES = {
    "intensity": ("intensity", "intensities", "reflectivity", "i"),
    "ring": ("ring", "channel", "line"),
}
MAX_POINTS = 50_000_000


def cloud_dtype(msg: Any) -> np.dtype:
    """The structured dtype of one point, as the message's fields lay it out.

    Raises:
        InputError: an unknown datatype, or a field that does not fit in `point_step`.
    """
    order = ">" if msg.is_bigendian else "<"
    names, formats, offsets = [], [], []
    for field in msg.fields:
        if field.datatype not in DATATYPES:
            raise InputError(
                f"cloud field {field.name!r}: datatype {field.datatype}, expected 1 to 8"
            )
        if field.name in names:
            raise InputError(f"cloud field {field.name!r} stands twice")
        base = np.dtype(order + DATATYPES[field.datatype])
        # Some drivers leave the count at 0; one is meant.
        count = max(int(field.count), 1)
        if field.offset + count * base.itemsize > msg.point_step:
            raise InputError(
                f"cloud field {field.name!r}: offset {field.offset} and {count} x {base.itemsize} "
                f"bytes do not fit in point_step {msg.point_step}"
            )
        names.append(field.name)
        formats.append(base if count == 1 else np.dtype((base, (count,))))
        offsets.append(field.offset)
    return np.dtype(
        {"names": names, "formats": formats, "offsets": offsets, "itemsize": msg.point_step}
    )


def read_points(msg: Any) -> np.ndarray:
    """All points of a PointCloud2, in the order of the message; none is dropped.

    Returns:
        (N,) structured array, a read-only view of the message's data wherever the rows are not
        padded (then it is a copy); organised clouds are flattened row by row.

    Raises:
        InputError: sizes that contradict each other.
    """
    dtype = cloud_dtype(msg)
    height, width, step, row = msg.height, msg.width, msg.point_step, msg.row_step
    if height * width == 0:
        return np.zeros(0, dtype)
    if height * width > MAX_POINTS:
        raise InputError(f"cloud: {height} x {width} points, at most {MAX_POINTS} are read")
    data = np.frombuffer(msg.data, np.uint8)
    # With one row the row_step says nothing new, and some drivers leave it at 0.
    if height == 1:
        row = max(row, width * step)
    if row < width * step or len(data) < (height - 1) * row + width * step:
        raise InputError(
            f"cloud: {height} x {width} points of {step} bytes in rows of {row} need "
            f"{(height - 1) * max(row, width * step) + width * step} bytes, data has {len(data)}"
        )
    if row == width * step or height == 1:
        return data[: height * width * step].view(dtype)
    rows: np.ndarray = np.ndarray((height, width), dtype, data, strides=(row, step))
    return rows.reshape(-1)


def to_sweep(msg: Any) -> Sweep:
    """A PointCloud2 as a sweep: x y z, then intensity, ring and time where it has them.

    Raises:
        InputError: the cloud has no x, y or z.
    """
    points = read_points(msg)
    present = points.dtype.names or ()
    for name in "xyz":
        if name not in present:
            raise InputError(
                f"cloud {msg.header.frame_id!r}: no field {name!r}; its fields: "
                f"{', '.join(present) or 'none'}"
            )
    chosen = {"x": "x", "y": "y", "z": "z"}
    for name, aliases in ALIASES.items():
        found = [a for a in aliases if a in present]
        if found:
            chosen[name] = found[0]
    if "time" in present:
        chosen["time"] = "time"
    columns = np.empty((len(points), len(chosen)), np.float32)
    with np.errstate(over="ignore"):
        for i, source in enumerate(chosen.values()):
            column = points[source]
            columns[:, i] = column if column.ndim == 1 else column[:, 0]
    return Sweep(columns, tuple(chosen), stamp_of(msg.header), msg.header.frame_id)


def scaled_intensity(sweep: Sweep, scale: float) -> Sweep:
    """The sweep with its intensity brought to 0..255, as `unusual_intensity` asks for."""
    if scale == 1 or "intensity" not in sweep.fields:
        return sweep
    points = sweep.points.copy()
    points[:, sweep.fields.index("intensity")] *= np.float32(scale)
    return replace(sweep, points=points)


def unusual_intensity(sweep: Sweep) -> str | None:
    """What to do about an intensity that is not of the order of 0..255; None where it is.

    Networks are told intensity / 255: of 0..1 they would see nothing, of 0..65535 nothing else.
    """
    if "intensity" not in sweep.fields:
        return None
    values = sweep.points[:, sweep.fields.index("intensity")]
    values = values[np.isfinite(values)]
    most = float(values.max(initial=0))
    if 0 < most <= 1:
        return f"intensity lies in 0..{most:.3g}, expected 0..255; set intensity_scale to 255"
    if most > 2000:
        return f"intensity lies in 0..{most:.0f}, expected 0..255; set intensity_scale below 1"
    return None


def stamp_of(header: Any) -> int:
    """A header's stamp in nanoseconds; ROS 1 calls the parts secs and nsecs."""
    stamp = header.stamp
    if hasattr(stamp, "nanosec"):
        return int(stamp.sec) * 10**9 + int(stamp.nanosec)
    return int(stamp.secs) * 10**9 + int(stamp.nsecs)


def point_fields(dtype: np.dtype) -> list[tuple[str, int, int, int]]:
    """(name, offset, datatype, count) of each field of a structured dtype."""
    result = []
    for name in dtype.names or ():
        base, offset = dtype.fields[name][:2]  # type: ignore[index]
        count = int(np.prod(base.shape)) if base.shape else 1
        number = NUMBERS.get(base.base.newbyteorder("="))
        if number is None:
            raise ValueError(f"field {name!r}: {base.base} is no PointField datatype")
        result.append((name, int(offset), number, count))
    return result
