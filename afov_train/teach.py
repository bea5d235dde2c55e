"""Teach: what the frozen 2D model sees in the images becomes labels of the points."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from afov.errors import InputError
from afov.frames import Frame, Source
from afov.pairing import Pairs, carry, pair_images, transfer
from afov.student import Student
from afov.vocabulary import Vocabulary
from afov_train.config import TeachConfig
from afov_train.progress import track
from afov_train.rounds import join_all
from afov_train.settle import settle, settle_all
from afov_train.taught import NO_PHRASE, UNKNOWN_POSE, TaughtSweep, class_of_phrase
from afov_train.teachers.segments import Segments, Teacher

NONE = -1  # no segment
FORM = 4  # of the files: older ones are taught anew


def segment_maps(segments: Sequence[Segments], min_score: float) -> list[np.ndarray]:
    """Per image (H, W) int32: each pixel's segment, counted over all images from 0.

    -1 where there is none, or one with a lower score.
    """
    maps, before = [], 0
    for seen in segments:
        number = before + np.arange(len(seen.score), dtype=np.int32)
        number[seen.score < min_score] = NONE
        maps.append(np.append(np.int32(NONE), number)[seen.ids])  # 0 in an image is "none"
        before += len(seen.score)
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
    maps = segment_maps(segments, config.min_score)
    segment, covered = transfer(
        frame.sweep.xyz, frame.images, maps, none=NONE, occlusion=config.occlusion
    )
    phrases = np.concatenate([*(seen.phrase for seen in segments), [NO_PHRASE]])
    return phrases[segment].astype(np.int32), covered


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
    segment = carry(len(xyz), images, found, segment_maps(segments, config.min_score), NONE)
    pairs, segment_phrase, segment_feature = superpoints(found, segments)
    if config.agreement:
        segment[disputed(pairs, segment_phrase, vocabulary, len(xyz))] = NONE
    scores = np.concatenate([*(s.score for s in segments), [0]]).astype(np.float32)
    return TaughtSweep(
        frame.token,
        frame.sweep,
        np.append(segment_phrase, np.int32(NO_PHRASE))[segment],
        scores[segment],
        seen,
        pairs,
        segment_phrase,
        segment_feature,
        np.array([i.image.shape[:2] for i in images], np.int32).reshape(-1, 2),
        UNKNOWN_POSE if frame.world_from_lidar is None else frame.world_from_lidar,
    )


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


def teach(
    source: Source,
    teacher: Teacher,
    config: TeachConfig,
    folder: Path,
    student: Student | None = None,
) -> list[Path]:
    """Pseudo-labels for every frame of a recording, one file each.

    What an earlier run with the same teacher and settings has already written is kept.

    Args:
        student: of an earlier round, whose answers join the teacher's.

    Raises:
        InputError: the recording yields no frame, or no camera sees any point.
    """
    vocabulary = teacher.text_bank.vocabulary
    if student is None and not config.vote and not config.objects and config.keep >= 1:
        files = _each(source, teacher, config, folder, settled=True)
    else:
        # What the images say does not depend on how it is settled, and is kept apart.
        alone = replace(config, vote=0.0, keep=1.0, objects=False, reach=0.0)
        files = _each(source, teacher, alone, folder / "projected", settled=False)
        if student is not None:
            files = join_all(files, student, folder / "joined")
        # Sweeps settle together: among others, or other answers, the same one may end otherwise.
        which = (files[0].parent.name, *(file.name for file in files))
        together = "".join((_key(source, teacher, config), *which))
        settled = folder / hashlib.sha256(together.encode()).hexdigest()[:16]
        files = settle_all(files, config, vocabulary, settled)
    _report(source, files)
    return files


def _key(source: Source, teacher: Teacher, config: TeachConfig) -> str:
    settings = {"source": source.key, "teacher": teacher.key, "form": FORM, **asdict(config)}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _each(
    source: Source, teacher: Teacher, config: TeachConfig, folder: Path, *, settled: bool
) -> list[Path]:
    """A file per frame, each settled on its own or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    key, files = _key(source, teacher, config), []
    vocabulary = teacher.text_bank.vocabulary
    nothing = np.zeros(len(vocabulary.labelled) + 1, np.float32)
    for frame in track(source, "teach", len(source)):
        file = folder / f"{frame.token}-{key}.npz"
        if not file.exists():
            taught = teach_sweep(frame, look(teacher, frame), config, vocabulary)
            if settled:
                taught = settle(taught, [], nothing, None, config, vocabulary)
            taught.save(file)
        files.append(file)
    if not files:
        raise InputError(
            f"{source.name}: no frame could be read; skipped: {source.skipped or 'none'}"
        )
    return files


def _report(source: Source, files: Sequence[Path]) -> None:
    """How much of the recording has labels now."""
    covered = labelled = points = 0
    for file in files:
        with np.load(file, allow_pickle=False) as data:
            points += len(data["phrase"])
            covered += int(data["covered"].sum())
            labelled += int((data["phrase"] != NO_PHRASE).sum())
    if not labelled:
        raise InputError(
            f"{source.name}: not one point got a label ({covered} of {points} seen by a camera); "
            "check the calibration with --inspect"
        )
    skipped = "".join(f"; skipped {count} x {why}" for why, count in source.skipped.items())
    print(
        f"taught {len(files)} sweeps of {source.name}: cameras see {covered / points:.0%} of the "
        f"points, {labelled / points:.0%} have a phrase{skipped}"
    )
