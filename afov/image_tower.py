"""The image tower of a panoptic model: images to CLIP features of points and voxels.

Trainer and vehicle see images through this file alone, so that they see the same.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.sparse import csr_array

from afov.frames import CameraImage
from afov.model_parts import ImageTowerFiles
from afov.pairing import pair_images
from afov.towers import OnnxTower, Run


@dataclass(frozen=True)
class Seen:
    """What cameras see of a sweep's points.

    Attributes:
        point: (M,) int64, index into the sweep; a point that two cameras see is in two pairs.
        place: (M,) int64, the place of the feature maps on which it falls.
        feature: (T, E) float32, unit rows in CLIP space, one per place.
    """

    point: np.ndarray
    place: np.ndarray
    feature: np.ndarray

    def of_voxels(self, inverse: np.ndarray, voxels: int) -> np.ndarray:
        """(voxels, E) float32: the mean over each voxel's points and cameras, made a unit vector.

        Zero where no camera sees any of its points.

        Args:
            inverse: (N,) int64, each point's voxel, -1 = none.
        """
        voxel = inverse[self.point]
        inside = voxel >= 0
        voxel, place = voxel[inside], self.place[inside]
        pairs = csr_array(
            (np.ones(len(voxel), np.float32), (voxel, place)), (voxels, len(self.feature))
        )
        return unit(pairs @ self.feature)


def unit(rows: np.ndarray) -> np.ndarray:
    """(N, E) rows of length 1; rows of zeros stay so."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def nothing_seen(width: int) -> Seen:
    """A sweep without cameras, in a CLIP space of so many dimensions."""
    none = np.zeros(0, np.int64)
    return Seen(none, none, np.zeros((0, width), np.float32))


def windows(image: np.ndarray, side: int) -> np.ndarray:
    """(H, W, 3) to (B, side, side, 3): the windows that the tower looks through, row by row."""
    rows, cols = image.shape[0] // side, image.shape[1] // side
    cut = image.reshape(rows, side, cols, side, 3).swapaxes(1, 2)
    return cut.reshape(-1, side, side, 3)


class ImageTower:
    """A frozen CLIP image tower.

    Args:
        run: what runs it; None = ONNX Runtime.

    Raises:
        InputError: the file is no image tower.
    """

    def __init__(self, files: ImageTowerFiles, run: Run | None = None) -> None:
        self.files = files
        # A core for each image: two cores share one image's small products badly.
        image = {"image": (files.height, files.width, 3)}
        self._run = run or OnnxTower(files.onnx, "image tower", image, threads=1)
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "image tower")
        self._last: dict[str, tuple[CameraImage, np.ndarray]] = {}

    def features(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB of any size to (h, w, E) float32, unit vectors in CLIP space.

        The image is resized to the tower's size, its sides stretched if need be.
        """
        size = (self.files.width, self.files.height)
        # Whole pixels are averaged first: 3 ms in place of 8 for 1600 x 900, and as good.
        sized = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)
        return self._run(np.asarray(sized))

    def maps(self, images: Sequence[CameraImage]) -> list[np.ndarray]:
        """`features` of every image, side by side.

        Sweeps come faster than images: what a camera showed the last time is not looked at again.
        """
        new = [i for i in images if not self._known(i)]
        for image, grid in zip(
            new, self._pool.map(self.features, (i.image for i in new)), strict=True
        ):
            self._last[image.name] = (image, grid)
        return [self._last[i.name][1] for i in images]

    def _known(self, image: CameraImage) -> bool:
        if image.name not in self._last:
            return False
        last, _ = self._last[image.name]
        same = last.image is image.image or np.array_equal(last.image, image.image)
        return last.stamp == image.stamp and same

    def look(self, xyz: np.ndarray, images: Sequence[CameraImage]) -> Seen:
        """What the images show of the points that no nearer surface hides.

        Args:
            xyz: (N, 3) float32, metres, LiDAR frame. images: of different cameras.
        """
        return self.look_up(xyz, images, self.maps(images))

    def look_up(
        self, xyz: np.ndarray, images: Sequence[CameraImage], maps: Sequence[np.ndarray]
    ) -> Seen:
        """The same with the images' `maps` at hand.

        A point takes the feature of the place in which its pixel lies; nothing is interpolated.
        """
        if not images:
            return nothing_seen(self.files.embedding)
        points, places = [], []
        before = 0
        pairs, _ = pair_images(xyz, images, occlusion=True)
        for image, found, grid in zip(images, pairs, maps, strict=True):
            h, w = grid.shape[:2]
            # Pixel centres have whole coordinates, and the image begins at -0.5.
            row = ((found.row + 0.5) * h / image.camera.height).astype(np.int64)
            col = ((found.col + 0.5) * w / image.camera.width).astype(np.int64)
            points.append(found.point)
            places.append(before + row * w + col)
            before += h * w
        features = np.concatenate([grid.reshape(-1, grid.shape[2]) for grid in maps])
        return Seen(np.concatenate(points), np.concatenate(places), features)
