"""A street from a seed: what stands along it, what moves on it, and the raw class of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from afov_train.simulation import people, scenery, vehicles
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
    """One street along x with its traffic; y is left, z up, the road lies at z = 0."""

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
        self._traffic()
        self._people_and_works()
        self._extras()

    def ego(self, t: float) -> np.ndarray:
        """(4, 4) street from base_link (on the ground under the rear axle), `t` seconds in."""
        yaw = self.wobble[0] * np.sin(0.7 * t) + self.wobble[1]
        return pose2d(self.start + self.speed * t, self.lane + 0.1 * np.sin(0.5 * t), yaw)

    def _add(
        self, raw: int, parts: list[Part], pose: np.ndarray, speed: float = 0.0, thing: bool = True
    ) -> None:
        instance = 1 + sum(o.instance > 0 for o in self.things) if thing else 0
        self.things.append(Thing(raw, tuple(parts), pose, pose[:3, 0] * speed, instance))

    def _slab(
        self, raw: int, x0: float, x1: float, y0: float, y1: float, top: float,
        color: tuple[float, float, float], material: Material,
    ) -> None:  # fmt: skip
        size = (x1 - x0, y1 - y0, 0.5)
        center = ((x0 + x1) / 2, (y0 + y1) / 2, top - 0.25)
        self._add(raw, [box(size, center, color, material)], np.eye(4), thing=False)

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

    def _free(self, x: float, y: float, radius: float) -> bool:
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
                    self._add(MANMADE, parts, pose, thing=False)
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
            if self._free(x, y, radius):
                yaw = 0.0 if side > 0 else np.pi
                self._add(raw, build(rng), pose2d(x, y, yaw, 0.0), thing=False)

    def _traffic(self) -> None:
        """Parked and moving vehicles, two-wheelers with riders."""
        rng = self.rng
        kinds: list[tuple[int, Builder, float, float]] = [
            (17, vehicles.car, 2.7, 0.44), (23, vehicles.truck, 4.6, 0.15),
            (22, vehicles.trailer, 5.8, 0.12), (18, vehicles.construction_vehicle, 3.9, 0.09),
            (16, vehicles.bus, 6.6, 0.08), (21, lambda r: vehicles.motorcycle(r, False), 1.3, 0.07),
            (19, _ambulance, 3.5, 0.02), (20, _police, 2.8, 0.03),
        ]  # fmt: skip
        share = np.array([k[3] for k in kinds])
        for side in (1, -1):
            x = -65.0
            while x < 65:
                raw, build, half, _ = kinds[rng.choice(len(kinds), p=share / share.sum())]
                x += half + float(rng.uniform(0.6, 5))
                clear = not self.cross[0] - 8 < x < self.cross[1] + 8
                y = side * (self.half + self.parking / 2 + (0.25 if half > 3 else 0.1))
                if clear and rng.random() < 0.72 and self._free(x, y, 0.5):
                    yaw = 0.0 if side < 0 else np.pi
                    self._add(raw, build(rng), pose2d(x, y, yaw + float(rng.normal(0, 0.02))))
                x += half
        lane_ys = np.arange(self.median / 2 + 1.75, self.half - 1, 3.5)
        moving = [*kinds[:2], kinds[4], kinds[0], kinds[0]]
        for lane_y in lane_ys:
            for side in (1, -1):
                y, yaw = side * float(lane_y), 0.0 if side < 0 else np.pi
                mine = abs(y - self.lane) < 0.1
                # In its own lane the ego keeps its distance to the one ahead and behind.
                places = [self.start + 22, self.start - 20] if mine else [-45, -20, 6, 33]
                for place in places:
                    raw, build, _, _ = moving[rng.integers(len(moving))]
                    if rng.random() < 0.55:
                        x = place + float(rng.uniform(-4, 4)) * (not mine)
                        speed = self.speed if mine else float(rng.uniform(2, 12))
                        self._add(raw, build(rng), pose2d(x, y, yaw), speed)
        edge = self.half - 0.6
        two: list[tuple[int, Builder]] = [(14, vehicles.bicycle), (21, vehicles.motorcycle)]
        for _ in range(int(rng.integers(3, 7))):
            raw, build = two[rng.integers(2)]
            side = int(rng.choice([-1, 1]))
            x = float(rng.uniform(-35, 45))
            yaw = 0.0 if side < 0 else np.pi
            if abs(x - self.start) > 9:
                self._add(raw, build(rng), pose2d(x, side * edge, yaw), float(rng.uniform(2, 6)))
        for _ in range(int(rng.integers(2, 5))):
            x, side = float(rng.uniform(-35, 45)), int(rng.choice([-1, 1]))
            y = side * (self.curb + self.walk - 0.6)
            if self._free(x, y, 0.9):
                pose = pose2d(x, y, float(rng.uniform(-0.3, 0.3)), 0.13)
                self._add(14, vehicles.bicycle(rng, False), pose)

    def _people_and_works(self) -> None:
        """Pedestrians; a building site with cones, barriers and workers."""
        rng = self.rng
        for _ in range(int(rng.integers(8, 18))):
            side = int(rng.choice([-1, 1]))
            x = float(rng.uniform(-40, 50))
            y = side * (self.curb + float(rng.uniform(0.5, self.walk - 0.3)))
            if self._free(x, y, 0.45):
                heading = float(rng.choice([0, np.pi]) + rng.normal(0, 0.3))
                child = rng.random() < 0.15
                build = people.person(rng, float(rng.uniform(1.0, 1.35)) if child else None)
                pace = float(rng.uniform(0, 1.6))
                raw = CHILD if child else ADULT
                self._add(raw, build, pose2d(x, y, heading, 0.13), pace)
        for site in range(2):
            side = 1 if site else -1
            x0 = self.start + float(rng.uniform(8, 38))
            y = side * (self.half - 0.35)
            for i in range(int(rng.integers(3, 8))):
                x = x0 + 2.6 * i
                if self._free(x, y, 0.3):
                    self._add(CONE, scenery.traffic_cone(rng), pose2d(x, y + rng.normal(0, 0.15)))
            x1 = self.start + float(rng.uniform(-18, 30))
            for i in range(int(rng.integers(3, 8))):
                x = x1 + 2.15 * i
                y1 = side * (self.half + float(rng.choice([0.2, self.parking - 0.5])))
                if self._free(x, y1, 1.0):
                    self._add(BARRIER, scenery.barrier(rng), pose2d(x, y1))
            if rng.random() < 0.6 and self._free(x0 + 4, y + side * 1.2, 0.4):
                vest = (0.9, 0.45, 0.05) if rng.random() < 0.5 else (0.75, 0.85, 0.1)
                pose = pose2d(x0 + 4, y + side * 1.2, float(rng.uniform(0, 6)))
                self._add(WORKER, people.person(rng, vest=vest), pose)

    def _extras(self) -> None:
        """Objects outside the sixteen classes."""
        rng = self.rng
        kinds: list[tuple[int, Builder]] = [
            (1, people.animal), (7, people.stroller), (8, people.wheelchair),
            (10, scenery.debris), (11, scenery.bin_), (13, scenery.bicycle_rack),
        ]  # fmt: skip
        for _ in range(int(rng.integers(3, 7))):
            raw, build = kinds[rng.integers(len(kinds))]
            side = int(rng.choice([-1, 1]))
            x = self.start + float(rng.uniform(-12, 35))
            on_road = raw == 10
            y = side * (self.half - 0.5 if on_road else self.curb + self.walk - 0.8)
            if self._free(x, y, 0.8):
                pose = pose2d(x, y, float(rng.uniform(0, 6.3)), 0.0 if on_road else 0.13)
                self._add(raw, build(rng), pose)


def _police(rng: np.random.Generator) -> list[Part]:
    return vehicles.emergency(rng, (0.9, 0.9, 0.92), (0.1, 0.25, 0.75))


def _ambulance(rng: np.random.Generator) -> list[Part]:
    van: Callable[[np.random.Generator], list[Part]] = vehicles.truck
    body = [replace(p, color=(0.95, 0.9, 0.5)) for p in van(rng)]
    return [*body, box((0.4, 1.6, 0.2), (2.2, 0, 2.9), (0.1, 0.2, 0.95))]
