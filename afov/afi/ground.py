"""The ground close to the vehicle, as the official code finds it: one RANSAC plane."""

from __future__ import annotations

import numpy as np

RING = (2.0, 5.0)  # metres from the sensor
BELOW = -1.4  # metres, LiDAR frame
RESIDUAL, TRIALS, SEED = 0.1, 20, 42


def near_ground(xyz: np.ndarray) -> np.ndarray:
    """Points on the plane z = ax + by + c of the ring around the vehicle.

    Draws, acceptance and early end are those of scikit-learn's RANSACRegressor, which the
    official code calls. Where the ring is empty, or without a plane, nothing is ground.

    Args:
        xyz: (N, 3) float32, metres, LiDAR frame.

    Returns:
        (G,) int64.
    """
    distance = np.hypot(xyz[:, 0], xyz[:, 1])
    ring = np.flatnonzero((distance > RING[0]) & (distance < RING[1]) & (xyz[:, 2] < BELOW))
    if len(ring) < 3:
        return ring[:0]
    points = np.c_[xyz[ring, :2], np.ones(len(ring))].astype(np.float64)
    z = xyz[ring, 2].astype(np.float64)
    rng = np.random.RandomState(SEED)
    best, fit = np.zeros(len(ring), bool), -np.inf
    trial, needed = 0, float(TRIALS)
    while trial < needed:
        trial += 1
        drawn = _distinct(rng, len(ring), 3)
        plane = np.linalg.lstsq(points[drawn], z[drawn], rcond=None)[0]
        error = abs(points @ plane - z)
        inside = error <= RESIDUAL
        if inside.sum() < max(best.sum(), 1):
            continue
        score = _r_squared(z[inside], (points @ plane)[inside])
        if inside.sum() == best.sum() and score < fit:
            continue
        best, fit = inside, score
        needed = min(needed, _enough(inside.mean()))
    return ring[best]


def _distinct(rng: np.random.RandomState, count: int, wanted: int) -> list[int]:
    drawn: list[int] = []
    while len(drawn) < wanted:
        one = int(rng.randint(count))
        if one not in drawn:
            drawn.append(one)
    return drawn


def _r_squared(truth: np.ndarray, guess: np.ndarray) -> float:
    scatter = ((truth - truth.mean()) ** 2).sum()
    return float(1 - ((truth - guess) ** 2).sum() / scatter) if scatter > 0 else 0.0


def _enough(share: float) -> float:
    """Draws until one of three inliers has come with 99%."""
    missed = 1 - share**3
    if missed <= 0:
        return 0.0
    return float(np.ceil(np.log(0.01) / np.log(missed))) if missed < 1 else np.inf
