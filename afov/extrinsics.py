"""Mounts of the sensors from a YAML file, where a recording has no tf."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from afov.config import load_yaml
from afov.transforms import TransformTree, matrix_from


@dataclass(frozen=True)
class Mount:
    """Where a sensor's frame sits in its parent.

    Attributes:
        translation: metres; rotation: quaternion x y z w; both take child to parent coordinates.
    """

    parent: str
    child: str
    translation: tuple[float, float, float]
    rotation: tuple[float, float, float, float]


@dataclass(frozen=True)
class Extrinsics:
    """The file: `frames:`, a list of mounts."""

    frames: tuple[Mount, ...]


def add_extrinsics(tree: TransformTree, file: Path) -> None:
    """Adds the file's mounts to the tree; they replace what it has.

    Raises:
        InputError: the file is not of that form.
    """
    for mount in load_yaml(Extrinsics, file).frames:
        where = f"{file}: {mount.child}"
        pose = matrix_from(np.array(mount.rotation), np.array(mount.translation), where)
        tree.add_static(mount.parent, mount.child, pose)
