"""People and animals, and what they push or sit in; x forward, y left, z up, metres."""

from __future__ import annotations

import numpy as np

from afov_train.simulation.solids import (
    RUBBER,
    SKIN,
    Color,
    Material,
    Part,
    any_color,
    blob,
    box,
    cylinder,
)


def person(
    rng: np.random.Generator, height: float | None = None, vest: Color | None = None
) -> list[Part]:
    """Someone standing or walking."""
    h = height or rng.uniform(1.6, 1.88)
    shirt = vest or any_color(rng, 0.05, 0.85)
    trousers = any_color(rng, 0.05, 0.3)
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


def rider_of(rng: np.random.Generator, seat: float) -> list[Part]:
    """Someone who sits at that height."""
    shirt = any_color(rng, 0.05, 0.85)
    return [
        box((0.3, 0.42, 0.6), (-0.1, 0, seat + 0.35), shirt, Material.CLOTH),
        box((0.45, 0.14, 0.14), (0.05, 0.16, seat), (0.1, 0.1, 0.2), Material.CLOTH),
        box((0.45, 0.14, 0.14), (0.05, -0.16, seat), (0.1, 0.1, 0.2), Material.CLOTH),
        box((0.5, 0.55, 0.1), (0.2, 0, seat + 0.42), shirt, Material.CLOTH),
        blob((0.15, 0.14, 0.16), (0, 0, seat + 0.83), any_color(rng, 0.1, 0.9)),
    ]


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
    color = any_color(rng, 0.1, 0.6)
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
        *rider_of(rng, 0.55),
    ]
