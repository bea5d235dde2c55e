"""The panoptic part of a model at work: images and voxels to masks, and masks to instances.

NumPy alone, but for image tower and mask decoder, which ONNX Runtime runs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from afov.frames import CameraImage, Sweep
from afov.image_tower import ImageTower, unit
from afov.model_parts import PanopticFiles
from afov.names import Names
from afov.panoptic import SCORE, Panoptic, ensemble, panoptic, scores, sigmoid
from afov.pieces import distinct, pieces
from afov.towers import Run, open_session
from afov.voxels import Voxels


@dataclass(frozen=True)
class Answers:
    """What the decoder's queries answer.

    Attributes:
        embedding: (Q, E) float32, unit rows in CLIP space.
        mask: (Q, V) float32, logits.
    """

    embedding: np.ndarray
    mask: np.ndarray

    def of(self, query: np.ndarray, inside: csr_array, cut: np.ndarray) -> Answers:
        """Those of these queries, M of them, and of the masks that were cut only a piece.

        Args:
            inside: (M, V), 1 inside of a mask. cut: (M,) bool.
        """
        mask = self.mask[query]
        mask[cut] = np.where(inside[cut].toarray() > 0, mask[cut], -np.inf)
        return Answers(self.embedding[query], mask)


class PanopticHead:
    """The panoptic part of a model folder: image tower and mask decoder, on ONNX Runtime.

    Args:
        run: what runs the image tower instead.

    Raises:
        InputError: a file is no image tower, or no mask decoder.
    """

    def __init__(self, files: PanopticFiles, run: Run | None = None) -> None:
        self.files = files
        self.tower = ImageTower(files.image_tower, run)
        rows = None, files.image_tower.embedding
        inputs = {"embedding": rows, "image": rows, "xyz": (None, 3)}
        self._session = open_session(files.onnx, "mask decoder", inputs)

    def segment(
        self,
        sweep: Sweep,
        voxels: Voxels,
        embedding: np.ndarray,
        images: Sequence[CameraImage],
        names: Names,
    ) -> tuple[Panoptic, Answers, dict[str, float]]:
        """Instances and stuff of a sweep, the answers they are of, and seconds by part.

        Args:
            embedding: (V, E) float32, the sparse network's, not normalised.
            images: of the sweep; none where the cameras are off.
        """
        clock = [time.perf_counter()]
        maps = self.tower.maps(images)
        clock.append(time.perf_counter())
        seen = self.tower.look_up(sweep.xyz, images, maps)
        image = seen.of_voxels(voxels.inverse, len(voxels))
        clock.append(time.perf_counter())
        answers = self.answers(embedding, image, sweep.xyz[voxels.representative])
        clock.append(time.perf_counter())
        said = self.said(embedding, image)
        answers, likely = self.named(answers, said, sweep.xyz, voxels.inverse, names)
        found = panoptic(likely, answers.mask, names.thing, int(names.rival.sum()))
        clock.append(time.perf_counter())
        parts = ("image tower", "image features", "decoder", "masks")
        return found, answers, dict(zip(parts, np.diff(clock).tolist(), strict=True))

    def answers(self, embedding: np.ndarray, image: np.ndarray, xyz: np.ndarray) -> Answers:
        """What the queries answer about the voxels of one sweep.

        Args:
            embedding: (V, E) float32, the sparse network's, not normalised.
            image: (V, E) float32, unit rows; zero where no camera sees a voxel.
            xyz: (V, 3) float32, metres, LiDAR frame, of each voxel's representative point.
        """
        if not len(embedding):
            return Answers(embedding, np.zeros((0, 0), np.float32))
        feeds = {"embedding": embedding, "image": image, "xyz": np.ascontiguousarray(xyz)}
        return Answers(*self._session.run(["class_embedding", "mask"], feeds))

    def said(self, embedding: np.ndarray, image: np.ndarray) -> np.ndarray:
        """(V, E): what names masks besides their queries, voxel by voxel.

        The image features (`ensemble`, the paper's baseline), or the sum of these and the voxels'
        own embeddings (`voxels`, ours: it works with the cameras off, too).

        Args:
            embedding, image: (V, E), as in `answers`.
        """
        return image + unit(embedding) if self.files.head == "voxels" else image

    def named(
        self,
        answers: Answers,
        said: np.ndarray,
        xyz: np.ndarray,
        inverse: np.ndarray,
        names: Names,
    ) -> tuple[Answers, np.ndarray]:
        """The masks to merge, and how likely each is of each class, (Q, K + R) float32.

        With the head `voxels` (ours) a thing's mask goes in as its pieces, each named by itself,
        and of masks that hold the same only the best does.

        Args:
            said: (V, E). xyz: (N, 3), metres, of the points. inverse: (N,) int64, their voxels.
        """
        inside, thing = csr_array(answers.mask > 0, dtype=np.float32), names.thing
        likely = self.probability(answers.embedding, inside, said, names)
        if self.files.head != "voxels":
            return answers, likely
        some = np.flatnonzero(scores(likely, thing) > SCORE)
        cut = thing[likely[some].argmax(1)]
        inside, of = pieces(inside[some], cut, xyz, inverse)
        likely = self.probability(answers.embedding[some[of]], inside, said, names)
        score = scores(likely, thing)
        kept = np.flatnonzero(score > SCORE)
        kept = kept[distinct(inside[kept], score[kept])]
        of = of[kept]
        return answers.of(some[of], inside[kept], cut[of]), likely[kept]

    def probability(
        self, embedding: np.ndarray, inside: csr_array, said: np.ndarray, names: Names
    ) -> np.ndarray:
        """(Q, K + R) float32: how likely each query is of each class, rivals included.

        By the query alone (head `single`, 2401.02402); otherwise by the mean of `said` over its
        mask, too.

        Args:
            embedding: (Q, E), of the queries. inside: (Q, V), 1 inside of a mask. said: (V, E).
        """
        learned = sigmoid(self.files.scale * names.scores(embedding) + self.files.bias)
        if self.files.head == "single":
            return learned
        pooled = unit(inside @ said)
        base = names.learned(self.files.base)
        return ensemble(learned, names.probabilities(pooled), pooled.any(1), base)
