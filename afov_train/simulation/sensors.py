"""Rays into the street: a camera image, a LiDAR sector. Embree casts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from afov.cameras import Camera
from afov_train.simulation.shading import REFLECTIVITY, albedo, sky
from afov_train.simulation.solids import Material
from afov_train.simulation.world import Street

BEAMS = np.deg2rad(np.linspace(-30.67, 10.67, 32))  # HDL-32E
COLUMNS = 1085
PERIOD = 0.05  # seconds a turn
MAX_RANGE = 85.0
_REFLECTIVITY = np.array([REFLECTIVITY[m] for m in Material], np.float32)


@dataclass(frozen=True)
class Hits:
    """Where M of N rays ended; all per hit, street frame.

    Attributes:
        ray: (M,) which ray; distance: (M,) metres; triangle: (M,) which triangle.
    """

    ray: np.ndarray
    distance: np.ndarray
    triangle: np.ndarray


class Surfaces:
    """All triangles of a street, with what each is made of."""

    def __init__(self, street: Street) -> None:
        parts = [(i, p) for i, thing in enumerate(street.things) for p in thing.parts]
        sizes = [len(p.triangles) for _, p in parts]
        self.street = street
        self.local = np.concatenate([p.triangles for _, p in parts])
        self.thing = np.repeat([i for i, _ in parts], sizes)
        self.color = np.repeat(np.array([p.color for _, p in parts], np.float32), sizes, 0)
        self.material = np.repeat([int(p.material) for _, p in parts], sizes)
        edge = self.local[:, 1:] - self.local[:, :1]
        normal = np.cross(edge[:, 0], edge[:, 1])
        self.normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
        self.raw = np.array([t.raw for t in street.things], np.uint8)
        self.instance = np.array([t.instance for t in street.things], np.uint16)

    def at(self, t: float) -> Moment:
        """The street at `t` seconds."""
        return Moment(self, np.stack([thing.at(t) for thing in self.street.things]))


class Moment:
    """The street at one time, ready for rays."""

    def __init__(self, surfaces: Surfaces, poses: np.ndarray) -> None:
        from embreex import rtcore_scene
        from embreex.mesh_construction import TriangleMesh

        self.surfaces = surfaces
        turn, shift = poses[:, :3, :3].astype(np.float32), poses[:, :3, 3].astype(np.float32)
        self.turn, self.shift = turn[surfaces.thing], shift[surfaces.thing]
        placed = np.einsum("tij,tkj->tki", self.turn, surfaces.local) + self.shift[:, None]
        self.normal = np.einsum("tij,tj->ti", self.turn, surfaces.normal)
        self.scene: Any = rtcore_scene.EmbreeScene()
        TriangleMesh(self.scene, np.ascontiguousarray(placed, np.float32))

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """First hits of (N, 3) float32 rays with unit directions."""
        found = self.scene.run(origins, directions, output=True)
        ray = np.flatnonzero(found["primID"] >= 0)
        return Hits(ray, found["tfar"][ray], found["primID"][ray])

    def lit(self, places: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """(N,) float32: sunlight that reaches each place, 0 in shadow."""
        sun = self.surfaces.street.sun.astype(np.float32)
        facing = np.clip(normals @ sun, 0, 1)
        bright = np.flatnonzero(facing > 0.02)
        starts = places[bright] + normals[bright] * 0.02 + sun * 0.01
        toward = np.broadcast_to(sun, starts.shape).copy()
        blocked = self.scene.run(starts, toward, query="OCCLUDED") == 0
        facing[bright[blocked]] = 0
        facing[facing <= 0.02] = 0
        return facing


def image(
    moment: Moment, camera: Camera, street_from_camera: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What a camera sees.

    Returns:
        rgb (H, W, 3) uint8; raw (H, W) uint8, nuScenes lidarseg index, 255 = sky.
    """
    height, width = camera.height, camera.width
    rows, cols = np.mgrid[:height, :width].astype(np.float32)
    inverse = np.linalg.inv(camera.K)
    rays = np.stack((cols.ravel(), rows.ravel(), np.ones(height * width, np.float32)), 1)
    directions = rays @ (street_from_camera[:3, :3] @ inverse).T.astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    origin = street_from_camera[:3, 3].astype(np.float32)
    hits = moment.cast(np.broadcast_to(origin, directions.shape).copy(), directions)

    surfaces, street = moment.surfaces, moment.surfaces.street
    triangle, toward = hits.triangle, directions[hits.ray]
    places = origin + toward * hits.distance[:, None]
    normals = moment.normal[triangle]
    normals = np.where(((normals * toward).sum(1) > 0)[:, None], -normals, normals)
    local = np.einsum("nji,nj->ni", moment.turn[triangle], places - moment.shift[triangle])
    color = albedo(
        surfaces.material[triangle], surfaces.color[triangle], local, surfaces.normal[triangle]
    )
    sunlight = moment.lit(places, normals) * (1.15 * street.sunlight)
    ambient = 0.42 + 0.16 * normals[:, 2]
    glass = surfaces.material[triangle] == Material.GLASS
    seen = color * (ambient + sunlight)[:, None]
    # Glass mirrors the sky; distance pales.
    seen[glass] += 0.22 * np.clip(0.4 + normals[glass, 2:3] + toward[glass, 2:3], 0, 1)
    haze = 1 - np.exp(-hits.distance / 320)[:, None]
    seen = seen * (1 - haze) + np.float32(0.75) * haze

    rgb = np.empty((height * width, 3), np.float32)
    missed = np.ones(height * width, bool)
    missed[hits.ray] = False
    rgb[missed] = sky(directions[missed], street.sun)
    rgb[hits.ray] = seen
    rgb = np.clip(rgb, 0, 1) ** np.float32(0.75) * np.float32(rng.uniform(0.9, 1.08))
    grain = rng.standard_normal((height * width, 1), np.float32)
    rgb = np.clip((rgb + grain * np.float32(0.018)) * 255, 0, 255).astype(np.uint8)
    raw = np.full(height * width, 255, np.uint8)
    raw[hits.ray] = surfaces.raw[surfaces.thing[triangle]]
    return rgb.reshape(height, width, 3), raw.reshape(height, width)


