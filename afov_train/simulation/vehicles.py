"""What drives and is ridden; x forward, y left, z up, metres."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from afov_train.simulation.people import rider_of
from afov_train.simulation.solids import (
    GLASS,
    RUBBER,
    Color,
    Material,
    Part,
    any_color,
    box,
    cylinder,
    paint,
)


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


def police_car(rng: np.random.Generator) -> list[Part]:
    """A white car with a light bar and a blue stripe."""
    return [
        *car(rng, (0.9, 0.9, 0.92)),
        box((0.3, 1.2, 0.14), (-0.5, 0, 1.62), (0.1, 0.2, 0.95)),
        box((3.2, 2.0, 0.18), (0, 0, 0.6), (0.1, 0.25, 0.75)),
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


def ambulance(rng: np.random.Generator) -> list[Part]:
    """A yellow van with a blue light bar."""
    body = [replace(part, color=(0.95, 0.9, 0.5)) for part in truck(rng)]
    return [*body, box((0.4, 1.6, 0.2), (2.2, 0, 2.9), (0.1, 0.2, 0.95))]


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


def bicycle(rng: np.random.Generator, rider: bool = True) -> list[Part]:
    """A bicycle, thin tubes and two tall wheels, with or without its rider."""
    frame = any_color(rng, 0.1, 0.7)
    parts = [
        *(cylinder(0.34, 0.06, (x, 0, 0.35), RUBBER, axis="y", sides=14) for x in (0.52, -0.52)),
        box((0.95, 0.05, 0.06), (0, 0, 0.62), frame),
        box((0.05, 0.05, 0.55), (0.42, 0, 0.75), frame),
        box((0.05, 0.05, 0.45), (-0.25, 0, 0.7), frame),
        box((0.06, 0.5, 0.05), (0.42, 0, 1.03), RUBBER),
        box((0.26, 0.16, 0.07), (-0.25, 0, 0.95), RUBBER),
    ]
    return parts + (rider_of(rng, 0.92) if rider else [])


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
    return parts + (rider_of(rng, 0.85) if rider else [])
