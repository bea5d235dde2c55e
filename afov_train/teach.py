"""Teach: what the frozen 2D model sees in the images becomes labels of the points."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from afov.errors import InputError
from afov.frames import Frame, Source, Sweep
from afov.pairing import Pairs, carry, pair_images, transfer
from afov.vocabulary import Vocabulary
from afov_train.config import TeachConfig
from afov_train.progress import track
from afov_train.teachers.segments import Segments, Teacher

NO_PHRASE = -1
FORM = 2  # of the files: older ones are taught anew


@dataclass(frozen=True)
class TaughtSweep:
    """A sweep with its pseudo-labels.

    Attributes:
        phrase: (N,) int32, index into the text bank's phrases, -1 where no segment answers.
        covered: (N,) bool, seen by a camera.
        pairs: (M, 5) int32: point, camera, row, column, segment; a point that two cameras see is
            in two pairs, as TMP wants it.
        segment_phrase: (S,) int32. segment_feature: (S, E) float32, unit rows in CLIP space.
        image_sizes: (cameras, 2) int32, height and width.
    """

    token: str
    sweep: Sweep
    phrase: np.ndarray
    covered: np.ndarray
    pairs: np.ndarray
    segment_phrase: np.ndarray
    segment_feature: np.ndarray
    image_sizes: np.ndarray

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


_ARRAYS = ("phrase", "covered", "pairs", "segment_phrase", "segment_feature", "image_sizes")


def class_of_phrase(phrase: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """(N,) uint8: the class of each phrase; 0 for none (-1) and for absorbers."""
    return np.append(vocabulary.phrase_class_id, np.uint8(0))[phrase]


def phrase_maps(segments: Sequence[Segments], min_score: float) -> list[np.ndarray]:
    """Per image (H, W): the phrase of each pixel's segment, -1 where none scores enough."""
    maps = []
    for seen in segments:
        phrase = np.where(seen.score >= min_score, seen.phrase, NO_PHRASE)
        maps.append(np.append(NO_PHRASE, phrase)[seen.ids])  # segment 0 of an image is "none"
    return maps


