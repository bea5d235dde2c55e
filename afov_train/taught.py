"""A taught sweep: a sweep with its pseudo-labels, as a file that stages pass on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from afov.frames import Sweep
from afov.vocabulary import Vocabulary

NO_PHRASE = -1
UNKNOWN_POSE = np.full((4, 4), np.nan)


@dataclass(frozen=True)
class TaughtSweep:
    """A sweep with its pseudo-labels.

    Attributes:
        phrase: (N,) int32, index into the text bank's phrases, -1 where no segment answers.
        score: (N,) float32, of the segment that gave the phrase.
        covered: (N,) bool, seen by a camera.
        pairs: (M, 5) int32: point, camera, row, column, segment; a point that two cameras see is
            in two pairs, as TMP wants it.
        segment_phrase: (S,) int32. segment_feature: (S, E) float32, unit rows in CLIP space.
        image_sizes: (cameras, 2) int32, height and width.
        world_from_lidar: (4, 4) float64, NaN where the recording has no pose.
    """

    token: str
    sweep: Sweep
    phrase: np.ndarray
    score: np.ndarray
    covered: np.ndarray
    pairs: np.ndarray
    segment_phrase: np.ndarray
    segment_feature: np.ndarray
    image_sizes: np.ndarray
    world_from_lidar: np.ndarray

    def class_id(self, vocabulary: Vocabulary) -> np.ndarray:
        """(N,) uint8: the class of each point's phrase; 0 where unlabelled or absorbed."""
        return class_of_phrase(self.phrase, vocabulary)

    def save(self, file: Path) -> None:
        """Writes the file in one step, so that an interrupted run leaves no half of it."""
        partial = file.with_suffix(".part")
        with partial.open("wb") as stream:
            np.savez(
                stream,
                points=self.sweep.points,
                fields=np.array(self.sweep.fields),
                stamp=np.int64(self.sweep.stamp),
                frame_id=np.array(self.sweep.frame_id),
                **{name: getattr(self, name) for name in _ARRAYS},
            )
        partial.replace(file)

    @classmethod
    def load(cls, file: Path) -> TaughtSweep:
        """Reads what `save` wrote."""
        with np.load(file, allow_pickle=False) as data:
            sweep = Sweep(
                data["points"],
                tuple(str(name) for name in data["fields"]),
                int(data["stamp"]),
                str(data["frame_id"]),
            )
            return cls(file.stem, sweep, *(data[name] for name in _ARRAYS))


_ARRAYS = (
    "phrase", "score", "covered", "pairs", "segment_phrase", "segment_feature", "image_sizes",
    "world_from_lidar",
)  # fmt: skip


def class_of_phrase(phrase: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """(N,) uint8: the class of each phrase; 0 for none (-1) and for absorbers."""
    return np.append(vocabulary.phrase_class_id, np.uint8(0))[phrase]


def first_phrases(vocabulary: Vocabulary) -> np.ndarray:
    """(K + 1,) int32: a phrase for a class that is known without one; none (-1) for 0."""
    owner, classes = vocabulary.phrase_class_id, range(1, len(vocabulary.labelled) + 1)
    first = [np.flatnonzero(owner == class_id)[0] for class_id in classes]
    return np.array([NO_PHRASE, *first], np.int32)
