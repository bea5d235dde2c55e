"""Who is on a street: vehicles, riders, people, works, and things outside the sixteen classes."""

from __future__ import annotations

import numpy as np

from afov_train.simulation import people, scenery, vehicles
from afov_train.simulation.solids import Builder
from afov_train.simulation.world import ADULT, BARRIER, CHILD, CONE, WORKER, Street, pose2d

# Raw class, how it is built, half its length in metres, share among the parked.
VEHICLES: list[tuple[int, Builder, float, float]] = [
    (17, vehicles.car, 2.7, 0.44), (23, vehicles.truck, 4.6, 0.15),
    (22, vehicles.trailer, 5.8, 0.12), (18, vehicles.construction_vehicle, 3.9, 0.09),
    (16, vehicles.bus, 6.6, 0.08), (21, lambda r: vehicles.motorcycle(r, False), 1.3, 0.07),
    (19, vehicles.ambulance, 3.5, 0.02), (20, vehicles.police_car, 2.8, 0.03),
]  # fmt: skip


def busy_street(seed: int) -> Street:
    """A street with all that stands, drives and walks on it; the same for the same seed."""
    street = Street(seed)
    parked(street)
    moving(street)
    two_wheelers(street)
    people_and_works(street)
    extras(street)
    return street


def parked(street: Street) -> None:
    """Vehicles along both curbs."""
    rng = street.rng
    share = np.array([k[3] for k in VEHICLES])
    for side in (1, -1):
        x = -65.0
        while x < 65:
            raw, build, half, _ = VEHICLES[rng.choice(len(VEHICLES), p=share / share.sum())]
            x += half + float(rng.uniform(0.6, 5))
            clear = not street.cross[0] - 8 < x < street.cross[1] + 8
            y = side * (street.half + street.parking / 2 + (0.25 if half > 3 else 0.1))
            if clear and rng.random() < 0.72 and street.free(x, y, 0.5):
                yaw = 0.0 if side < 0 else np.pi
                street.add(raw, build(rng), pose2d(x, y, yaw + float(rng.normal(0, 0.02))))
            x += half


def moving(street: Street) -> None:
    """Vehicles in the lanes."""
    rng = street.rng
    lane_ys = np.arange(street.median / 2 + 1.75, street.half - 1, 3.5)
    car, truck, _, _, bus, *_ = VEHICLES
    kinds = [car, truck, bus, car, car]
    for lane_y in lane_ys:
        for side in (1, -1):
            y, yaw = side * float(lane_y), 0.0 if side < 0 else np.pi
            mine = abs(y - street.lane) < 0.1
            # In its own lane the ego keeps its distance to the one ahead and behind.
            places = [street.start + 22, street.start - 20] if mine else [-45, -20, 6, 33]
            for place in places:
                raw, build, _, _ = kinds[rng.integers(len(kinds))]
                if rng.random() < 0.55:
                    x = place + float(rng.uniform(-4, 4)) * (not mine)
                    speed = street.speed if mine else float(rng.uniform(2, 12))
                    street.add(raw, build(rng), pose2d(x, y, yaw), speed)


def two_wheelers(street: Street) -> None:
    """Riders at the edge of the road, bicycles that lean on the walk."""
    rng = street.rng
    edge = street.half - 0.6
    two: list[tuple[int, Builder]] = [(14, vehicles.bicycle), (21, vehicles.motorcycle)]
    for _ in range(int(rng.integers(3, 7))):
        raw, build = two[rng.integers(2)]
        side = int(rng.choice([-1, 1]))
        x = float(rng.uniform(-35, 45))
        yaw = 0.0 if side < 0 else np.pi
        if abs(x - street.start) > 9:
            street.add(raw, build(rng), pose2d(x, side * edge, yaw), float(rng.uniform(2, 6)))
    for _ in range(int(rng.integers(2, 5))):
        x, side = float(rng.uniform(-35, 45)), int(rng.choice([-1, 1]))
        y = side * (street.curb + street.walk - 0.6)
        if street.free(x, y, 0.9):
            pose = pose2d(x, y, float(rng.uniform(-0.3, 0.3)), 0.13)
            street.add(14, vehicles.bicycle(rng, False), pose)


def people_and_works(street: Street) -> None:
    """Pedestrians; a building site with cones, barriers and workers."""
    rng = street.rng
    for _ in range(int(rng.integers(8, 18))):
        side = int(rng.choice([-1, 1]))
        x = float(rng.uniform(-40, 50))
        y = side * (street.curb + float(rng.uniform(0.5, street.walk - 0.3)))
        if street.free(x, y, 0.45):
            heading = float(rng.choice([0, np.pi]) + rng.normal(0, 0.3))
            child = rng.random() < 0.15
            build = people.person(rng, float(rng.uniform(1.0, 1.35)) if child else None)
            pace = float(rng.uniform(0, 1.6))
            raw = CHILD if child else ADULT
            street.add(raw, build, pose2d(x, y, heading, 0.13), pace)
    for site in range(2):
        side = 1 if site else -1
        x0 = street.start + float(rng.uniform(8, 38))
        y = side * (street.half - 0.35)
        for i in range(int(rng.integers(3, 8))):
            x = x0 + 2.6 * i
            if street.free(x, y, 0.3):
                street.add(CONE, scenery.traffic_cone(rng), pose2d(x, y + rng.normal(0, 0.15)))
        x1 = street.start + float(rng.uniform(-18, 30))
        for i in range(int(rng.integers(3, 8))):
            x = x1 + 2.15 * i
            y1 = side * (street.half + float(rng.choice([0.2, street.parking - 0.5])))
            if street.free(x, y1, 1.0):
                street.add(BARRIER, scenery.barrier(rng), pose2d(x, y1))
        if rng.random() < 0.6 and street.free(x0 + 4, y + side * 1.2, 0.4):
            vest = (0.9, 0.45, 0.05) if rng.random() < 0.5 else (0.75, 0.85, 0.1)
            pose = pose2d(x0 + 4, y + side * 1.2, float(rng.uniform(0, 6)))
            street.add(WORKER, people.person(rng, vest=vest), pose)


def extras(street: Street) -> None:
    """Objects outside the sixteen classes."""
    rng = street.rng
    kinds: list[tuple[int, Builder]] = [
        (1, people.animal), (7, people.stroller), (8, people.wheelchair),
        (10, scenery.debris), (11, scenery.bin_), (13, scenery.bicycle_rack),
    ]  # fmt: skip
    for _ in range(int(rng.integers(3, 7))):
        raw, build = kinds[rng.integers(len(kinds))]
        side = int(rng.choice([-1, 1]))
        x = street.start + float(rng.uniform(-12, 35))
        on_road = raw == 10
        y = side * (street.half - 0.5 if on_road else street.curb + street.walk - 0.8)
        if street.free(x, y, 0.8):
            pose = pose2d(x, y, float(rng.uniform(0, 6.3)), 0.0 if on_road else 0.13)
            street.add(raw, build(rng), pose)
