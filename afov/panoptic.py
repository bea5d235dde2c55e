"""Panoptic inference: from what the queries of the mask decoder answer to instances of points.

NumPy alone, but for the decoder itself, which ONNX Runtime runs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from afov.frames import CameraImage, Sweep
from afov.image_tower import ImageTower, unit
from afov.model_parts import PanopticFiles
from afov.text_bank import TextBank
from afov.towers import Run, open_session
from afov.voxels import Voxels

# P3Former's numbers.
THING = 2.0  # times the score of a thing
SCORE = 0.4  # a query with less holds nothing
VISIBLE = 0.8  # of a mask, which must win against the others
SAME = 0.5  # IoU of two masks above which they hold one thing
SEEN, UNSEEN = 0.4, 0.8  # exponent of the image features' belief (FC-CLIP, 2308.02487, eq. 7)


@dataclass(frozen=True)
class Answers:
    """What the decoder's queries answer.

    Attributes:
        embedding: (Q, E) float32, unit rows in CLIP space.
        mask: (Q, V) float32, logits.
    """

    embedding: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Panoptic:
    """What is where, in the order of the voxels.

    Attributes:
        class_id: (V,) uint8, 0 where no mask is kept.
        score: (V,) float32, probability of the class of the voxel's query.
        instance_id: (V,) uint16, things counted from 1; 0 = stuff, or no mask.
        query: (V,) int64, -1 where no mask is kept.
    """

    class_id: np.ndarray
    score: np.ndarray
    instance_id: np.ndarray
    query: np.ndarray


def panoptic(probability: np.ndarray, mask: np.ndarray, thing: np.ndarray) -> Panoptic:
    """Each voxel to the query that claims it most, score times mask (P3Former).

    A thing's score counts twice; queries that score 0.4 or less hold nothing; a mask of which
    others take more than a fifth is dropped, and its voxels stay without a label. Stuff of one
    class is one segment, however many queries hold it. Ours: of masks that hold the same only the
    best is asked, or they would hide one another.

    Args:
        probability: (Q, K) float32, of each class; column k is the class with id k + 1.
        mask: (Q, V) float32 logits. thing: (K,) bool.
    """
    best = probability.argmax(1)
    likely = probability.max(1)
    score = np.where(thing[best], THING * likely, likely)
    kept = np.flatnonzero(score > SCORE)
    kept = kept[distinct(mask[kept] > 0, score[kept])]
    voxels = mask.shape[1]
    query = np.full(voxels, -1, np.int64)
    if len(kept) and voxels:
        of_mask = sigmoid(mask[kept])
        claimed = (score[kept, None].astype(np.float32) * of_mask).argmax(0)
        inside = of_mask > 0.5
        visible = inside[claimed, np.arange(voxels)]
        shown = np.bincount(claimed, visible, minlength=len(kept))
        whole = inside.sum(1)
        stays = (whole > 0) & (shown >= VISIBLE * whole)
        query = np.where(stays[claimed], kept[claimed], -1)
    number = np.zeros(len(probability) + 1, np.uint16)  # the last row is "no query"
    held = np.unique(query[query >= 0])
    things = held[thing[best[held]]]
    number[things] = np.arange(1, len(things) + 1)
    return Panoptic(
        np.append(best + 1, 0).astype(np.uint8)[query],
        np.append(likely, 0).astype(np.float32)[query],
        number[query],
        query,
    )


def distinct(inside: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(M,) bool: the masks that are left when those go that hold what a better one does, IoU > 0.5.

    Args:
        inside: (M, V) bool. score: (M,).
    """
    rows = inside.astype(np.float32)
    common, size = rows @ rows.T, rows.sum(1)
    same = common > SAME * (size[:, None] + size - common)
    left = np.ones(len(score), bool)
    for best in np.argsort(-score, kind="stable"):
        if left[best]:
            left &= ~same[best]
            left[best] = True
    return left


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def ensemble(
    learned: np.ndarray, pooled: np.ndarray, some: np.ndarray, base: np.ndarray
) -> np.ndarray:
    """(Q, K): FC-CLIP's geometric mean of what was learned and what is said inside a mask.

    learned^0.6 pooled^0.4 for classes seen in training, learned^0.2 pooled^0.8 for others.

    Args:
        learned, pooled: (Q, K) probabilities. some: (Q,) bool, whether a mask holds any voxel that
            says something; where it does not, `learned` stands alone.
        base: (K,) bool, seen in training.
    """
    share = np.where(base, SEEN, UNSEEN)
    return np.where(some[:, None], learned ** (1 - share) * pooled**share, learned)


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
        rows = None, self.tower.files.embedding
        inputs = {"embedding": rows, "image": rows, "xyz": (None, 3)}
        self._session = open_session(files.onnx, "mask decoder", inputs)

    def segment(
        self,
        sweep: Sweep,
        voxels: Voxels,
        embedding: np.ndarray,
        images: Sequence[CameraImage],
        text_bank: TextBank,
        temperature: float,
    ) -> tuple[Panoptic, Answers, dict[str, float]]:
        """Instances and stuff of a sweep, what the queries answered, and seconds by part.

        Args:
            embedding: (V, E) float32, the sparse network's, not normalised.
            images: of the sweep; none where the cameras are off.
            temperature: of the text bank, for the ensemble alone.
        """
        clock = [time.perf_counter()]
        maps = self.tower.maps(images)
        clock.append(time.perf_counter())
        seen = self.tower.look_up(sweep.xyz, images, maps)
        image = seen.of_voxels(voxels.inverse, len(voxels))
        clock.append(time.perf_counter())
        answers = self.answers(embedding, image, sweep.xyz[voxels.representative])
        clock.append(time.perf_counter())
        likely = self.probability(answers, embedding, image, text_bank, temperature)
        thing = np.array([c.thing for c in text_bank.vocabulary.labelled])
        found = panoptic(likely, answers.mask, thing)
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

    def probability(
        self,
        answers: Answers,
        embedding: np.ndarray,
        image: np.ndarray,
        text_bank: TextBank,
        temperature: float,
    ) -> np.ndarray:
        """(Q, K) float32: how likely each query is of each class of the vocabulary.

        By the query alone (head `single`, 2401.02402); beside it by the mean over its mask of the
        image features (`ensemble`, the paper's baseline), or of these and the voxels' own
        embeddings (`voxels`, ours: it works with the cameras off, too).

        Args:
            embedding, image: (V, E), as in `answers`.
        """
        learned = sigmoid(
            self.files.scale * text_bank.class_scores(answers.embedding) + self.files.bias
        )
        if self.files.head == "single":
            return learned
        rows = image + unit(embedding) if self.files.head == "voxels" else image
        pooled = unit((answers.mask > 0).astype(np.float32) @ rows)
        said = text_bank.probabilities(pooled, temperature)[:, 1:]
        base = np.isin([c.name for c in text_bank.vocabulary.labelled], self.files.base)
        return ensemble(learned, said, pooled.any(1), base)
