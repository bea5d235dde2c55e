"""What a surface looks like: procedural textures, sun, shadow, sky."""

from __future__ import annotations

import numpy as np

from afov_train.simulation.solids import Material

# Share of the laser's light that comes back at normal incidence.
REFLECTIVITY = {
    Material.PLAIN: 0.35, Material.ASPHALT: 0.1, Material.PAVING: 0.28, Material.GRASS: 0.3,
    Material.FACADE: 0.4, Material.FOLIAGE: 0.33, Material.GLASS: 0.06, Material.BANDS: 0.75,
    Material.COBBLES: 0.2, Material.CLOTH: 0.3, Material.BARK: 0.25, Material.METAL: 0.5,
}  # fmt: skip


def noise(place: np.ndarray, salt: int) -> np.ndarray:
    """(N,) float32 in 0..1: white noise on the integer lattice, the same for the same cell."""
    cell = np.floor(place).astype(np.int32).astype(np.uint32)
    h = cell[:, 0] * np.uint32(0x8DA6B343) ^ cell[:, 1] * np.uint32(0xD8163841)
    h = h ^ cell[:, 2] * np.uint32(0xCB1AB31F) ^ np.uint32(salt * 0x9E3779B1 & 0xFFFFFFFF)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x2C1B3C6D)
    h ^= h >> np.uint32(12)
    return (h & np.uint32(0xFFFF)).astype(np.float32) / np.float32(65535)


def albedo(
    material: np.ndarray, color: np.ndarray, local: np.ndarray, normal: np.ndarray
) -> np.ndarray:
    """Colour of the surface before light.

    Args:
        material: (N,) int; color: (N, 3) float32, 0..1.
        local: (N, 3) float32, metres in the object's own frame.
        normal: (N, 3) float32, unit, in the object's own frame.

    Returns:
        (N, 3) float32, 0..1.
    """
    result = color * (0.94 + 0.12 * noise(local * 9, 1))[:, None]
    for kind, texture in _TEXTURES.items():
        chosen = np.flatnonzero(material == kind)
        if len(chosen):
            result[chosen] = texture(color[chosen], local[chosen], normal[chosen])
    return np.clip(result, 0, 1)


def _asphalt(color: np.ndarray, local: np.ndarray, normal: np.ndarray) -> np.ndarray:
    grain = 0.82 + 0.2 * noise(local * 22, 2) + 0.14 * noise(local * 0.35, 3)
    shade = color * grain[:, None]
    x, y = local[:, 0], local[:, 1]
    # Lane lines every 3.5 m, dashed; they mark the road, whatever its width.
    lane = np.abs((np.abs(y) % 3.5) - 1.75) > 1.67
    shade[lane & ((x % 6) < 3) & (np.abs(y) < 8)] = 0.82
    return shade


def _paving(color: np.ndarray, local: np.ndarray, normal: np.ndarray) -> np.ndarray:
    place = local / np.float32(0.6)
    joint = (np.abs(place[:, :2] % 1 - 0.5) > 0.46).any(1)
    tone = 0.86 + 0.26 * noise(place, 4)
    tone[joint] = 0.62
    return color * tone[:, None]


def _cobbles(color: np.ndarray, local: np.ndarray, normal: np.ndarray) -> np.ndarray:
    place = local / np.array([0.3, 0.18, 0.18], np.float32)
    place[:, 0] += 0.5 * (np.floor(place[:, 1]) % 2)
    joint = (np.abs(place[:, :2] % 1 - 0.5) > 0.4).any(1)
    tone = 0.7 + 0.55 * noise(place, 5)
    tone[joint] = 0.55
    return color * tone[:, None]


def _grass(color: np.ndarray, local: np.ndarray, normal: np.ndarray) -> np.ndarray:
    blade = noise(local * np.array([14, 14, 1], np.float32), 6)
    patch = noise(local * np.array([0.7, 0.7, 0.01], np.float32), 7)
    return color * (0.55 + 0.55 * blade + 0.2 * patch)[:, None]


def _facade(color: np.ndarray, local: np.ndarray, normal: np.ndarray) -> np.ndarray:
    along = np.where(np.abs(normal[:, 0]) > 0.5, local[:, 1], local[:, 0])
    brick = 0.9 + 0.16 * noise(np.stack((along * 4, local[:, 2] * 12, along * 0), 1), 8)
    result = color * brick[:, None]
    u, v = along % 2.6, local[:, 2] % 3.1
    upright = np.abs(normal[:, 2]) < 0.3
    frame = upright & (np.abs(u - 1.3) < 0.72) & (np.abs(v - 1.75) < 0.92)
    pane = upright & (np.abs(u - 1.3) < 0.6) & (np.abs(v - 1.75) < 0.8)
    result[frame] = 0.8
    lit = noise(np.stack((along / 2.6, local[:, 2] / 3.1, along * 0), 1), 9)
    result[pane] = np.array([0.1, 0.13, 0.18], np.float32) + 0.25 * (lit[pane, None] > 0.8)
    return result


def _foliage(color: np.ndarray, local: np.ndarray, normal: np.ndarray) -> np.ndarray:
    leaf, clump = noise(local * 13, 10), noise(local * 3, 11)
    return color * (0.3 + 0.75 * leaf * leaf + 0.45 * clump)[:, None]


def _bands(color: np.ndarray, local: np.ndarray, normal: np.ndarray) -> np.ndarray:
    stripe = ((local[:, 0] + local[:, 2]) % 0.44) < 0.16
    result = color.copy()
    result[stripe] = 0.88
    return result


def _cloth(color: np.ndarray, local: np.ndarray, normal: np.ndarray) -> np.ndarray:
    fold = noise(local * np.array([18, 18, 5], np.float32), 12)
    return color * (0.75 + 0.4 * fold)[:, None]


def _bark(color: np.ndarray, local: np.ndarray, normal: np.ndarray) -> np.ndarray:
    ridge = noise(local * np.array([22, 22, 5], np.float32), 13)
    return color * (0.55 + 0.7 * ridge)[:, None]


_TEXTURES = {
    Material.ASPHALT: _asphalt, Material.PAVING: _paving, Material.COBBLES: _cobbles,
    Material.GRASS: _grass, Material.FACADE: _facade, Material.FOLIAGE: _foliage,
    Material.BANDS: _bands, Material.CLOTH: _cloth, Material.BARK: _bark,
}  # fmt: skip


def sky(directions: np.ndarray, sun: np.ndarray) -> np.ndarray:
    """(N, 3) float32 colour of the sky: pale at the horizon, blue above, bright about the sun."""
    up = np.clip(directions[:, 2], 0, 1)[:, None] ** 0.6
    pale, blue = np.array([0.8, 0.85, 0.9]), np.array([0.32, 0.5, 0.8])
    glow = np.clip(directions @ sun, 0, 1)[:, None] ** 24
    return (pale * (1 - up) + blue * up + 0.4 * glow).astype(np.float32)
