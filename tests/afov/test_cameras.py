from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afov.cameras import Camera
from afov.errors import InputError

K = np.array([[700.0, 0, 640], [0, 720, 360], [0, 0, 1]])
BARREL = (-0.30, 0.10, 0.001, -0.0005, -0.02)
RATIONAL = (3.2, 1.1, 0.0005, -0.0003, 0.05, 3.5, 2.1, 0.3)
FISHEYE = (-0.02, 0.005, -0.003, 0.0004)


def reference(
    model: str, d: tuple[float, ...], x: float, y: float, z: float
) -> tuple[float, float]:
    """One point through OpenCV's published formulas, in scalars."""
    a, b = x / z, y / z
    if model == "equidistant":
        r = math.hypot(a, b)
        theta = math.atan(r)
        bent = theta + sum(k * theta ** (2 * i + 3) for i, k in enumerate(d))
        a, b = (a * bent / r, b * bent / r) if r > 0 else (a, b)
    elif model != "none":
        k1, k2, p1, p2, k3, k4, k5, k6 = (*d, *([0.0] * (8 - len(d))))
        r = math.sqrt(a * a + b * b)
        f = (1 + k1 * r**2 + k2 * r**4 + k3 * r**6) / (1 + k4 * r**2 + k5 * r**4 + k6 * r**6)
        a, b = (
            a * f + 2 * p1 * a * b + p2 * (r**2 + 2 * a**2),
            b * f + p1 * (r**2 + 2 * b**2) + 2 * p2 * a * b,
        )
    return K[0, 0] * a + K[0, 2], K[1, 1] * b + K[1, 2]


@pytest.mark.parametrize(
    ("model", "d"),
    [
        ("none", ()),
        ("plumb_bob", BARREL),
        ("plumb_bob", BARREL[:4]),
        ("rational_polynomial", RATIONAL),
        ("equidistant", FISHEYE),
        ("equidistant", ()),
    ],
)
def test_projection_follows_the_published_formulas(model: str, d: tuple[float, ...]) -> None:
    rng = np.random.default_rng(5)
    z = rng.uniform(1, 60, 300)
    xyz = np.stack((rng.uniform(-0.7, 0.7, 300) * z, rng.uniform(-0.5, 0.5, 300) * z, z), 1)
    uv, depth = Camera(1280, 720, K, model, np.array(d)).project(xyz)
    expected = [reference(model, d, *point) for point in xyz]
    np.testing.assert_allclose(uv, expected, atol=1e-9)
    np.testing.assert_array_equal(depth, z)


@pytest.mark.parametrize(
    ("model", "d"),
    [("plumb_bob", BARREL), ("rational_polynomial", RATIONAL), ("equidistant", FISHEYE)],
)
def test_projection_agrees_with_opencv(model: str, d: tuple[float, ...]) -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(6)
    xyz = np.concatenate((rng.uniform(-4, 4, (200, 2)), rng.uniform(6, 30, (200, 1))), 1)
    if model == "equidistant":
        zero = np.zeros((3, 1))
        expected, _ = cv2.fisheye.projectPoints(xyz[:, None], zero, zero, K, np.array(d))
    else:
        expected, _ = cv2.projectPoints(xyz, np.zeros(3), np.zeros(3), K, np.array(d))
    uv, _ = Camera(1280, 720, K, model, np.array(d)).project(xyz)
    np.testing.assert_allclose(uv, expected[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("model", "d", "steepest"),
    [
        ("plumb_bob", (-0.3, 0.0, 0.0, 0.0), 4.0),
        ("plumb_bob", BARREL, 4.0),
        ("rational_polynomial", (0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0), 4.0),
        ("equidistant", (-0.2, 0.0, 0.0, 0.0), 80.0),
    ],
)
def test_a_point_never_folds_back_into_the_image(
    model: str, d: tuple[float, ...], steepest: float
) -> None:
    """Marching outward, pixels move outward until the lens sees no more, and then never again."""
    r = np.linspace(0, steepest, 4000)
    ray = np.stack((r, np.zeros_like(r), np.ones_like(r)), 1)
    radial = np.array(d)
    radial[2:4] = radial[2:4] if model == "equidistant" else 0
    u = Camera(1280, 720, K, model, radial).project(ray)[0][:, 0]
    seen = np.isfinite(u)
    last = int(np.flatnonzero(seen)[-1])
    assert seen[: last + 1].all() and (np.diff(u[: last + 1]) > 0).all()
    # The fold is the maximum of the formula, found here by brute force.
    brute = np.array([reference(model, tuple(radial), x, 0.0, 1.0)[0] for x in r])
    fold = int(np.flatnonzero(np.diff(brute) < 0)[0]) if (np.diff(brute) < 0).any() else len(r) - 1
    assert abs(last - fold) <= 1


def test_a_lens_that_never_folds_sees_everything_ahead() -> None:
    camera = Camera(1280, 720, K, "plumb_bob", np.array([0.1, 0.01, 0, 0, 0.0]))
    assert camera.valid_radius == np.inf
    assert np.isfinite(camera.project(np.array([[50.0, 0, 1]]))[0]).all()


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(-1e9, 0))
def test_nothing_behind_the_camera_has_a_pixel(x: float, z: float) -> None:
    for model, d in (("none", ()), ("plumb_bob", BARREL), ("equidistant", FISHEYE)):
        uv, _ = Camera(1280, 720, K, model, np.array(d)).project(np.array([[x, 1.0, z]]))
        assert np.isnan(uv).all()