def sweep_columns() -> tuple[np.ndarray, np.ndarray]:
    """Heading in base_link (radians) and time relative to the stamp (seconds) of each column.

    The sensor turns clockwise and starts at the back; the stamp is the end of the turn.
    """
    share = (np.arange(COLUMNS) + 0.5) / COLUMNS
    return np.pi - 2 * np.pi * share, (share - 1) * PERIOD


@dataclass(frozen=True)
class Returns:
    """LiDAR returns of one sector; all (M,) or (M, 3).

    Attributes:
        xyz: metres, street frame.
    """

    xyz: np.ndarray
    intensity: np.ndarray
    ring: np.ndarray
    time: np.ndarray
    raw: np.ndarray
    instance: np.ndarray


def sector(
    moment: Moment,
    columns: np.ndarray,
    street_from_base: list[np.ndarray],
    base_from_lidar: np.ndarray,
    rng: np.random.Generator,
) -> Returns:
    """What the LiDAR measures over some columns.

    Args:
        columns: (C,) which columns of the turn.
        street_from_base: the vehicle's pose at each column's own time.
    """
    headings, times = sweep_columns()
    level, up = np.cos(BEAMS), np.sin(BEAMS)
    poses = np.stack(street_from_base)
    beams = np.stack(
        (
            np.cos(headings[columns])[:, None] * level,
            np.sin(headings[columns])[:, None] * level,
            np.broadcast_to(up, (len(columns), len(BEAMS))),
        ),
        -1,
    )
    directions = np.einsum("cij,cbj->cbi", poses[:, :3, :3], beams).reshape(-1, 3)
    origins = poses[:, :3, :3] @ base_from_lidar[:3, 3] + poses[:, :3, 3]
    origins = np.repeat(origins, len(BEAMS), 0)
    hits = moment.cast(origins.astype(np.float32), directions.astype(np.float32))

    surfaces, triangle, distance = moment.surfaces, hits.triangle, hits.distance
    material = surfaces.material[triangle]
    incidence = np.abs((moment.normal[triangle] * directions[hits.ray]).sum(1))
    tint = 0.55 + 0.9 * surfaces.color[triangle].mean(1)
    strength = _REFLECTIVITY[material] * tint * (0.25 + 0.75 * incidence)
    # Weak echoes are lost: far, dark or grazing; most of what hits glass passes through.
    lost = 0.015 + 0.5 * (distance / MAX_RANGE) ** 2 * (1 - np.clip(strength * 2, 0, 1))
    lost[material == Material.GLASS] += 0.55
    kept = (distance < MAX_RANGE) & (distance > 1.0) & (rng.random(len(distance)) > lost)
    hits_ray = hits.ray[kept]
    ranges = distance[kept] + rng.normal(0, 0.02, kept.sum())
    speckle = np.exp(rng.normal(0, 0.18, kept.sum()))
    thing = surfaces.thing[triangle[kept]]
    return Returns(
        xyz=origins[hits_ray] + directions[hits_ray] * ranges[:, None],
        intensity=np.clip(np.rint(strength[kept] * speckle * 130), 0, 255),
        ring=hits_ray % len(BEAMS),
        time=times[columns][hits_ray // len(BEAMS)],
        raw=surfaces.raw[thing],
        instance=surfaces.instance[thing],
    )
