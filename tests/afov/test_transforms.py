from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from afov.errors import InputError
from afov.transforms import (
    TransformTree,
    interpolate,
    inverse,
    matrix_from,
    quaternion_from,
    transform_points,
)

coordinate = st.floats(-100, 100)
quaternions = (
    st.tuples(*[st.floats(-1, 1)] * 4).map(np.array).filter(lambda q: np.linalg.norm(q) > 0.1)
)
translations = st.tuples(*[coordinate] * 3).map(np.array)
poses = st.builds(matrix_from, quaternions, translations)
S = 1_000_000_000


def rotate(q: np.ndarray, v: np.ndarray) -> np.ndarray:
    """v' = q v q*, by quaternion products written out."""
    q = q / np.linalg.norm(q)
    axis, w = q[:3], q[3]
    return v + 2 * np.cross(axis, np.cross(axis, v) + w * v)


def about_z(degrees: float, x: float = 0.0) -> np.ndarray:
    half = np.deg2rad(degrees) / 2
    return matrix_from(np.array([0, 0, np.sin(half), np.cos(half)]), np.array([x, 0.0, 0.0]))


@given(quaternions, translations, translations)
def test_a_matrix_turns_points_as_its_quaternion_does(
    q: np.ndarray, t: np.ndarray, v: np.ndarray
) -> None:
    moved = transform_points(matrix_from(q, t), v[None])[0]
    np.testing.assert_allclose(moved, rotate(q, v) + t, atol=1e-9)


@given(quaternions)
def test_a_quaternion_comes_back_up_to_its_sign(q: np.ndarray) -> None:
    back = quaternion_from(matrix_from(q, np.zeros(3)))
    assert back[3] >= 0
    assert abs(abs(back @ q / np.linalg.norm(q)) - 1) < 1e-9


@given(poses, poses, translations)
def test_inverse_and_composition(a: np.ndarray, b: np.ndarray, v: np.ndarray) -> None:
    np.testing.assert_allclose(inverse(a) @ a, np.eye(4), atol=1e-9)
    there_and_back = transform_points(inverse(b) @ inverse(a), transform_points(a @ b, v[None]))
    np.testing.assert_allclose(there_and_back[0], v, atol=1e-8)


@given(poses, poses)
def test_the_midpoint_is_as_far_from_both_ends(a: np.ndarray, b: np.ndarray) -> None:
    # Half a turn apart there are two ways, and rounding decides.
    assume(abs(quaternion_from(a) @ quaternion_from(b)) > 1e-3)
    middle = interpolate(a, b, 0.5)
    np.testing.assert_allclose(middle[:3, 3], (a[:3, 3] + b[:3, 3]) / 2, atol=1e-9)
    first, second = inverse(a) @ middle, inverse(middle) @ b
    np.testing.assert_allclose(first[:3, :3], second[:3, :3], atol=1e-6)
    np.testing.assert_allclose(interpolate(a, b, 0.0), a, atol=1e-9)
    np.testing.assert_allclose(interpolate(a, b, 1.0), b, atol=1e-9)


def drive() -> TransformTree:
    """map -> base_link drives 10 m/s along x and turns 20 degrees/s; a LiDAR, a camera on it."""
    tree = TransformTree()
    for i in (2, 0, 1, 3):
        tree.add("map", "base_link", i * S, about_z(20.0 * i, 10.0 * i))
    tree.add_static("base_link", "lidar", about_z(0, 1.0))
    tree.add_static("/base_link", "/cam", about_z(90, 2.0))
    return tree


def test_static_frames_need_no_time_and_no_map() -> None:
    expected = inverse(about_z(90, 2.0)) @ about_z(0, 1.0)
    np.testing.assert_allclose(drive().lookup("cam", "lidar", 10**15), expected, atol=1e-12)


