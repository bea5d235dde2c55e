"""The solids that objects are built from; x forward, y left, z up, metres."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import trimesh

Color = tuple[float, float, float]


class Material(IntEnum):
    """How a surface is painted and how it reflects."""

    PLAIN = 0
    ASPHALT = 1
    PAVING = 2
    GRASS = 3
    FACADE = 4
    FOLIAGE = 5
    GLASS = 6
    BANDS = 7
    COBBLES = 8
    CLOTH = 9
    BARK = 10
    METAL = 11


@dataclass(frozen=True)
class Part:
    """Triangles (T, 3, 3) float32 in the object's frame, of one colour and material."""

    triangles: np.ndarray
    color: Color
    material: Material


Builder = Callable[[np.random.Generator], list[Part]]
GLASS: Color = (0.08, 0.1, 0.13)
RUBBER: Color = (0.04, 0.04, 0.045)
SKIN: tuple[Color, ...] = ((0.85, 0.65, 0.5), (0.55, 0.38, 0.26), (0.35, 0.22, 0.15))


def box(
    size: tuple[float, float, float],
    center: tuple[float, float, float],
    color: Color,
    material: Material = Material.PLAIN,
    top: float = 1.0,
) -> Part:
    """A box; `top` shrinks its upper face (a cabin, a cone's hat)."""
    vertices = trimesh.creation.box(size)
    corners = np.array(vertices.vertices)
    corners[corners[:, 2] > 0, :2] *= top
    return Part(_take(corners + center, vertices.faces), color, material)


def cylinder(
    radius: float,
    height: float,
    center: tuple[float, float, float],
    color: Color,
    material: Material = Material.PLAIN,
    axis: str = "z",
    top: float = 1.0,
    sides: int = 10,
) -> Part:
    """A cylinder along `axis`; `top` < 1 makes it a cone."""
    mesh = trimesh.creation.cylinder(radius, height, sections=sides)
    corners = np.array(mesh.vertices)
    corners[corners[:, 2] > 0, :2] *= top
    if axis == "y":
        corners = corners[:, [0, 2, 1]] * [1, 1, -1]
    elif axis == "x":
        corners = corners[:, [2, 1, 0]] * [1, 1, -1]
    return Part(_take(corners + center, mesh.faces), color, material)


def blob(
    radii: tuple[float, float, float],
    center: tuple[float, float, float],
    color: Color,
    material: Material = Material.PLAIN,
    rough: float = 0.0,
    rng: np.random.Generator | None = None,
    detail: int = 1,
) -> Part:
    """An ellipsoid; `rough` makes it lumpy (a crown, a bush)."""
    mesh = trimesh.creation.icosphere(detail)
    corners = np.array(mesh.vertices)
    if rough and rng is not None:
        corners *= 1 + rough * rng.uniform(-1, 1, (len(corners), 1))
    return Part(_take(corners * radii + center, mesh.faces), color, material)


def paint(rng: np.random.Generator) -> Color:
    """A car's colour: mostly greys, some blue, red, green, yellow."""
    bright: list[Color] = [
        (0.85, 0.85, 0.86), (0.12, 0.12, 0.13), (0.45, 0.46, 0.48), (0.62, 0.63, 0.65),
        (0.1, 0.17, 0.42), (0.5, 0.06, 0.07), (0.08, 0.28, 0.16), (0.75, 0.6, 0.1),
    ]  # fmt: skip
    return bright[rng.choice(len(bright), p=[0.2, 0.15, 0.15, 0.15, 0.13, 0.13, 0.05, 0.04])]


def any_color(rng: np.random.Generator, low: float, high: float) -> Color:
    """Any colour between two greys."""
    red, green, blue = rng.uniform(low, high, 3)
    return (float(red), float(green), float(blue))


def _take(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    return vertices[faces].astype(np.float32)