def test_a_resized_image_shows_the_same_point_at_the_same_place() -> None:
    camera = Camera(1280, 720, K, "plumb_bob", np.array(BARREL))
    xyz = np.array([[1.0, -0.4, 5], [-2, 1, 6]])
    big, _ = camera.project(xyz)
    small, _ = camera.scaled(640, 180).project(xyz)
    np.testing.assert_allclose((small + 0.5) / [640, 180], (big + 0.5) / [1280, 720], atol=1e-12)


def test_a_rectified_camera_is_the_left_of_its_projection_matrix() -> None:
    P = np.hstack((K, [[-70.0], [0], [0]]))
    uv, _ = Camera.rectified(1280, 720, P.ravel()).project(np.array([[0.0, 0, 4]]))
    np.testing.assert_allclose(uv, [[640, 360]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"K": np.zeros((3, 3))}, "calibrate the camera"),
        ({"K": -K}, "calibrate the camera"),
        ({"K": K[:2]}, "expected [fx"),
        ({"K": K.T}, "expected [fx"),
        ({"K": np.full((3, 3), np.nan)}, "expected finite numbers"),
        ({"K": "none"}, "expected finite numbers"),
        ({"D": np.ones(3)}, "D has 3 numbers, plumb_bob takes 0 or 4 or 5"),
        ({"D": np.array([0.1, np.inf, 0, 0, 0])}, "expected finite numbers"),
        ({"distortion_model": "equidistant", "D": np.ones(5)}, "equidistant takes 0 or 4"),
        ({"distortion_model": "banana"}, "distortion model 'banana'"),
        ({"distortion_model": "rational_polynomial", "D": np.ones(14)}, "tilts the sensor"),
        ({"width": 0}, "size 0 x 720"),
    ],
)
def test_an_impossible_calibration_is_refused(settings: dict[str, Any], message: str) -> None:
    good = {"width": 1280, "height": 720, "K": K, "distortion_model": "plumb_bob", "D": np.zeros(5)}
    with pytest.raises(InputError) as caught:
        Camera(**{**good, **settings})
    assert message in str(caught.value) and str(caught.value).startswith("camera: ")
    assert "\n" not in str(caught.value)


def test_an_impossible_projection_matrix_is_refused() -> None:
    for P in (np.zeros(12), np.ones(9), np.full(12, np.nan)):
        with pytest.raises(InputError, match="camera: "):
            Camera.rectified(1280, 720, P)


def test_an_unnamed_model_without_distortion_is_none() -> None:
    assert Camera(1280, 720, K, "", np.zeros(5)).distortion_model == "none"
