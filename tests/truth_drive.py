"""A simulated street's things as perfect detections: no rays are cast, so nothing hides them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from afov.frames import Frame, Sweep, Truth
from afov.sources.nuscenes_classes import RAW_TO_16
from afov.tracking import UNSEEN
from afov.transforms import inverse, transform_points
from afov_train.simulation.rig import RIG
from afov_train.simulation.traffic import busy_street

RANGE = 45.0  # metres; what is farther is not seen
POINTS = 40  # of each thing
EPOCH = 1_700_000_000_000_000_000


class Tally:
    """What became of each true thing: its ids, and how often they changed."""

    def __init__(self) -> None:
        self.last: dict[int, tuple[int, int]] = {}
        self.switches = self.detections = 0
        self.owner: dict[int, int] = {}
        self.stolen = 0

    def add(self, sweep: int, thing: int, name: int) -> None:
        before = self.last.get(thing)
        self.detections += 1
        # Who was away for long may come back under another name.
        if before is not None and sweep - before[1] <= UNSEEN and before[0] != name:
            self.switches += 1
        self.stolen += self.owner.setdefault(name, thing) != thing
        self.last[thing] = (name, sweep)


def drive(count: int, rate: float = 10.0, seed: int = 5, ground: int = 600) -> Iterator[Frame]:
    """Frames of the street's things near the vehicle, with truth and poses, and some road.

    Things keep their points, so that a centroid moves with its thing and with nothing else.
    """
    street = busy_street(seed)
    rng = np.random.default_rng(seed)
    things = [t for t in street.things if t.instance and RAW_TO_16[t.raw]]
    shape = rng.uniform(-1, 1, (len(things), POINTS, 3)) * (0.3, 0.25, 0.5) + (0, 0, 0.6)
    for i in range(count):
        world_from_lidar = street.ego(i / rate) @ RIG.base_from_lidar
        lidar_from_world = inverse(world_from_lidar)
        places = [lidar_from_world @ t.at(i / rate) for t in things]
        near = [k for k, place in enumerate(places) if np.linalg.norm(place[:2, 3]) < RANGE]
        xyz = [transform_points(places[k], shape[k]) for k in near]
        raw = np.repeat([things[k].raw for k in near], POINTS)
        instance = np.repeat([things[k].instance for k in near], POINTS)
        flat = np.append(rng.uniform(-30, 30, (ground, 2)), np.full((ground, 1), -1.84), 1)
        points = np.concatenate((*xyz, flat))
        columns = np.column_stack((points, np.full(len(points), 20.0))).astype(np.float32)
        raw = np.append(raw, np.full(ground, 24)).astype(np.uint8)
        instance = np.append(instance, np.zeros(ground)).astype(np.uint16)
        stamp = EPOCH + round(i / rate * 1e9)
        sweep = Sweep(columns, ("x", "y", "z", "intensity"), stamp, "lidar_top")
        truth = Truth(RAW_TO_16[raw], instance, raw)
        yield Frame(str(stamp), sweep, (), world_from_lidar, truth)
