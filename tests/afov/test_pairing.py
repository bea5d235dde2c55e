from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afov import native, pairing
from afov.cameras import Camera
from afov.errors import InputError
from afov.frames import CameraImage
from afov.pairing import pair, transfer
from afov.transforms import inverse, matrix_from

Golden = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    with np.load(shared / "golden/pairing_scene0061.npz", allow_pickle=False) as data:
        return dict(data)


def camera_image(golden: Golden, name: str) -> CameraImage:
    """A camera of the golden file: LiDAR -> ego, then -> global -> ego -> camera at ITS time."""

    def pose(key: str) -> np.ndarray:
        w, x, y, z = golden[f"{key}_q"]
        return matrix_from(np.array([x, y, z, w]), golden[f"{key}_t"])

    world_from_lidar = pose("lidar_ego2global") @ pose("lidar2ego")
    world_from_camera = pose(f"{name}_ego2global") @ pose(f"{name}_cam2ego")
    height, width = golden["image_hw"]
    return CameraImage(
        name=name,
        stamp=0,
        image=np.zeros((height, width, 3), np.uint8),
        camera=Camera(int(width), int(height), golden[f"{name}_K"]),
        camera_from_lidar=inverse(world_from_camera) @ world_from_lidar,
    )


def test_pairs_are_the_official_codes(golden: Golden) -> None:
    pixels = equal = 0
    for name in golden["cameras"]:
        pairs = pair(golden["points"], camera_image(golden, name))
        np.testing.assert_array_equal(pairs.point, golden[f"{name}_point_idx"])
        same = (np.stack((pairs.row, pairs.col), 1) == golden[f"{name}_pixel_rc"]).all(1)
        pixels, equal = pixels + len(same), equal + int(same.sum())
    # The official code goes through float32 global coordinates, which moves 78 pixels by one.
    assert pixels == len(golden["pairing_points"])
    assert pixels - equal == golden["float64_pixel_mismatches"]


def test_pixels_before_rounding_are_those_of_a_float64_chain(golden: Golden) -> None:
    for name in golden["cameras"]:
        image = camera_image(golden, name)
        xyz = golden["points"][golden[f"{name}_point_idx"]].astype(np.float64)
        local = xyz @ image.camera_from_lidar[:3, :3].T + image.camera_from_lidar[:3, 3]
        uv, _ = image.camera.project(local)
        np.testing.assert_allclose(uv, golden[f"{name}_uv_float64"], atol=1e-6)


def test_labels_reach_the_points_as_in_the_official_code(golden: Golden) -> None:
    """The later camera overwrites, pixels of segment 0 never do."""
    images = [camera_image(golden, name) for name in golden["cameras"]]
    of_phrase = golden["phrase_to_lidarseg"]
    maps = []
    for i, superpixels in enumerate(golden["superpixels"]):
        rows = golden["feature_rows"][golden["feature_rows"][:, 0] == i].astype(int)
        raw = np.full(256, -1)
        raw[rows[:, 1] + 1] = of_phrase[rows[:, 2]]
        maps.append(raw[superpixels])
    raw, covered = transfer(golden["points"], images, maps, none=-1)
    # The official label holds 100 * (segment of the whole sweep) + raw class, -1 for none.
    expected = np.where(golden["label_set"] < 0, -1, golden["label_set"] % 100)
    np.testing.assert_array_equal(raw, expected)
    assert covered[raw >= 0].all()
    class_id = np.where(raw < 0, 0, golden["lidarseg_to_17"][raw])
    np.testing.assert_array_equal(class_id, golden["pseudo_label_17"])


LENSES = (
    ("none", ()),
    ("plumb_bob", (-0.3, 0.1, 1e-3, -2e-3, 0.02)),
    ("rational_polynomial", (0.4, -0.2, 1e-4, 2e-4, 0.03, 0.5, -0.1, 0.02, 1e-3, 0, 2e-3, 0)),
    ("equidistant", (0.01, -0.02, 0.003, 0.001)),
)


@pytest.mark.parametrize(("model", "D"), LENSES, ids=[name for name, _ in LENSES])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), far=st.sampled_from([3.0, 80.0, 1e30]))
def test_compiled_pairs_are_numpys(model: str, D: tuple[float, ...], seed: int, far: float) -> None:
    if native.library() is None:
        pytest.skip("the compiled library was not built")
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-far, far, (15000, 3)).astype(np.float32)
    xyz[::17] = rng.choice([np.nan, np.inf, -np.inf, 0, 1e38], xyz[::17].shape)
    pose = matrix_from(rng.normal(size=4), rng.normal(size=3))
    K = np.array([[500.0, rng.choice([0, 0.3]), 400], [0, 510, 220], [0, 0, 1]])
    camera = Camera(800, 450, K, model, np.array(D))
    image = CameraImage("any", 0, np.zeros((450, 800, 3), np.uint8), camera, pose)
    with mock.patch.object(pairing, "library", lambda: None):
        expected = pair(xyz, image)
    got = pair(xyz, image)
    for name in ("point", "row", "col", "depth"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))


