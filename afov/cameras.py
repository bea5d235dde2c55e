"""Cameras: pinhole projection with the distortion models that ROS knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial

from afov.errors import InputError

# Coefficients that each model may have (sensor_msgs/distortion_models, OpenCV's order).
MODELS: dict[str, tuple[int, ...]] = {
    "none": (0,),
    "plumb_bob": (0, 4, 5),
    "rational_polynomial": (0, 8, 12, 14),
    "equidistant": (0, 4),
}


@dataclass(frozen=True)
class Camera:
    """Intrinsics of one camera; x right, y down, z forward (REP 103, optical frame).

    Attributes:
        width, height: pixels.
        K: (3, 3) float64.
        distortion_model: "none", "plumb_bob", "rational_polynomial" or "equidistant" (fisheye);
            an empty name means plumb_bob, or none where D is zero.
        D: distortion coefficients in OpenCV's order, as many as the model has.

    Raises:
        InputError: a calibration that cannot be: no focal length, D of another length, NaN.
    """

    width: int
    height: int
    K: np.ndarray
    distortion_model: str = "none"
    D: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        K, D = _finite("K", self.K).reshape(-1), _finite("D", self.D).reshape(-1)
        # Drivers of ideal cameras often leave the name empty.
        model = self.distortion_model or ("plumb_bob" if D.any() else "none")
        if not (self.width > 0 and self.height > 0):
            raise InputError(f"camera: size {self.width} x {self.height}, expected positive pixels")
        if len(K) != 9 or not (K[0] > 0 and K[4] > 0) or K[8] != 1 or K[[3, 6, 7]].any():
            raise InputError(
                f"camera: K is {K.tolist()}, expected [fx, s, cx, 0, fy, cy, 0, 0, 1] with "
                "positive focal lengths; calibrate the camera"
            )
        if model not in MODELS:
            raise InputError(f"camera: distortion model {model!r}, expected {', '.join(MODELS)}")
        if len(D) not in MODELS[model] and D.any():
            raise InputError(
                f"camera: D has {len(D)} numbers, {model} takes "
                f"{' or '.join(map(str, MODELS[model]))}"
            )
        if model == "rational_polynomial" and D[12:].any():
            raise InputError("camera: D tilts the sensor (numbers 13, 14), expected zeros there")
        object.__setattr__(self, "K", K.reshape(3, 3))
        object.__setattr__(self, "D", D if len(D) in MODELS[model] else np.zeros(0))
        object.__setattr__(self, "distortion_model", model)

    @classmethod
    def rectified(cls, width: int, height: int, P: np.ndarray) -> Camera:
        """A rectified image's camera, from the left 3 x 3 of its projection matrix.

        The fourth column, a stereo pair's base line, is left out: where a camera stands is the
        transforms' business.
        """
        P = _finite("P", P)
        if P.size != 12:
            raise InputError(f"camera: P has {P.size} numbers, expected 3 rows of 4")
        return cls(width, height, P.reshape(3, 4)[:, :3])

    def scaled(self, width: int, height: int) -> Camera:
        """The same camera for an image resized to `width` x `height`.

        Pixel centres have whole coordinates, so the image begins at -0.5, before and after.
        """
        sx, sy = width / self.width, height / self.height
        resize = np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])
        return Camera(width, height, resize @ self.K, self.distortion_model, self.D)

    def project(self, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points to pixels.

        Args:
            xyz: (N, 3), metres, camera optical frame.

        Returns:
            uv (N, 2) float64, pixels, NaN where the lens cannot see (behind the camera, or so far
            off the axis that the distortion folds back); depth (N,) float64, metres.
        """
        xyz = np.asarray(xyz, np.float64)
        depth = xyz[:, 2]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            normal = xyz[:, :2] / depth[:, None]
            normal[~(depth > 0)] = np.nan
            x, y = self._distort(normal).T
            uv = np.stack([x * a + y * b + c for a, b, c in self.K[:2]], 1)
        return uv, depth

    @cached_property
    def valid_radius(self) -> float:
        """Where the distortion stops growing; points beyond would fold back into the image.

        On the plane z = 1; for equidistant, the angle off the axis in radians.
        """
        if self.distortion_model == "equidistant":
            # theta_d = theta (1 + k1 s + k2 s^2 + ...), s = theta^2.
            return _first_root(np.append(1, self.D) * [1, 3, 5, 7, 9][: len(self.D) + 1])
        k1, k2, _, _, k3, k4, k5, k6 = self.coefficients[:8]
        above, below = Polynomial([1, k1, k2, k3]), Polynomial([1, k4, k5, k6])
        # The derivative of r above(s) / below(s), s = r^2, times below(s)^2.
        rise = above * below + 2 * Polynomial([0, 1]) * (
            above.deriv() * below - above * below.deriv()
        )
        return min(_first_root(rise.coef), _first_root(below.coef))

    @cached_property
    def coefficients(self) -> np.ndarray:
        """k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4 (OpenCV's order), zeros where D ends."""
        return np.pad(self.D, (0, 14 - len(self.D)))[:12]

    def _distort(self, normal: np.ndarray) -> np.ndarray:
        """(N, 2) on the plane z = 1 to the distorted plane; NaN beyond the valid radius."""
        if self.distortion_model == "equidistant":
            return self._fisheye(normal)
        if not self.D.any():
            return normal
        k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = self.coefficients
        x, y = normal[:, 0], normal[:, 1]
        r2 = x * x + y * y
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        bent = np.stack(
            (
                x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + s1 * r2 + s2 * r2 * r2,
                y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + s3 * r2 + s4 * r2 * r2,
            ),
            1,
        )
        bent[r2 > self.valid_radius**2] = np.nan
        return bent

    def _fisheye(self, normal: np.ndarray) -> np.ndarray:
        r = np.linalg.norm(normal, axis=1)
        theta = np.arctan(r)
        k1, k2, k3, k4 = np.pad(self.D, (0, 4 - len(self.D)))
        t2 = theta * theta
        bent = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
        scale = np.where(r > 1e-12, bent / np.maximum(r, 1e-12), 1.0)
        scale[theta > self.valid_radius] = np.nan
        return normal * scale[:, None]


def _finite(name: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        array = np.array([np.nan])
    if not np.isfinite(array).all():
        shown = " ".join(repr(values).split())
        raise InputError(f"camera: {name} is {shown}, expected finite numbers; recalibrate")
    return array


def _first_root(coefficients: np.ndarray) -> float:
    """The square root of a polynomial's smallest positive real root (constant term first)."""
    # Leading zeros make no difference to the roots, and tiny ones make them overflow.
    kept = np.trim_zeros(np.where(np.abs(coefficients) > 1e-12, coefficients, 0), "b")
    roots = Polynomial(kept).roots()
    real = roots.real[(np.abs(roots.imag) < 1e-9 * np.maximum(1, np.abs(roots))) & (roots.real > 0)]
    return float(np.sqrt(real.min())) if len(real) else np.inf
