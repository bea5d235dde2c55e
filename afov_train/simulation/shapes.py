"""Objects of the street, built from a few solids; x forward, y left, z up, metres."""

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


def _take(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    return vertices[faces].astype(np.float32)


def wheels(length: float, width: float, radius: float, thick: float = 0.24) -> list[Part]:
    """Four wheels; they stand 4 cm out of the body, for coplanar faces flicker."""
    place = width / 2 - thick / 2 + 0.04
    return [
        part
        for x in (length * 0.31, -length * 0.31)
        for y in (place, -place)
        for part in (
            cylinder(radius, thick, (x, y, radius), RUBBER, axis="y"),
            cylinder(radius * 0.55, thick + 0.03, (x, y, radius), (0.6, 0.6, 0.62), axis="y"),
        )
    ]


def lights(length: float, width: float, z: float) -> list[Part]:
    """White in front, red behind."""
    ends = ((length / 2, (0.95, 0.95, 0.85)), (-length / 2, (0.75, 0.05, 0.05)))
    return [
        box((0.08, 0.32, 0.16), (x, side * (width / 2 - 0.25), z), color)
        for x, color in ends
        for side in (1, -1)
    ]


def paint(rng: np.random.Generator) -> Color:
    """A car's colour: mostly greys, some blue, red, green, yellow."""
    bright: list[Color] = [
        (0.85, 0.85, 0.86), (0.12, 0.12, 0.13), (0.45, 0.46, 0.48), (0.62, 0.63, 0.65),
        (0.1, 0.17, 0.42), (0.5, 0.06, 0.07), (0.08, 0.28, 0.16), (0.75, 0.6, 0.1),
    ]  # fmt: skip
    return bright[rng.choice(len(bright), p=[0.2, 0.15, 0.15, 0.15, 0.13, 0.13, 0.05, 0.04])]


def _any(rng: np.random.Generator, low: float, high: float) -> Color:
    """Any colour between two greys."""
    red, green, blue = rng.uniform(low, high, 3)
    return (float(red), float(green), float(blue))


def car(rng: np.random.Generator, color: Color | None = None) -> list[Part]:
    """A saloon, an estate or an SUV."""
    length, width = rng.uniform(4.1, 4.9), rng.uniform(1.75, 1.95)
    high = rng.uniform(0, 0.3)
    color = color or paint(rng)
    hood, roof = 0.72 + high * 0.6, 1.42 + high
    rear = rng.choice([-0.12, -0.2, -0.05])
    cabin = length * rng.uniform(0.5, 0.68)
    return [
        box((length, width, hood - 0.25), (0, 0, (hood + 0.25) / 2), color, Material.METAL, 0.97),
        box((cabin, width * 0.94, roof - hood), (rear * length, 0, (roof + hood) / 2), GLASS,
            Material.GLASS, 0.78),
        box((cabin * 0.74, width * 0.74, 0.05), (rear * length, 0, roof + 0.02), color,
            Material.METAL),
        *wheels(length, width, 0.33),
        *lights(length, width, hood - 0.15),
    ]  # fmt: skip


def emergency(rng: np.random.Generator, color: Color, stripe: Color) -> list[Part]:
    """A police car: a light bar and a stripe on a car."""
    return [
        *car(rng, color),
        box((0.3, 1.2, 0.14), (-0.5, 0, 1.62), (0.1, 0.2, 0.95)),
        box((3.2, 2.0, 0.18), (0, 0, 0.6), stripe),
    ]


def truck(rng: np.random.Generator) -> list[Part]:
    """A box truck: cab and cargo."""
    cargo, width, top = rng.uniform(4.5, 6.5), rng.uniform(2.3, 2.5), rng.uniform(2.9, 3.5)
    cab, load = paint(rng), paint(rng) if rng.random() < 0.5 else (0.88, 0.88, 0.86)
    length = cargo + 2.0
    return [
        box((1.9, width, 1.6), (length / 2 - 0.95, 0, 1.3), cab, Material.METAL),
        box((1.5, width * 0.96, 0.8), (length / 2 - 1.0, 0, 2.4), GLASS, Material.GLASS, 0.85),
        box((cargo, width, top - 0.95), (-1.0, 0, (top + 0.95) / 2), load, Material.METAL),
        box((length, width * 0.8, 0.4), (0, 0, 0.75), RUBBER),
        *wheels(length, width, 0.5, 0.3),
        *lights(length, width, 0.9),
    ]


def bus(rng: np.random.Generator) -> list[Part]:
    """A city bus: a long body with a band of windows."""
    length, width = rng.uniform(10.5, 12.5), 2.55
    colors: list[Color] = [
        (0.75, 0.1, 0.1), (0.9, 0.75, 0.15), (0.15, 0.35, 0.7), (0.9, 0.9, 0.88), (0.1, 0.5, 0.3)
    ]  # fmt: skip
    color = colors[rng.integers(len(colors))]
    return [
        box((length, width, 0.95), (0, 0, 0.85), color, Material.METAL),
        box((length * 0.995, width * 0.99, 1.1), (0, 0, 1.87), GLASS, Material.GLASS),
        box((length, width, 0.65), (0, 0, 2.74), color, Material.METAL, 0.97),
        *(
            box((0.14, width * 1.005, 1.1), (x, 0, 1.87), color)
            for x in np.arange(-length / 2 + 0.4, length / 2 - 1.0, 1.6)
        ),
        *wheels(length, width, 0.5, 0.3),
        *lights(length, width, 0.8),
    ]


def trailer(rng: np.random.Generator) -> list[Part]:
    """A semi-trailer without its tractor, or a small flat one with a load."""
    length, width = rng.uniform(7.5, 11.0), 2.5
    low = [
        box((length, width * 0.9, 0.3), (0, 0, 1.05), (0.15, 0.15, 0.16)),
        *(
            cylinder(0.48, 0.34, (x, y, 0.48), RUBBER, axis="y")
            for x in (-length * 0.4, -length * 0.27)
            for y in (1.05, -1.05)
        ),
        *(box((0.15, 0.15, 0.9), (length * 0.3, y, 0.45), (0.3, 0.3, 0.3)) for y in (0.8, -0.8)),
    ]
    if rng.random() < 0.6:
        load: Color = ((0.8, 0.8, 0.78), (0.55, 0.2, 0.15), (0.2, 0.32, 0.5))[rng.integers(3)]
        return [*low, box((length, width, 2.5), (0, 0, 2.47), load, Material.BANDS)]
    return [*low, *(
        box((length * 0.28, width * 0.9, 0.9), (x * length, 0, 1.66), (0.5, 0.38, 0.22),
            Material.COBBLES)
        for x in (-0.32, 0.0, 0.32)
    )]  # fmt: skip


def construction_vehicle(rng: np.random.Generator) -> list[Part]:
    """An excavator: tracks, a turning cab, a bent arm with a bucket."""
    yellow: Color = (0.88, 0.6, 0.05)
    turn = rng.uniform(0.9, 1.15)
    return [
        *(box((3.6, 0.6, 0.8), (0, y, 0.4), RUBBER) for y in (1.1, -1.1)),
        box((3.0, 2.5, 0.9), (-0.4, 0, 1.4), yellow, Material.METAL),
        box((1.4, 1.1, 1.3), (0.3, 0.6, 2.45), GLASS, Material.GLASS, 0.9),
        box((1.5, 1.15, 0.12), (0.3, 0.6, 3.15), yellow),
        box((0.5, 0.45, 2.8 * turn), (1.7, -0.3, 2.6), yellow, Material.METAL),
        box((2.6, 0.4, 0.45), (2.7, -0.3, 3.9 * turn), yellow, Material.METAL),
        box((0.4, 0.35, 2.2), (3.9, -0.3, 2.9), yellow, Material.METAL),
        box((0.9, 1.1, 0.8), (3.9, -0.3, 1.5), (0.3, 0.3, 0.3), top=0.7),
    ]


def person(
    rng: np.random.Generator, height: float | None = None, vest: Color | None = None
) -> list[Part]:
    """Someone standing or walking."""
    h = height or rng.uniform(1.6, 1.88)
    shirt = vest or _any(rng, 0.05, 0.85)
    trousers = _any(rng, 0.05, 0.3)
    skin = SKIN[rng.integers(len(SKIN))]
    stride = rng.uniform(0.05, 0.3)
    head: list[Part] = [blob((0.11, 0.1, 0.14), (0, 0, 0.93 * h), skin)]
    if vest:
        head.append(blob((0.14, 0.13, 0.09), (0, 0, 0.99 * h), (0.95, 0.8, 0.1)))
    else:
        head.append(blob((0.115, 0.105, 0.08), (-0.02, 0, 0.97 * h), (0.12, 0.08, 0.05)))
    return [
        box((0.16, 0.15, 0.47 * h), (stride, 0.1, 0.235 * h), trousers, Material.CLOTH),
        box((0.16, 0.15, 0.47 * h), (-stride, -0.1, 0.235 * h), trousers, Material.CLOTH),
        box((0.25, 0.42, 0.38 * h), (0, 0, 0.65 * h), shirt, Material.CLOTH, 1.08),
        box((0.12, 0.1, 0.34 * h), (-stride * 0.5, 0.27, 0.64 * h), shirt, Material.CLOTH),
        box((0.12, 0.1, 0.34 * h), (stride * 0.5, -0.27, 0.64 * h), shirt, Material.CLOTH),
        *head,
    ]


def bicycle(rng: np.random.Generator, rider: bool = True) -> list[Part]:
    """A bicycle, thin tubes and two tall wheels, with or without its rider."""
    frame = _any(rng, 0.1, 0.7)
    parts = [
        *(cylinder(0.34, 0.06, (x, 0, 0.35), RUBBER, axis="y", sides=14) for x in (0.52, -0.52)),
        box((0.95, 0.05, 0.06), (0, 0, 0.62), frame),
        box((0.05, 0.05, 0.55), (0.42, 0, 0.75), frame),
        box((0.05, 0.05, 0.45), (-0.25, 0, 0.7), frame),
        box((0.06, 0.5, 0.05), (0.42, 0, 1.03), RUBBER),
        box((0.26, 0.16, 0.07), (-0.25, 0, 0.95), RUBBER),
    ]
    return parts + (_rider(rng, 0.92) if rider else [])


def motorcycle(rng: np.random.Generator, rider: bool = True) -> list[Part]:
    """A motorcycle: fat wheels, tank, seat."""
    color = paint(rng)
    parts = [
        *(cylinder(0.32, 0.16, (x, 0, 0.32), RUBBER, axis="y", sides=12) for x in (0.72, -0.72)),
        box((1.0, 0.32, 0.4), (0, 0, 0.55), (0.2, 0.2, 0.21), Material.METAL),
        box((0.6, 0.36, 0.28), (0.2, 0, 0.88), color, Material.METAL),
        box((0.7, 0.3, 0.12), (-0.4, 0, 0.86), RUBBER),
        box((0.12, 0.7, 0.08), (0.55, 0, 1.08), RUBBER),
        box((0.1, 0.3, 0.3), (0.72, 0, 0.95), color, Material.METAL),
    ]
    return parts + (_rider(rng, 0.85) if rider else [])


def _rider(rng: np.random.Generator, seat: float) -> list[Part]:
    shirt = _any(rng, 0.05, 0.85)
    return [
        box((0.3, 0.42, 0.6), (-0.1, 0, seat + 0.35), shirt, Material.CLOTH),
        box((0.45, 0.14, 0.14), (0.05, 0.16, seat), (0.1, 0.1, 0.2), Material.CLOTH),
        box((0.45, 0.14, 0.14), (0.05, -0.16, seat), (0.1, 0.1, 0.2), Material.CLOTH),
        box((0.5, 0.55, 0.1), (0.2, 0, seat + 0.42), shirt, Material.CLOTH),
        blob((0.15, 0.14, 0.16), (0, 0, seat + 0.83), _any(rng, 0.1, 0.9)),
    ]


def traffic_cone(rng: np.random.Generator) -> list[Part]:
    """Orange with a white collar."""
    h = rng.uniform(0.6, 0.95)
    return [
        box((0.42, 0.42, 0.05), (0, 0, 0.025), (0.85, 0.25, 0.02)),
        cylinder(0.17, h, (0, 0, h / 2), (0.95, 0.32, 0.03), Material.BANDS, top=0.2),
    ]


def barrier(rng: np.random.Generator) -> list[Part]:
    """A barrier element: concrete, or a striped board on feet."""
    if rng.random() < 0.5:
        gray = float(rng.uniform(0.55, 0.7))
        return [
            box((2.0, 0.6, 0.3), (0, 0, 0.15), (gray, gray, gray * 0.95)),
            box((2.0, 0.45, 0.7), (0, 0, 0.62), (gray, gray, gray * 0.95), top=0.6),
        ]
    return [
        box((1.9, 0.1, 0.3), (0, 0, 0.9), (0.9, 0.15, 0.08), Material.BANDS),
        box((1.9, 0.1, 0.22), (0, 0, 0.45), (0.9, 0.15, 0.08), Material.BANDS),
        *(box((0.12, 0.5, 1.0), (x, 0, 0.5), (0.9, 0.9, 0.9)) for x in (0.8, -0.8)),
    ]


def tree(rng: np.random.Generator) -> list[Part]:
    """A trunk and a lumpy crown."""
    h, r = rng.uniform(4.5, 9), rng.uniform(1.4, 2.6)
    green = _green(rng)
    crowns = [
        blob((r, r, r * rng.uniform(0.8, 1.2)), (dx, dy, h * 0.72 + dz), green, Material.FOLIAGE,
             0.15, rng)
        for dx, dy, dz in rng.uniform(-0.5, 0.5, (3, 3)) * [r, r, r]
    ]  # fmt: skip
    bark: Color = (0.28, 0.2, 0.14)
    return [cylinder(0.2, h * 0.7, (0, 0, h * 0.35), bark, Material.BARK, sides=8), *crowns]


def hedge(rng: np.random.Generator) -> list[Part]:
    """A clipped hedge or a row of bushes."""
    length, h = rng.uniform(3, 8), rng.uniform(0.7, 1.7)
    if rng.random() < 0.5:
        return [box((length, 0.9, h), (0, 0, h / 2), _green(rng), Material.FOLIAGE)]
    return [
        blob((0.8, 0.7, h * 0.6), (x, 0, h * 0.45), _green(rng), Material.FOLIAGE, 0.15, rng)
        for x in np.arange(-length / 2, length / 2, 1.1)
    ]


def _green(rng: np.random.Generator) -> Color:
    return (rng.uniform(0.1, 0.26), rng.uniform(0.28, 0.45), rng.uniform(0.06, 0.14))


def building(rng: np.random.Generator, length: float, depth: float) -> list[Part]:
    """A house front with rows of windows, a plinth and a flat or gabled roof."""
    h = rng.uniform(5, 17)
    tone = rng.uniform(0.4, 0.75)
    wall = _any(rng, tone - 0.13, tone + 0.13)
    roof: Color = ((0.35, 0.14, 0.1), (0.22, 0.22, 0.24), (0.3, 0.24, 0.2))[rng.integers(3)]
    parts = [
        box((length, depth, h), (0, 0, h / 2), wall, Material.FACADE),
        box((length + 0.1, depth + 0.1, 0.5), (0, 0, 0.25), (0.35, 0.34, 0.33)),
    ]
    if rng.random() < 0.5:
        parts.append(box((length + 0.4, depth + 0.4, 1.8), (0, 0, h + 0.9), roof, top=0.6))
    else:
        parts.append(box((length + 0.3, depth + 0.3, 0.4), (0, 0, h + 0.2), roof))
    return parts


def lamp(rng: np.random.Generator) -> list[Part]:
    """A street lamp, its arm over the road (towards -y)."""
    h = rng.uniform(5, 7)
    gray: Color = (0.35, 0.36, 0.37)
    return [
        cylinder(0.09, h, (0, 0, h / 2), gray, sides=8),
        box((0.12, 1.6, 0.1), (0, -0.8, h), gray),
        box((0.25, 0.5, 0.12), (0, -1.6, h - 0.08), (0.9, 0.9, 0.8)),
    ]


def sign(rng: np.random.Generator) -> list[Part]:
    """A traffic sign or a traffic light on a pole."""
    pole = cylinder(0.05, 2.6, (0, 0, 1.3), (0.5, 0.5, 0.5), sides=6)
    if rng.random() < 0.4:
        return [pole, box((0.25, 0.3, 0.85), (0, 0, 2.9), (0.06, 0.06, 0.06)),
                box((0.27, 0.16, 0.16), (0, 0, 3.15), (0.9, 0.1, 0.05))]  # fmt: skip
    color: Color = ((0.8, 0.1, 0.1), (0.1, 0.25, 0.7), (0.9, 0.9, 0.9))[rng.integers(3)]
    return [pole, cylinder(0.36, 0.05, (0, 0, 2.6), color, axis="x")]


def fence(rng: np.random.Generator) -> list[Part]:
    """A low wall or a wooden fence."""
    length, h = rng.uniform(4, 9), rng.uniform(0.9, 1.6)
    if rng.random() < 0.5:
        return [box((length, 0.25, h), (0, 0, h / 2), (0.55, 0.42, 0.36), Material.COBBLES)]
    posts = [box((0.12, 0.1, h), (x, 0, h / 2), (0.42, 0.3, 0.18))
             for x in np.arange(-length / 2, length / 2, 0.28)]  # fmt: skip
    return [*posts, box((length, 0.06, 0.12), (0, 0, h * 0.75), (0.42, 0.3, 0.18))]


def animal(rng: np.random.Generator) -> list[Part]:
    """A dog."""
    fur: Color = ((0.35, 0.24, 0.14), (0.1, 0.09, 0.08), (0.75, 0.68, 0.55))[rng.integers(3)]
    legs = [box((0.08, 0.08, 0.4), (x, y, 0.2), fur) for x in (0.28, -0.28) for y in (0.1, -0.1)]
    return [
        *legs,
        blob((0.42, 0.17, 0.19), (0, 0, 0.52), fur),
        blob((0.16, 0.12, 0.14), (0.47, 0, 0.72), fur),
        box((0.3, 0.05, 0.05), (-0.5, 0, 0.65), fur),
    ]


def stroller(rng: np.random.Generator) -> list[Part]:
    """A pram."""
    color = _any(rng, 0.1, 0.6)
    tyres = [cylinder(0.14, 0.05, (x, y, 0.14), RUBBER, axis="y")
             for x in (0.3, -0.3) for y in (0.24, -0.24)]  # fmt: skip
    return [
        *tyres,
        box((0.75, 0.4, 0.35), (0, 0, 0.6), color, Material.CLOTH, 1.1),
        blob((0.3, 0.22, 0.26), (0.2, 0, 0.85), color, Material.CLOTH),
        box((0.05, 0.42, 0.05), (-0.5, 0, 1.0), RUBBER),
    ]


def wheelchair(rng: np.random.Generator) -> list[Part]:
    """A wheelchair with someone in it."""
    return [
        *(cylinder(0.3, 0.05, (-0.1, y, 0.3), RUBBER, axis="y") for y in (0.3, -0.3)),
        box((0.5, 0.5, 0.1), (0, 0, 0.5), (0.1, 0.1, 0.12)),
        box((0.1, 0.5, 0.5), (-0.25, 0, 0.75), (0.1, 0.1, 0.12)),
        *_rider(rng, 0.55),
    ]


def debris(rng: np.random.Generator) -> list[Part]:
    """Cardboard and planks on the road."""
    return [
        box((*rng.uniform(0.3, 0.7, 2), rng.uniform(0.15, 0.4)),
            (*rng.uniform(-0.6, 0.6, 2), 0.18), (0.52, 0.38, 0.22))
        for _ in range(4)
    ]  # fmt: skip


def bin_(rng: np.random.Generator) -> list[Part]:
    """A wheeled dustbin."""
    color: Color = ((0.1, 0.3, 0.12), (0.15, 0.17, 0.4), (0.2, 0.2, 0.2))[rng.integers(3)]
    return [
        box((0.58, 0.55, 0.95), (0, 0, 0.5), color, top=1.15),
        box((0.7, 0.66, 0.08), (0, 0, 1.02), color),
    ]


def bicycle_rack(rng: np.random.Generator) -> list[Part]:
    """Steel hoops."""
    return [
        part
        for x in np.arange(-1.2, 1.3, 0.6)
        for part in (
            box((0.06, 0.06, 0.8), (x, 0.35, 0.4), (0.6, 0.6, 0.62)),
            box((0.06, 0.06, 0.8), (x, -0.35, 0.4), (0.6, 0.6, 0.62)),
            box((0.06, 0.76, 0.06), (x, 0, 0.8), (0.6, 0.6, 0.62)),
        )
    ]


Builder = Callable[[np.random.Generator], list[Part]]
