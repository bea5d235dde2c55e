"""Things of a sweep, and the boxes around them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from afov.instances import fitted_box, instances
from afov.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_dict(
    {"classes": [{"name": "car", "thing": True}, {"name": "road"}, {"name": "dog", "thing": True}]}
)
seeds = st.integers(0, 2**32 - 1)
angles = st.floats(-7, 7)


def corners(box: object) -> np.ndarray:
    """(M, 3) coordinates of points in a box's own frame, by SciPy."""
    return Rotation.from_quat(box.quaternion).as_matrix()  # type: ignore[attr-defined]


def inside(box: object, xyz: np.ndarray) -> np.ndarray:
    local = (xyz - box.center) @ corners(box)  # type: ignore[attr-defined]
    return (np.abs(local) <= box.size / 2 + 1e-6).all(1)  # type: ignore[attr-defined]


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(1, 60), st.floats(-500, 500))
def test_a_box_holds_all_points_and_every_side_touches_one(
    seed: int, count: int, far: float
) -> None:
    rng = np.random.default_rng(seed)
    # Lines and single points too: what is far away is seen as such.
    xyz = rng.normal(size=(count, 3)) * rng.integers(0, 2, 3) * (4, 1, 0.5) + far
    box = fitted_box(xyz)
    assert inside(box, xyz).all()
    local = (xyz - box.center) @ corners(box)
    np.testing.assert_allclose(local.max(0), box.size / 2, atol=1e-6)
    np.testing.assert_allclose(local.min(0), -box.size / 2, atol=1e-6)
    assert box.size[0] >= box.size[1] - 1e-9 and -np.pi / 2 <= box.yaw <= np.pi / 2


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(3, 80), angles, st.floats(-100, 100))
def test_a_box_turns_and_moves_with_its_points(
    seed: int, count: int, angle: float, shift: float
) -> None:
    xyz = np.random.default_rng(seed).normal(size=(count, 3)) * (3, 1, 1)
    turn = Rotation.from_euler("z", angle).as_matrix()
    box, turned = fitted_box(xyz), fitted_box(xyz @ turn.T + (shift, -shift, 1))
    np.testing.assert_allclose(turned.center, turn @ box.center + (shift, -shift, 1), atol=1e-6)
    np.testing.assert_allclose(turned.size, box.size, atol=1e-6)
    # A box is the same turned by half.
    assert abs(np.sin(turned.yaw - box.yaw - angle)) < 1e-6


@given(angles)
@settings(deadline=None, max_examples=30)
def test_two_sides_of_a_car_give_the_car(angle: float) -> None:
    rng = np.random.default_rng(1)
    side = np.stack((rng.uniform(0, 4.5, 120), rng.normal(0, 0.01, 120)), 1)
    rear = np.stack((rng.normal(0, 0.01, 50), rng.uniform(0, 1.8, 50)), 1)
    xyz = np.column_stack((np.concatenate((side, rear)), rng.uniform(0, 1.5, 170)))
    box = fitted_box(xyz @ Rotation.from_euler("z", angle).as_matrix().T)
    assert abs(np.sin(box.yaw - angle)) < 0.03
    assert box.size == pytest.approx((4.5, 1.8, 1.5), abs=0.15)


def test_instances_are_the_things_alone_by_the_class_of_most_of_their_points() -> None:
    xyz = np.arange(30, dtype=np.float32).reshape(10, 3)
    xyz[9] = np.nan
    class_id = np.array([1, 1, 2, 2, 2, 3, 255, 255, 255, 3], np.uint8)
    instance_id = np.array([7, 7, 7, 2, 2, 5, 4, 4, 0, 5], np.uint16)
    score = np.array([0.8, 0.6, 0.9, 1, 1, 0.5, 1, 1, 1, 0.1], np.float32)
    found = instances(xyz, class_id, score, instance_id, VOCABULARY)
    # 2 is road, 4 unknown; of 5 one point is not finite.
    assert [(i.id, i.class_id, len(i.xyz)) for i in found] == [(5, 3, 1), (7, 1, 3)]
    assert [i.score for i in found] == pytest.approx([0.5, 0.7])
    np.testing.assert_allclose(found[1].centroid, xyz[:3].mean(0))


def test_a_sweep_without_instances_has_none() -> None:
    none = np.zeros(3, np.uint16)
    xyz = np.zeros((3, 3), np.float32)
    assert instances(xyz, np.ones(3, np.uint8), np.ones(3, np.float32), none, VOCABULARY) == []