def project(
    frame: Frame, segments: Sequence[Segments], config: TeachConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Carries segments from the images to the points.

    A point that two cameras see takes the later one's segment; pixels without a segment never
    overwrite (2405.15286, official code).

    Returns:
        phrase (N,) int32, -1 where none; covered (N,) bool.
    """
    maps = phrase_maps(segments, config.min_score)
    return transfer(frame.sweep.xyz, frame.images, maps, none=NO_PHRASE, occlusion=config.occlusion)


def superpoints(
    pairs: Sequence[Pairs], segments: Sequence[Segments]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The points of each segment: what TMP contrasts.

    Returns:
        pairs (M, 5), segment_phrase (S,), segment_feature (S, E), as in `TaughtSweep`.
    """
    rows, phrases, features = [], [], []
    before = 0
    for camera, (found, seen) in enumerate(zip(pairs, segments, strict=True)):
        number = seen.ids[found.row, found.col].astype(np.int32) - 1
        columns = (found.point, np.full_like(found.point, camera), found.row, found.col)
        rows.append(np.stack((*columns, number + before), 1)[number >= 0].astype(np.int32))
        phrases.append(seen.phrase.astype(np.int32))
        features.append(seen.feature)
        before += len(seen.phrase)
    return np.concatenate(rows), np.concatenate(phrases), np.concatenate(features)


def disputed(
    pairs: np.ndarray, segment_phrase: np.ndarray, vocabulary: Vocabulary, points: int
) -> np.ndarray:
    """(N,) bool: points to which two cameras give different classes."""
    class_id = class_of_phrase(segment_phrase, vocabulary)[pairs[:, 4]].astype(np.int16)
    low, high = np.full(points, 999, np.int16), np.full(points, -1, np.int16)
    np.minimum.at(low, pairs[:, 0], class_id)
    np.maximum.at(high, pairs[:, 0], class_id)
    return low < high


def teach_sweep(
    frame: Frame, segments: Sequence[Segments], config: TeachConfig, vocabulary: Vocabulary
) -> TaughtSweep:
    """What the segments of a frame's images say about its points."""
    xyz, images = frame.sweep.xyz, frame.images
    found, seen = pair_images(xyz, images, occlusion=config.occlusion)
    phrase = carry(len(xyz), images, found, phrase_maps(segments, config.min_score), NO_PHRASE)
    pairs, segment_phrase, segment_feature = superpoints(found, segments)
    if config.agreement:
        phrase[disputed(pairs, segment_phrase, vocabulary, len(phrase))] = NO_PHRASE
    phrase = spread(xyz, phrase, seen, config.reach)
    sizes = np.array([i.image.shape[:2] for i in images], np.int32).reshape(-1, 2)
    return TaughtSweep(
        frame.token, frame.sweep, phrase, seen, pairs, segment_phrase, segment_feature, sizes
    )


def spread(xyz: np.ndarray, phrase: np.ndarray, covered: np.ndarray, reach: float) -> np.ndarray:
    """Carries labels on to points that no camera sees, from the nearest labelled point.

    No camera ever sees the ground close to the vehicle; a student that is never told about it
    calls it anything. A difference in height counts eightfold, so that ground labels ground.

    Args:
        xyz: (N, 3) metres; phrase: (N,) int32, -1 where none; covered: (N,) bool.
        reach: metres.

    Returns:
        (N,) int32.
    """
    from scipy.spatial import cKDTree

    finite = np.isfinite(xyz).all(1)
    known = np.flatnonzero(finite & (phrase != NO_PHRASE))
    wanted = np.flatnonzero(finite & ~covered)
    if not len(known) or not len(wanted):
        return phrase
    metric = np.array([1, 1, 8])
    near = cKDTree(xyz[known] * metric).query(xyz[wanted] * metric, distance_upper_bound=reach)[1]
    result = phrase.copy()
    result[wanted] = np.append(phrase[known], NO_PHRASE)[near]  # len(known): none within reach
    return result


def look(teacher: Teacher, frame: Frame) -> list[Segments]:
    """The teacher's answers to all images of a frame, two images at a time.

    Two at a time fill two cores better than one image on both, and a GPU better than one.
    """
    with ThreadPoolExecutor(2) as pool:
        return list(
            pool.map(
                lambda image: teacher.segments(image.image, token=frame.token, camera=image.name),
                frame.images,
            )
        )


def teach(source: Source, teacher: Teacher, config: TeachConfig, folder: Path) -> list[Path]:
    """Pseudo-labels for every frame, one file each.

    What an earlier run with the same teacher and settings has already written is kept.

    Raises:
        InputError: the recording yields no frame, or no camera sees any point.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"source": source.name, "teacher": teacher.key, "form": FORM, **asdict(config)}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    files, covered, labelled, points = [], 0, 0, 0
    for frame in track(source, "teach", len(source)):
        file = folder / f"{frame.token}-{key}.npz"
        if file.exists():
            taught = TaughtSweep.load(file)
        else:
            seen = look(teacher, frame)
            taught = teach_sweep(frame, seen, config, teacher.text_bank.vocabulary)
            taught.save(file)
        files.append(file)
        points += len(taught.phrase)
        covered += int(taught.covered.sum())
        labelled += int((taught.phrase != NO_PHRASE).sum())
    if not files:
        raise InputError(
            f"{source.name}: no frame could be read; skipped: {source.skipped or 'none'}"
        )
    if not labelled:
        raise InputError(
            f"{source.name}: not one point got a label ({covered} of {points} seen by a camera); "
            "check the calibration with --inspect"
        )
    skipped = "".join(f"; skipped {count} x {why}" for why, count in source.skipped.items())
    print(
        f"taught {len(files)} sweeps: cameras see {covered / points:.0%} of the points, "
        f"{labelled / points:.0%} have a phrase{skipped}"
    )
    return files
