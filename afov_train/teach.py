"""Teach: what the frozen 2D model sees in the images becomes labels of the points."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from afov.errors import InputError
from afov.frames import Frame, Source, Sweep
from afov.pairing import pair
from afov.vocabulary import Vocabulary
from afov_train.config import TeachConfig
from afov_train.progress import track
from afov_train.teachers.segments import Segments, Teacher

NO_PHRASE = -1


@dataclass(frozen=True)
class TaughtSweep:
    """A sweep with its pseudo-labels.

    Attributes:
        phrase: (N,) int32, index into the text bank's phrases, -1 where no segment answers.
        covered: (N,) bool, seen by a camera.
    """

    token: str
    sweep: Sweep
    phrase: np.ndarray
    covered: np.ndarray

    def class_id(self, vocabulary: Vocabulary) -> np.ndarray:
        """(N,) uint8: the class of each point's phrase; 0 where unlabelled or absorbed."""
        owner = np.append(vocabulary.phrase_class_id, np.uint8(0))
        return owner[self.phrase]

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
                phrase=self.phrase,
                covered=self.covered,
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
            return cls(file.stem, sweep, data["phrase"], data["covered"])


def project(
    frame: Frame, segments: Sequence[Segments], config: TeachConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Carries segments from the images to the points.

    A point that two cameras see takes the later one's segment; pixels without a segment never
    overwrite (2405.15286, official code).

    Returns:
        phrase (N,) int32, -1 where none; covered (N,) bool.
    """
    phrase = np.full(len(frame.sweep), NO_PHRASE, np.int32)
    covered = np.zeros(len(frame.sweep), bool)
    for image, seen in zip(frame.images, segments, strict=True):
        pairs = pair(frame.sweep.xyz, image)
        covered[pairs.point] = True
        if config.occlusion:
            pairs = pair(frame.sweep.xyz, image, occlusion=True)
        # Row 0 of the table is "no segment".
        of_segment = np.where(seen.score >= config.min_score, seen.phrase, NO_PHRASE)
        table = np.concatenate(([NO_PHRASE], of_segment)).astype(np.int32)
        answer = table[seen.ids[pairs.row, pairs.col]]
        labelled = answer != NO_PHRASE
        phrase[pairs.point[labelled]] = answer[labelled]
    return phrase, covered


def teach(source: Source, teacher: Teacher, config: TeachConfig, folder: Path) -> list[Path]:
    """Pseudo-labels for every frame, one file each.

    What an earlier run with the same teacher and settings has already written is kept.

    Raises:
        InputError: the recording yields no frame, or no camera sees any point.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"source": source.name, "teacher": teacher.key, **asdict(config)}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    files, covered, labelled, points = [], 0, 0, 0
    for frame in track(source, "teach", len(source)):
        file = folder / f"{frame.token}-{key}.npz"
        if file.exists():
            taught = TaughtSweep.load(file)
        else:
            segments = [
                teacher.segments(image.image, token=frame.token, camera=image.name)
                for image in frame.images
            ]
            taught = TaughtSweep(file.stem, frame.sweep, *project(frame, segments, config))
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
