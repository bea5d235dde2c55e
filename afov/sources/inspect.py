"""What a bag holds and what it lacks, before a night of training."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from afov.frames import Frame
from afov.pairing import pair
from afov.sources.bag_topics import BagTopics
from afov.sources.bags import BagSource
from afov.sources.messages import Topic

LOOKED_AT = 20  # sweeps


@dataclass(frozen=True)
class BagSummary:
    """The first sweeps of a bag, summed up.

    Attributes:
        topics: all of the bag's; cloud and cameras: those taken.
        frames: names of the coordinate frames in tf or the extrinsics.
        rate: sweeps per second; coverage: share of points that a camera sees.
        delays: per camera, |image stamp - sweep stamp| in seconds, of the sweeps looked at.
        skipped: what was left out, by reason; frame: the first with an image.
    """

    path: Path
    topics: tuple[Topic, ...]
    cloud: str
    fields: tuple[str, ...]
    frames: tuple[str, ...]
    rate: float
    coverage: float
    delays: dict[str, np.ndarray]
    sweeps: int
    moves: bool
    skipped: dict[str, int]
    frame: Frame | None

    def __str__(self) -> str:
        lines = [str(self.path), "", f"{'topic':<44} {'type':<34} messages"]
        lines += [f"{t.name:<44} {t.type:<34} {t.count}" for t in self.topics]
        lines += [
            "",
            f"sweeps      {self.cloud}: {', '.join(self.fields)}; {self.rate:.1f} per second",
            f"frames      {', '.join(self.frames) or 'none'}",
            f"ego motion  {'from tf' if self.moves else 'unknown, no moving frame in tf'}",
            f"coverage    cameras see {self.coverage:.0%} of the points",
        ]
        for name, delay in self.delays.items():
            milliseconds = delay * 1e3
            lines.append(
                f"image       {name}: {len(delay)} of {self.sweeps} sweeps, off by "
                f"{milliseconds.mean():.0f} ms, at most {milliseconds.max():.0f} ms"
            )
        missing = [f"left out    {count} x {reason}" for reason, count in self.skipped.items()]
        if "intensity" not in self.fields:
            missing.append("missing     intensity: set network.inputs to (rho, z)")
        return "\n".join(lines + missing)


def inspect_bag(
    path: Path | str, topics: BagTopics | None = None, *, extrinsics: Path | None = None
) -> BagSummary:
    """Reads the first sweeps of a bag, as training would.

    Raises:
        InputError: what would stop the training, too.
    """
    source = BagSource(path, topics, extrinsics=extrinsics)
    delays: defaultdict[str, list[float]] = defaultdict(list)
    stamps, seen, points, first, moves = [], 0, 0, None, False
    fields: tuple[str, ...] = ()
    for frame in islice(source, LOOKED_AT):
        stamps.append(frame.sweep.stamp)
        fields = frame.sweep.fields
        covered = np.zeros(len(frame.sweep), bool)
        for image in frame.images:
            covered[pair(frame.sweep.xyz, image).point] = True
            delays[image.name].append(abs(image.stamp - frame.sweep.stamp) / 1e9)
        seen, points = seen + int(covered.sum()), points + len(covered)
        moves = moves or frame.world_from_lidar is not None
        if first is None and frame.images:
            first = frame
    gaps = np.diff(stamps)
    return BagSummary(
        path=source.path,
        topics=source.reader.topics,
        cloud=source.cloud.name,
        fields=fields,
        frames=source.static_tree().frames,
        rate=float(1e9 / np.median(gaps)) if len(gaps) and np.median(gaps) > 0 else 0.0,
        coverage=seen / max(points, 1),
        delays={name: np.array(values) for name, values in delays.items()},
        sweeps=len(stamps),
        moves=moves,
        skipped=source.skipped,
        frame=first,
    )
