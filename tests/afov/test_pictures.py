"""Pictures show the points where they are, in their colours."""

from __future__ import annotations

import numpy as np

from afov import pictures
from afov.cameras import Camera
from afov.frames import CameraImage, Frame, Sweep
from afov.vocabulary import Vocabulary

RED, GREEN = (255, 0, 0), (0, 255, 0)


def looking_along_x():
    """A camera at the LiDAR, x forward."""
    turn = np.eye(4)
    turn[:3, :3] = [[0, -1, 0], [0, 0, -1], [1, 0, 0]]
    k = np.array([[100.0, 0, 80], [0, 100, 60], [0, 0, 1]])
    grey = np.full((120, 160, 3), 100, np.uint8)
    return CameraImage("ahead", 0, grey, Camera(160, 120, k), turn)


def test_a_point_is_drawn_on_its_pixel_and_a_hidden_one_is_not():
    points = np.array([[10, 0, 0], [40, 0, 0], [10, -4, 2]], np.float32)
    colors = np.array([RED, GREEN, GREEN], np.uint8)
    drawn = np.asarray(pictures.overlay(looking_along_x(), points, colors, radius=0))
    assert tuple(drawn[60, 80]) == RED
    assert tuple(drawn[40, 120]) == GREEN
    assert (drawn == GREEN).all(2).sum() == 1


def test_from_above_x_points_right_and_high_points_cover_low_ones():
    points = np.array([[20, 0, -1], [20, 0, 3], [0, 20, 0], [np.nan, 0, 0], [500, 0, 0]])
    colors = np.array([GREEN, RED, GREEN, GREEN, GREEN], np.uint8)
    drawn = np.asarray(pictures.birds_eye(points.astype(np.float32), colors, size=400))
    red, green = (np.argwhere((drawn == c).all(2)).mean(0) for c in (RED, GREEN))
    assert abs(red - [200, 300]).max() < 3
    assert abs(green - [100, 200]).max() < 3


def test_every_camera_and_every_class_has_its_place():
    frame = Frame(
        "t", Sweep(np.zeros((0, 3), np.float32), ("x", "y", "z"), 0, "l"), (looking_along_x(),) * 4
    )
    tiles = pictures.cameras(frame, np.zeros((0, 3), np.uint8), columns=3, width=80)
    assert tiles.width >= 3 * 80 and tiles.height >= 2 * 60
    vocabulary = Vocabulary.load("nuscenes16")
    names = np.asarray(pictures.legend(vocabulary, 900))
    for category in vocabulary.labelled:
        assert (names == category.color).all(2).any(), category.name
