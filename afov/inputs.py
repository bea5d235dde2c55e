"""What the network is told of a voxel."""

from __future__ import annotations

import numpy as np

from afov.errors import InputError
from afov.frames import Sweep
from afov.voxels import Voxels

# Brings each input to the order of 1: intensity of 0..255, metres within a hundred.
SCALE = {"intensity": 1 / 255, "rho": 1 / 50, "x": 1 / 50, "y": 1 / 50, "z": 1 / 3}
LIMIT = 1000.0  # above any sensor's values; a fault of 1e38 would overflow in the network


def inputs(sweep: Sweep, voxels: Voxels, names: tuple[str, ...]) -> np.ndarray:
    """(V, C) float32, one column per name, of each voxel's representative point.

    Raises:
        InputError: the sweep lacks a field that the network needs.
    """
    check_fields(sweep, names)
    columns, points = [], sweep.points.take(voxels.representative, axis=0)
    for name in names:
        if name == "rho":
            column = np.hypot(points[:, 0], points[:, 1])
        else:
            column = points[:, sweep.fields.index(name)]
        # A NaN in one field must not spread to the neighbours.
        columns.append(np.nan_to_num(column, posinf=0, neginf=0) * np.float32(SCALE[name]))
    return np.clip(np.stack(columns, 1), -LIMIT, LIMIT).astype(np.float32)


def check_fields(sweep: Sweep, names: tuple[str, ...]) -> None:
    """Raises an InputError if the sweep lacks a field that the network needs."""
    for name in names:
        if name != "rho" and not (name in sweep.fields and name in SCALE):
            raise InputError(
                f"cloud {sweep.frame_id!r}: no field {name!r}, which the model needs; its fields: "
                f"{', '.join(sweep.fields)}; train with network.inputs that the sensor has"
            )
