"""What stands beside the road or lies on it; x forward, y left, z up, metres."""

from __future__ import annotations

import numpy as np

from afov_train.simulation.solids import Color, Material, Part, any_color, blob, box, cylinder


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
    wall = any_color(rng, tone - 0.13, tone + 0.13)
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
