"""The image tower of a panoptic model: images to CLIP features of points and voxels.

Trainer and vehicle see images through this file alone, so that they see the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import csr_array

from afov.errors import InputError
from afov.frames import CameraImage
from afov.model_parts import ImageTowerFiles
from afov.pairing import pair_images


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
        total = pairs @ self.feature
        return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-6)


def nothing_seen(width: int) -> Seen:
    """A sweep without cameras, in a CLIP space of so many dimensions."""
    none = np.zeros(0, np.int64)
    return Seen(none, none, np.zeros((0, width), np.float32))


def windows(image: np.ndarray, side: int) -> np.ndarray:
    """(H, W, 3) to (B, side, side, 3): the windows that the tower looks through, row by row."""
    rows, cols = image.shape[0] // side, image.shape[1] // side
    cut = image.reshape(rows, side, cols, side, 3).swapaxes(1, 2)
    return cut.reshape(-1, side, side, 3)


def open_session(onnx: bytes, what: str) -> Any:
    """A graph of a panoptic model on ONNX Runtime.

    Raises:
        InputError: it is no graph; `what` names it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    usable = onnxruntime.get_available_providers()
    # Never its TensorRT: every sweep has another number of voxels, and would be another engine.
    providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in usable]
    try:
        return onnxruntime.InferenceSession(onnx, options, providers=providers)
    except Exception as error:  # onnxruntime has types of its own
        line = " ".join(f"{error}".split())[:200]
        raise InputError(f"{what}: cannot be opened ({line}); export the model again") from None


class ImageTower:
    """A frozen CLIP image tower on ONNX Runtime.

    Raises:
        InputError: the file is no image tower.
    """

    def __init__(self, files: ImageTowerFiles) -> None:
        self.files = files
        self._session = open_session(files.onnx, "image tower")

    def features(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB of any size to (h, w, E) float32, unit vectors in CLIP space.

        The image is resized to the tower's size, its sides stretched if need be.
        """
        size = (self.files.width, self.files.height)
        sized = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
        return self._session.run(None, {"image": np.asarray(sized)})[0]

    def look(self, xyz: np.ndarray, images: Sequence[CameraImage]) -> Seen:
        """What the images show of the points that no nearer surface hides.

        A point takes the feature of the place in which its pixel lies; nothing is interpolated.

        Args:
            xyz: (N, 3) float32, metres, LiDAR frame.
        """
        if not images:
            return nothing_seen(self.files.embedding)
        points, places, features = [], [], []
        before = 0
        pairs, _ = pair_images(xyz, images, occlusion=True)
        for image, found in zip(images, pairs, strict=True):
            grid = self.features(image.image)
            h, w, width = grid.shape
            # Pixel centres have whole coordinates, and the image begins at -0.5.
            row = ((found.row + 0.5) * h / image.camera.height).astype(np.int64)
            col = ((found.col + 0.5) * w / image.camera.width).astype(np.int64)
            points.append(found.point)
            places.append(before + row * w + col)
            features.append(grid.reshape(-1, width))
            before += h * w
        return Seen(np.concatenate(points), np.concatenate(places), np.concatenate(features))
