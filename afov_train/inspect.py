"""--inspect: what a recording holds, seen before a night of training."""

from __future__ import annotations

from pathlib import Path

from afov import pictures
from afov.errors import InputError
from afov_train.config import TrainConfig, open_recordings


def inspect(config: TrainConfig) -> Path:
    """Says what the recording holds and draws its first sweep on its images.

    Returns:
        The picture.
    """
    recording = config.recording
    if recording.bag:
        from afov.sources.bag_topics import BagTopics
        from afov.sources.inspect import inspect_bag

        topics = BagTopics(cloud=recording.cloud_topic, images=recording.image_topics)
        summary = inspect_bag(recording.bag[0], topics, extrinsics=recording.extrinsics)
        print(summary)
        frame = summary.frame
    else:
        source = open_recordings(recording)[0]
        print(f"{source.name}: {len(source)} frames")
        frame = next(iter(source), None)
    if frame is None or not frame.images:
        raise InputError("no sweep has an image beside it, so there is nothing to draw")
    file = config.runs / "inspect.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    pictures.cameras(frame, pictures.by_depth(frame.sweep.xyz)).save(file)
    print(f"points on the images, coloured by distance: {file}")
    return file
