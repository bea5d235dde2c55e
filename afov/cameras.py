"""Cameras: pinhole projection with the distortion models that ROS knows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

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
        distortion_model: "none", "plumb_bob", "rational_polynomial" or "equidistant".
        D: distortion coefficients in OpenCV's order, as many as the model has.
    """

    width: int
    height: int
    K: np.ndarray
    distortion_model: str = "none"
    D: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        K = np.asarray(self.K, np.float64).reshape(3, 3)
        D = np.asarray(self.D, np.float64).ravel()
        object.__setattr__(self, "K", K)
        object.__setattr__(self, "D", D)
        if not (self.width > 0 and self.height > 0):
            raise InputError(f"camera: size {self.width} x {self.height}, expected positive pixels")
        if not (np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0):
            raise InputError("camera: K must be finite with positive focal lengths; recalibrate")
        if self.distortion_model not in MODELS:
            raise InputError(
                f"camera: distortion model {self.distortion_model!r}, expected {', '.join(MODELS)}"
            )
        if len(D) not in MODELS[self.distortion_model] or not np.isfinite(D).all():
            raise InputError(
                f"camera: D has {len(D)} numbers, {self.distortion_model} takes "
                f"{' or '.join(map(str, MODELS[self.distortion_model]))} finite ones"
            )

    @classmethod
    def rectified(cls, width: int, height: int, P: np.ndarray) -> Camera:
        """A rectified image's camera, from the left 3 x 3 of its projection matrix."""
        P = np.asarray(P, np.float64).reshape(3, -1)
        return cls(width, height, P[:, :3])

    def scaled(self, width: int, height: int) -> Camera:
        """The same camera for an image resized to `width` x `height`."""
        scale = np.diag([width / self.width, height / self.height, 1.0])
        return Camera(width, height, scale @ self.K, self.distortion_model, self.D)

    def project(self, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points to pixels.

        Args:
            xyz: (N, 3), metres, camera optical frame.

        Returns:
            uv (N, 2) float64, pixels, NaN where the lens cannot see (behind the camera, or so far
            off the axis that the polynomial folds back); depth (N,) float64, metres.
        """
        xyz = np.asarray(xyz, np.float64)
        depth = xyz[:, 2]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            normal = xyz[:, :2] / depth[:, None]
            normal[~(depth > 0)] = np.nan
            uv = self._distort(normal) @ self.K[:2, :2].T + self.K[:2, 2]
        return uv, depth

    def _distort(self, normal: np.ndarray) -> np.ndarray:
        """(N, 2) on the plane z = 1 to (N, 2) on the distorted plane."""
        if not self.D.any() and self.distortion_model != "equidistant":
            return normal
        if self.distortion_model == "equidistant":
            return self._fisheye(normal)
        k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = np.pad(self.D, (0, 14 - len(self.D)))[:12]
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
        bent[r2 > self._fold(np.array([k1, k2, k3, k4, k5, k6])) ** 2] = np.nan
        return bent

    @staticmethod
    def _fold(k: np.ndarray) -> float:
        """Radius where r * radial(r) stops growing: beyond it points would fold back inside."""
        r = np.linspace(0, 4, 2001)
        r2 = r * r
        below = 1 + r2 * (k[3] + r2 * (k[4] + r2 * k[5]))
        bent = r * (1 + r2 * (k[0] + r2 * (k[1] + r2 * k[2]))) / below
        falling = np.flatnonzero((np.diff(bent) <= 0) | (below[1:] <= 0))
        return float(r[falling[0]]) if len(falling) else np.inf

    def _fisheye(self, normal: np.ndarray) -> np.ndarray:
        """theta_d = theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8)."""
        k = np.pad(self.D, (0, 4 - len(self.D)))
        r = np.linalg.norm(normal, axis=1)
        theta = np.arctan(r)
        bent = _fisheye_angle(theta, k)
        grid = np.linspace(0, np.pi / 2, 2001)
        falling = np.flatnonzero(np.diff(_fisheye_angle(grid, k)) <= 0)
        scale = np.where(r > 1e-12, bent / np.maximum(r, 1e-12), 1.0)
        if len(falling):
            scale[theta > grid[falling[0]]] = np.nan
        return normal * scale[:, None]


def _fisheye_angle(theta: np.ndarray, k: np.ndarray) -> np.ndarray:
    t2 = theta * theta
    return theta * (1 + t2 * (k[0] + t2 * (k[1] + t2 * (k[2] + t2 * k[3]))))