def ahead(depth_map_image: tuple[int, int] = (450, 800)) -> CameraImage:
    """A camera at the LiDAR's place, looking along x."""
    height, width = depth_map_image
    turn = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    K = np.array([[630.0, 0, width / 2], [0, 630, height / 2], [0, 0, 1]])
    return CameraImage(
        "ahead", 0, np.zeros((height, width, 3), np.uint8), Camera(width, height, K), turn
    )


def test_bounds_and_hostile_points() -> None:
    hostile = [[np.nan] * 3, [np.inf, 0, 0], [1e30, 1e30, 0], [-5, 0, 0], [0, 0, 0], [1.0, 0, 0]]
    xyz = np.array([*hostile, [1.01, 0, 0], [9, 0, 0]], np.float32)
    pairs = pair(xyz, ahead())
    np.testing.assert_array_equal(pairs.point, [6, 7])
    np.testing.assert_array_equal(pairs.row, [225, 225])
    np.testing.assert_array_equal(pairs.col, [400, 400])
    # Pixels on the outermost lines do not count: 0 < u < W - 1.
    edge = np.array([[1, (400 - u) / 630, 0] for u in (0, 0.01, 798.99, 799)]) * 10
    np.testing.assert_array_equal(pair(edge, ahead()).point, [1, 2])
    assert len(pair(np.zeros((0, 3), np.float32), ahead()).point) == 0
    assert len(pair(np.zeros((0, 3), np.float32), ahead(), occlusion=True).point) == 0


def test_a_map_of_another_size_than_the_camera_is_refused() -> None:
    with pytest.raises(InputError, match="ahead: labels of"):
        transfer(np.zeros((1, 3)), [ahead()], [np.zeros((224, 400), int)])


def street(shift: float) -> tuple[np.ndarray, CameraImage, np.ndarray]:
    """A 32-beam sweep of a ground, a wall and a board before it; a camera `shift` m to the left.

    Returns the points, the camera, and which points the board hides from it, by exact geometry.
    """
    elevation = np.deg2rad(np.linspace(-30.67, 10.67, 32))[:, None]
    azimuth = np.deg2rad(np.arange(-25, 25, 1 / 3))[None]
    rays = np.stack(
        np.broadcast_arrays(
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ),
        2,
    ).reshape(-1, 3)

    def cross(origin: np.ndarray, ray: np.ndarray) -> np.ndarray:
        """Distance to the board at x = 8, |y| < 1, z < 0.5, in multiples of `ray`."""
        reach = (8 - origin[0]) / ray[:, 0]
        at = origin + reach[:, None] * ray
        return np.where((np.abs(at[:, 1]) < 1) & (at[:, 2] < 0.5), reach, np.inf)

    wall = 20 / rays[:, 0]
    with np.errstate(divide="ignore"):
        ground = np.where(rays[:, 2] < 0, -1.8 / rays[:, 2], np.inf)
    board = cross(np.zeros(3), rays)
    xyz = rays * np.minimum(np.minimum(wall, ground), board)[:, None]
    eye = np.array([0.0, shift, 0])
    hidden = cross(eye, xyz - eye) < 1 - 1e-6
    image = ahead()
    move = np.eye(4)
    move[:3, 3] = -eye
    return (
        xyz,
        CameraImage("left", 0, image.image, image.camera, image.camera_from_lidar @ move),
        hidden,
    )


@pytest.mark.parametrize("shift", [0.5, 1.0, 1.5])
def test_what_a_near_surface_hides_is_left_out_and_little_else(shift: float) -> None:
    xyz, image, hidden = street(shift)
    without = pair(xyz, image).point
    seen = pair(xyz, image, occlusion=True).point
    assert set(seen) <= set(without)
    assert hidden[without].sum() > 20
    assert hidden[seen].sum() < 0.25 * hidden[without].sum()
    assert (~hidden[seen]).sum() > 0.96 * (~hidden[without]).sum()


def test_a_camera_at_the_sensor_sees_nearly_every_return() -> None:
    xyz, image, hidden = street(0.0)
    assert not hidden.any()
    assert len(pair(xyz, image, occlusion=True).point) > 0.96 * len(pair(xyz, image).point)
