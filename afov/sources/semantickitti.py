"""SemanticKITTI (and KITTI odometry): sequences with poses, the left colour camera, labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from afov.cameras import Camera
from afov.errors import InputError
from afov.frames import CameraImage, Frame, Sweep, Truth
from afov.images import decode_compressed
from afov.transforms import inverse

SPLITS = {
    "train": ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10"),
    "val": ("08",),
    "test": tuple(f"{n:02d}" for n in range(11, 22)),
}
# Raw label to the 19 evaluation classes of the vocabulary semantickitti19; the rest is 0. Moving
# things (252 and on) count as what they are.
TO_19 = np.zeros(260, np.uint8)
for _class_id, _raw in enumerate(
    (
        (10, 252), (11,), (15,), (18, 258), (13, 16, 20, 256, 257, 259), (30, 254), (31, 253),
        (32, 255), (40, 60), (44,), (48,), (49,), (50,), (51,), (70,), (71,), (72,), (80,), (81,),
    ),
    start=1,
):  # fmt: skip
    TO_19[list(_raw)] = _class_id


class SemanticKittiSource:
    """A SemanticKITTI tree as a source of frames.

    Args:
        root: the folder that holds `sequences/`.
        split: "train", "val" or "test"; every sequence that is there when None.
        sequences: names ("00", "08") instead of a split.
        truth: read `labels/`, where they are.
        every: take every n-th sweep.

    Raises:
        InputError: no such folder or split, or a sequence without its calibration.
    """

    def __init__(
        self,
        root: Path | str,
        split: str | None = None,
        *,
        sequences: Sequence[str] = (),
        truth: bool = False,
        every: int = 1,
    ) -> None:
        self.root, self.truth, self.every = Path(root), truth, max(every, 1)
        self.name = "semantickitti" + (f"-{split}" if split else "")
        if split is not None and split not in SPLITS:
            raise InputError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
        folder = self.root / "sequences"
        found = sorted(f.name for f in folder.glob("*") if (f / "velodyne").is_dir())
        if not found:
            raise InputError(f"{folder}: no sequence with a velodyne/ folder in it")
        named = tuple(sequences) or SPLITS.get(split or "", tuple(found))
        missing = [n for n in sequences if n not in found]
        if missing:
            raise InputError(f"{folder}: no sequence {missing[0]!r}; there are {', '.join(found)}")
        self.sequences = [folder / n for n in named if n in found]
        if not self.sequences:
            raise InputError(f"{folder}: no sequence of split {split!r}; there are {found}")
        self._skipped: Counter[str] = Counter()

    @property
    def key(self) -> str:
        """Tokens name sequence and sweep."""
        return self.name

    def __len__(self) -> int:
        return sum(len(self._sweeps(s)) for s in self.sequences)

    @property
    def skipped(self) -> dict[str, int]:
        """What the last pass left out, by reason."""
        return dict(self._skipped)

    def __iter__(self) -> Iterator[Frame]:
        self._skipped = Counter()
        for sequence in self.sequences:
            calibration = read_calibration(sequence / "calib.txt")
            times, poses = _rows(sequence / "times.txt", 1), _rows(sequence / "poses.txt", 12)
            for file in self._sweeps(sequence):
                number = int(file.stem)
                seconds = times[number, 0] if number < len(times) else number / 10
                pose = poses[number] if number < len(poses) else None
                yield self._frame(file, round(float(seconds) * 1e9), calibration, pose)

    def _sweeps(self, sequence: Path) -> list[Path]:
        files = sorted((sequence / "velodyne").glob("*.bin"))
        return [f for f in files if f.stem.isdecimal()][:: self.every]

    def _frame(
        self, file: Path, stamp: int, calibration: dict[str, np.ndarray], pose: np.ndarray | None
    ) -> Frame:
        sequence = file.parent.parent
        sweep = Sweep(read_sweep(file), ("x", "y", "z", "intensity"), stamp, "velodyne")
        image = self._image(sequence / "image_2" / f"{file.stem}.png", stamp, calibration)
        world = None
        if pose is not None:
            # Poses are the left grey camera's; Tr takes the LiDAR into it.
            lidar = calibration["Tr"]
            world = inverse(lidar) @ np.vstack((pose.reshape(3, 4), [0, 0, 0, 1])) @ lidar
        truth = None
        labels = sequence / "labels" / f"{file.stem}.label"
        if self.truth and labels.exists():
            truth = read_labels(labels, len(sweep))
        token = f"{sequence.name}-{file.stem}"
        return Frame(token, sweep, () if image is None else (image,), world, truth)

    def _image(
        self, file: Path, stamp: int, calibration: dict[str, np.ndarray]
    ) -> CameraImage | None:
        try:
            pixels = decode_compressed(file.read_bytes())
        except FileNotFoundError:
            self._skipped["image_2: no image"] += 1
            return None
        except (OSError, InputError):
            self._skipped["image_2: corrupt image"] += 1
            return None
        camera, from_left = projection(calibration["P2"], pixels.shape[1], pixels.shape[0])
        return CameraImage("image_2", stamp, pixels, camera, from_left @ calibration["Tr"])


def projection(P: np.ndarray, width: int, height: int) -> tuple[Camera, np.ndarray]:
    """A KITTI projection matrix as intrinsics and the (4, 4) shift from the left grey camera."""
    shift = np.eye(4)
    shift[:3, 3] = np.linalg.solve(P[:, :3], P[:, 3])
    return Camera(width, height, P[:, :3] / P[2, 2]), shift


def read_sweep(file: Path) -> np.ndarray:
    """(N, 4) float32: x y z in metres, LiDAR frame, and intensity.

    The files hold 0..1; here it is 0..255, as drivers publish it and as nuScenes has it.
    """
    raw = np.fromfile(file, np.uint8)
    if raw.size % 16:
        raise InputError(f"{file}: {raw.size} bytes, expected a multiple of 16; copy it again")
    points = raw.view(np.float32).reshape(-1, 4)
    points[:, 3] *= 255
    return points


def read_labels(file: Path, points: int) -> Truth:
    """Classes and instances of a `.label` file: class in the low 16 bits, instance in the high."""
    raw = np.fromfile(file, np.uint8)
    if raw.size != 4 * points:
        raise InputError(f"{file}: {raw.size} bytes, expected {4 * points} for {points} points")
    both = raw.view(np.uint32)
    label = (both & 0xFFFF).astype(np.uint16)
    class_id = np.append(TO_19, np.uint8(0))[np.minimum(label, len(TO_19))]
    return Truth(class_id, (both >> 16).astype(np.uint16), label, class_id)


def read_calibration(file: Path) -> dict[str, np.ndarray]:
    """P2 (3, 4) and Tr (4, 4) of `calib.txt`.

    Raises:
        InputError: no such file, or a line that is missing or has no 12 numbers.
    """
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{file}: expected the sequence's calibration") from None
    found = {}
    for line in lines:
        name, _, rest = line.partition(":")
        try:
            numbers = np.array(rest.split(), float)
        except ValueError:
            continue
        if len(numbers) == 12 and np.isfinite(numbers).all():
            found[name.strip()] = numbers.reshape(3, 4)
    for name in ("P2", "Tr"):
        if name not in found:
            raise InputError(f"{file}: no line '{name}:' with 12 numbers")
    found["Tr"] = np.vstack((found["Tr"], [0, 0, 0, 1]))
    return found


def _rows(file: Path, width: int) -> np.ndarray:
    """(lines, width); no line where there is no file.

    Raises:
        InputError: a line of another length.
    """
    if not file.exists():
        return np.zeros((0, width))
    try:
        rows = [list(map(float, line.split())) for line in file.read_text().splitlines() if line]
    except ValueError:
        raise InputError(f"{file}: expected numbers") from None
    if any(len(row) != width for row in rows):
        raise InputError(f"{file}: expected {width} numbers in every line")
    return np.array(rows).reshape(-1, width)