def test_between_two_poses_motion_is_steady() -> None:
    pose = drive().lookup("map", "base_link", int(1.25 * S))
    np.testing.assert_allclose(pose, about_z(25.0, 12.5), atol=1e-9)


def test_ego_motion_between_two_times_goes_through_the_fixed_frame() -> None:
    tree = drive()
    expected = (
        inverse(about_z(30.0, 15.0) @ about_z(90, 2.0)) @ about_z(20.0, 10.0) @ about_z(0, 1.0)
    )
    for fixed in (None, "map", "/map"):
        ours = tree.lookup("cam", "lidar", int(1.5 * S), source_stamp=S, fixed=fixed)
        np.testing.assert_allclose(ours, expected, atol=1e-9)
    with pytest.raises(InputError, match="is not above both 'cam' and 'lidar'"):
        tree.lookup("cam", "lidar", S, fixed="cam")


def test_beyond_the_buffer_a_pose_holds_for_a_tenth_of_a_second_and_no_longer() -> None:
    tree = drive()
    np.testing.assert_allclose(
        tree.lookup("map", "base_link", 3 * S + 99_000_000), about_z(60, 30), atol=1e-9
    )
    for stamp in (3 * S + 101_000_000, -101_000_000):
        with pytest.raises(InputError, match=r"known from 0\.000 to 3\.000 s"):
            tree.lookup("map", "base_link", stamp)


def test_what_is_older_is_forgotten_but_the_present_still_interpolates() -> None:
    tree = drive()
    tree.forget_before(int(1.5 * S))
    np.testing.assert_allclose(
        tree.lookup("map", "base_link", int(1.5 * S)), about_z(30, 15), atol=1e-9
    )
    with pytest.raises(InputError, match=r"known from 1\.000"):
        tree.lookup("map", "base_link", 0)
    assert tree.lookup("cam", "lidar", 0).shape == (4, 4)


def test_a_frame_that_does_not_exist_lists_those_that_do() -> None:
    with pytest.raises(InputError, match=r"no frame 'velodyne'.*base_link, cam, lidar, map"):
        drive().lookup("map", "velodyne", 0)
    with pytest.raises(InputError, match="none at all"):
        TransformTree().lookup("a", "b", 0)


def test_two_trees_are_not_connected() -> None:
    tree = drive()
    tree.add_static("other", "thing", np.eye(4))
    with pytest.raises(InputError, match="'map' and 'thing' are not connected"):
        tree.lookup("map", "thing", 0)


def test_a_loop_is_refused() -> None:
    tree = drive()
    for parent, child in (("cam", "map"), ("lidar", "lidar")):
        with pytest.raises(InputError, match="closes a loop"):
            tree.add_static(parent, child, np.eye(4))


def test_roots_and_motion() -> None:
    tree = drive()
    assert tree.root("cam") == "map" and tree.moves("cam") and not tree.moves("map")
    assert tree.knows("/lidar") and tree.knows("map") and not tree.knows("odom")


@pytest.mark.parametrize(
    ("q", "t"),
    [([0, 0, 0, 0], [0, 0, 0]), ([0, 0, 0, np.nan], [0, 0, 0]), ([0, 0, 0, 1], [np.inf, 0, 0])],
)
def test_a_transform_that_is_none_is_refused(q: list[float], t: list[float]) -> None:
    with pytest.raises(InputError, match="tf a -> b: rotation"):
        matrix_from(np.array(q), np.array(t), "tf a -> b")


def test_forgetting_timed_poses_leaves_what_holds_for_all_time() -> None:
    tree = TransformTree()
    tree.add_static("base", "lidar", np.eye(4))
    tree.add("odom", "base", 10**9, np.eye(4))
    tree.forget_timed()
    assert tree.children == ("lidar",)
    assert np.array_equal(tree.lookup("base", "lidar", 5), np.eye(4))
    with pytest.raises(InputError, match="no frame 'odom'"):
        tree.lookup("odom", "lidar", 10**9)
