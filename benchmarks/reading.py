"""A bag with six cameras, frame by frame: ours against rosbags and Pillow in a single thread."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from compare import NUSCENES, Row, by_turns, run
from PIL import Image
from rosbags.highlevel import AnyReader

from afov.frames import CameraImage, Frame
from afov.sources.bags import BagSource
from afov_train.simulation.config import SimConfig
from afov_train.simulation.drive import simulate
from afov_train.simulation.write_mcap import write_mcap

SIZE = (1600, 900)
FRAMES = 40


def photograph(image: CameraImage) -> CameraImage:
    """The image as nuScenes' camera of that name saw it, or enlarged to the same size."""
    files = sorted((NUSCENES.parent / image.name.upper()).glob("*.jpg"))
    picture = Image.open(files[0]) if files else Image.fromarray(image.image).resize(SIZE)
    camera = image.camera.scaled(*picture.size)
    return replace(image, image=np.asarray(picture.convert("RGB")), camera=camera)


def drive() -> list[Frame]:
    """A short simulated drive with photographs in place of its pictures."""
    config = SimConfig(streets=1, frames_per_street=FRAMES, width=160, height=90, workers=1)
    taken: dict[str, CameraImage] = {}
    frames = []
    for frame in simulate(config):
        for image in frame.images:
            taken.setdefault(image.name, photograph(image))
        images = tuple(
            replace(i, image=taken[i.name].image, camera=taken[i.name].camera) for i in frame.images
        )
        frames.append(replace(frame, images=images))
    return frames


def one_by_one(bag: Path) -> int:
    """rosbags and Pillow: every message, every picture's pixels; how many pictures there were."""
    count = 0
    with AnyReader([bag]) as reader:
        wanted = [c for c in reader.connections if not c.topic.startswith("/truth")]
        for connection, _, raw in reader.messages(connections=wanted):
            message = reader.deserialize(raw, connection.msgtype)
            if "CompressedImage" in connection.msgtype:
                count += np.asarray(Image.open(io.BytesIO(message.data)).convert("RGB")).ndim == 3
            elif "PointCloud2" in connection.msgtype:
                np.frombuffer(message.data, np.uint8)
    return count


def frame_by_frame(bag: Path) -> int:
    """Frames, with everything that they carry; how many pictures they had."""
    return sum(len(frame.images) for frame in BagSource(bag))


def rows(repeat: int) -> list[Row]:
    """One row."""
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder) / "drive.mcap"
        write_mcap(drive(), bag)
        works: dict[str, Callable[[], int]] = {
            "ours": partial(frame_by_frame, bag),
            "theirs": partial(one_by_one, bag),
        }
        pictures = {name: work() for name, work in works.items()}
        assert pictures["ours"] == pictures["theirs"], pictures
        times = by_turns(repeat, **works)
    count = pictures["ours"]
    facts = {"images": float(count), "images per s": 1e3 * count / float(np.median(times["ours"]))}
    return [Row("bag with JPEG images", "rosbags + Pillow, one thread", *times.values(), 2, facts)]


if __name__ == "__main__":
    run(rows, 5)
