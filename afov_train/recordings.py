"""Where the frames come from: the recordings that flags name, opened as sources."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from afov.errors import InputError
from afov.frames import Source


@dataclass(frozen=True)
class Recording:
    """The recorded drive: bags, a nuScenes tree, SemanticKITTI; or several of them together."""

    bag: tuple[Path, ...] = ()
    """ROS 1 bags, rosbag2 folders, .mcap or .db3; also Foxglove's protobuf MCAP."""
    cloud_topic: str | None = None
    """The LiDAR's topic, when a bag has more than one cloud."""
    image_topics: tuple[str, ...] = ()
    """The cameras' image topics; all that are found when none is named."""
    extrinsics: Path | None = None
    """YAML with the sensors' mounts, where a bag has no tf."""
    intensity_scale: float = 1.0
    """Brings a bag's intensity to 0..255: 255 where the sensor gives 0..1."""
    tolerance: float = 0.1
    """Seconds between a sweep and the image it is paired with, at most."""
    nuscenes: Path | None = None
    """Root of a nuScenes tree."""
    version: str = "v1.0-mini"
    """nuScenes version: v1.0-mini or v1.0-trainval."""
    split: str | None = None
    """Official split of nuScenes or SemanticKITTI, or the papers' train600 and train100;
    everything when none is named."""
    sweeps: bool = False
    """nuScenes: the sweeps between keyframes, too."""
    semantickitti: Path | None = None
    """Folder that holds SemanticKITTI's sequences/."""
    sequences: tuple[str, ...] = ()
    """SemanticKITTI's sequences (00 08), instead of --split train, val or test."""
    every: int = 1
    """Take every n-th sweep (bags and SemanticKITTI)."""


def open_recordings(
    recording: Recording, *, truth: bool = False, blind: bool = False
) -> list[Source]:
    """The sources behind the settings, in the order of the flags.

    Args:
        truth: read ground truth too; only evaluation asks for it.
        blind: bags without images will do: who is not taught can do without.

    Raises:
        InputError: no recording is named, or one cannot be opened.
    """
    sources: list[Source] = []
    if recording.bag:
        from afov.sources.bag_topics import BagTopics
        from afov.sources.bags import BagSource

        topics = BagTopics(cloud=recording.cloud_topic, images=recording.image_topics)
        for bag in recording.bag:
            sources.append(
                BagSource(
                    bag,
                    topics,
                    extrinsics=recording.extrinsics,
                    truth=truth,
                    tolerance_s=recording.tolerance,
                    every=recording.every,
                    intensity_scale=recording.intensity_scale,
                    blind=blind,
                )
            )
    if recording.nuscenes is not None:
        from afov.sources.nuscenes import NuScenesSource

        sources.append(
            NuScenesSource(
                recording.nuscenes,
                recording.version,
                recording.split,
                sweeps=recording.sweeps,
                truth=truth,
            )
        )
    if recording.semantickitti is not None:
        from afov.sources.semantickitti import SemanticKittiSource

        sources.append(
            SemanticKittiSource(
                recording.semantickitti,
                recording.split,
                sequences=recording.sequences,
                truth=truth,
                every=recording.every,
            )
        )
    if not sources:
        raise InputError(
            "name a recording: --bag FILE, --nuscenes ROOT --version VERSION, or "
            "--semantickitti ROOT"
        )
    return sources
