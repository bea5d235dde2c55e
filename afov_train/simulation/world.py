"""A street from a seed: its ground, what stands along it, and the raw class of each."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from afov_train.simulation import scenery
from afov_train.simulation.solids import Builder, Material, Part, box

# nuScenes lidarseg indices.
ADULT, CHILD, WORKER, BARRIER, CONE = 2, 3, 4, 9, 12
ROAD, FLAT, SIDEWALK, TERRAIN, MANMADE, VEGETATION = 24, 25, 26, 27, 28, 30
LENGTH = 170.0  # metres of street, centred on x = 0
SPREAD = 4000.0  # metres between streets in the world frame


@dataclass(frozen=True)
class Thing:
    """An object, or a piece of ground.

    Attributes:
        raw: nuScenes lidarseg index.
        parts: its solids, in its own frame.
        pose: (4, 4) float64, street from object at t = 0.
        velocity: (3,) metres per second in the street frame.
        instance: 1.. for countable objects, 0 for stuff.
    """

    raw: int
    parts: tuple[Part, ...]
    pose: np.ndarray
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(3))
    instance: int = 0

    def at(self, t: float) -> np.ndarray:
        """(4, 4) pose `t` seconds into the street."""
        pose = self.pose.copy()
        pose[:3, 3] += self.velocity * t
        return pose


def pose2d(x: float, y: float, yaw: float = 0.0, z: float = 0.0) -> np.ndarray:
    """(4, 4) pose from a place on the ground and a heading."""
    pose = np.eye(4)
    c, s = np.cos(yaw), np.sin(yaw)
    pose[:2, :2] = [[c, -s], [s, c]]
    pose[:3, 3] = x, y, z
    return pose


class Street:
    """One street along x, empty as yet (traffic.py fills it); y is left, the road at z = 0."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = np.random.default_rng((seed, 7))
        self.seed = seed
        self.things: list[Thing] = []
        self.taken: list[tuple[float, float, float]] = []
        lanes = int(rng.integers(1, 3))
        self.median = float(rng.choice([0.0, 1.6, 2.4]))
        self.half = self.median / 2 + 3.5 * lanes + 0.4
        self.parking = 2.3
        self.curb = self.half + self.parking
        self.walk = float(rng.uniform(2.2, 4.0))
        self.verge = float(rng.uniform(1.5, 7.0))
        self.lane = -(self.median / 2 + 1.75)
        self.speed = float(rng.uniform(3, 11))
        self.start = float(rng.uniform(-35, -10))
        self.wobble = rng.uniform(-0.02, 0.02, 2)
        azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 1.2)
        self.sun = np.array(
            [np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)]
        )
        self.sunlight = float(rng.uniform(0.55, 1.0))
        self._ground()
        self._sides()

    def ego(self, t: float) -> np.ndarray:
        """(4, 4) street from base_link (on the ground under the rear axle), `t` seconds in."""
        yaw = self.wobble[0] * np.sin(0.7 * t) + self.wobble[1]
        return pose2d(self.start + self.speed * t, self.lane + 0.1 * np.sin(0.5 * t), yaw)

    def add(
        self, raw: int, parts: list[Part], pose: np.ndarray, speed: float = 0.0, thing: bool = True
    ) -> None:
        """Places an object; `speed` in metres per second along its own x."""
        instance = 1 + sum(o.instance > 0 for o in self.things) if thing else 0
        self.things.append(Thing(raw, tuple(parts), pose, pose[:3, 0] * speed, instance))

    def _slab(
        self, raw: int, x0: float, x1: float, y0: float, y1: float, top: float,
        color: tuple[float, float, float], material: Material,
    ) -> None:  # fmt: skip
        size = (x1 - x0, y1 - y0, 0.5)
        center = ((x0 + x1) / 2, (y0 + y1) / 2, top - 0.25)
        self.add(raw, [box(size, center, color, material)], np.eye(4), thing=False)

    def _ground(self) -> None:
        rng, far = self.rng, LENGTH / 2
        tone = float(rng.uniform(0.2, 0.32))
        green = (rng.uniform(0.25, 0.36), rng.uniform(0.36, 0.46), rng.uniform(0.14, 0.2))
        self._slab(TERRAIN, -160, 160, -90, 90, -0.06, green, Material.GRASS)
        self._slab(ROAD, -far, far, -self.curb, self.curb, 0, (tone, tone, tone), Material.ASPHALT)
        cross = float(rng.uniform(10, 35)) * rng.choice([-1, 1])
        self.cross = (cross - 4.0, cross + 4.0)
        self._slab(ROAD, *self.cross, -70, 70, -0.012, (tone, tone, tone), Material.ASPHALT)
        pave = rng.uniform(0.48, 0.66)
        gray = (pave, pave * 0.97, pave * 0.92)
        for x0, x1 in ((-far, self.cross[0] - 2), (self.cross[1] + 2, far)):
            for side in (1, -1):
                y0, y1 = sorted((side * self.curb, side * (self.curb + self.walk)))
                self._slab(SIDEWALK, x0, x1, y0, y1, 0.13, gray, Material.PAVING)
            if self.median:
                half = self.median / 2
                self._slab(FLAT, x0, x1, -half, half, 0.1, (0.5, 0.4, 0.34), Material.COBBLES)
        # A paved yard beside the walk, neither road nor sidewalk.
        x, side = float(rng.uniform(-30, 30)), rng.choice([-1, 1])
        y0, y1 = sorted((side * (self.curb + self.walk), side * (self.curb + self.walk + 9)))
        self._slab(FLAT, x - 8, x + 8, y0, y1, 0.06, (0.46, 0.36, 0.31), Material.COBBLES)

    def free(self, x: float, y: float, radius: float) -> bool:
        """Whether nothing else stands there, metres; the place is taken then."""
        if any((x - a) ** 2 + (y - b) ** 2 < (radius + r) ** 2 for a, b, r in self.taken):
            return False
        self.taken.append((x, y, radius))
        return True

    def _sides(self) -> None:
        """Buildings, fences, trees, hedges, lamps, signs."""
        rng = self.rng
        front = self.curb + self.walk + self.verge
        for side in (1, -1):
            x = -LENGTH / 2
            while x < LENGTH / 2:
                length, depth = float(rng.uniform(8, 22)), float(rng.uniform(8, 14))
                clear = self.cross[1] + 1 < x or x + length < self.cross[0] - 1
                if clear and rng.random() < 0.8:
                    pose = pose2d(x + length / 2, side * (front + depth / 2))
                    parts = scenery.building(rng, length * 0.96, depth)
                    self.add(MANMADE, parts, pose, thing=False)
                x += length
            self._row(MANMADE, scenery.lamp, 24, side * (self.curb + 0.5), side, 0.9, 0.4)
            self._row(MANMADE, scenery.sign, 22, side * (self.curb + 0.35), side, 0.6, 0.3)
            self._row(VEGETATION, scenery.tree, 11, side * (self.curb + self.walk + 0.8), side, 0.6)
            self._row(VEGETATION, scenery.hedge, 10, side * (front - 0.7), side, 0.45)
            self._row(MANMADE, scenery.fence, 13, side * (front - 0.3), side, 0.4)
            self._row(VEGETATION, scenery.tree, 15, side * (front + 16), side, 0.8)

    def _row(
        self, raw: int, build: Builder, step: float, y: float, side: int, share: float,
        radius: float = 0.7,
    ) -> None:  # fmt: skip
        rng = self.rng
        for x in np.arange(-LENGTH / 2 + 5, LENGTH / 2 - 5, step):
            x = float(x + rng.uniform(-0.25, 0.25) * step)
            if self.cross[0] - 3 < x < self.cross[1] + 3 or rng.random() > share:
                continue
            if self.free(x, y, radius):
                yaw = 0.0 if side > 0 else np.pi
                self.add(raw, build(rng), pose2d(x, y, yaw, 0.0), thing=False)
