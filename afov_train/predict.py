"""afov-predict: a recording with its labels beside it, made offline."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from afov.afi import Mode
from afov.clouds import scaled_intensity, to_sweep
from afov.errors import InputError
from afov.frames import Frame
from afov.labelled import labelled_points
from afov.labelled_bag import SEGMENTATION, labelled_bag
from afov.sources.messages import Reader, Topic
from afov.student import Student
from afov.tracking import Tracker, follow
from afov_train.progress import track


@dataclass(frozen=True)
class Predict:
    """Labels every sweep of a bag; writes an MCAP of the bag's messages and the labelled clouds."""

    bag: Path | None = None
    """ROS 1 bag, rosbag2 folder, .mcap or .db3; only panoptic models look at its cameras."""
    model: Path = Path("runs/latest/model")
    """The model folder."""
    out: Path = Path("labelled.mcap")
    cloud_topic: str | None = None
    """The LiDAR's topic, when the bag has more than one cloud."""
    extrinsics: Path | None = None
    """YAML with the cameras' mounts, where the bag has no tf."""
    intensity_scale: float = 1.0
    """Brings the sensor's intensity to 0..255, as in training."""
    afi: Mode = "off"
    """Whether geometry corrects the labels: off, refined, or paper."""
    threshold: float = 0.0
    """Points with a lower probability become 255, unknown."""

    def run(self) -> None:
        """Writes `out`, whole or not at all; says how fast, and what was left out."""
        from afov.sources.bag_topics import choose_cloud
        from afov.sources.messages import open_reader

        if self.bag is None:
            raise InputError("name a recording: --bag FILE")
        if self.out.resolve() == self.bag.resolve():
            raise InputError(f"--out {self.out}: is the recording itself")
        reader = open_reader(self.bag)
        cloud = choose_cloud(self.bag, reader.topics, self.cloud_topic)
        student = Student.open(self.model)
        skipped: Counter[str] = Counter()
        tracker = Tracker()
        began, stamps = time.monotonic(), []
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with labelled_bag(self.out) as target:
            target.copy(self.bag)
            for frame in self._frames(reader, cloud, skipped, looks=student.panoptic is not None):
                sweep = frame.sweep
                try:
                    scaled = scaled_intensity(sweep, self.intensity_scale)
                    labels = student.label(scaled, frame.images)
                    labels = student.corrected(labels, sweep, self.afi)
                    if labels.instance_id is not None:
                        known = student.vocabulary, self.threshold, frame.world_from_lidar
                        labels, _ = follow(tracker, sweep, labels, *known)
                except InputError as error:
                    skipped[str(error)] += 1
                    continue
                points = labelled_points(sweep, labels, student.vocabulary, self.threshold)
                target.put_cloud(sweep, points)
                stamps.append(sweep.stamp)
            if not stamps:
                raise InputError(f"{self.bag}: no sweep could be labelled: {dict(skipped)}")
        self._report(stamps, time.monotonic() - began, skipped)

    def _frames(
        self, reader: Reader, cloud: Topic, skipped: Counter[str], *, looks: bool
    ) -> Iterator[Frame]:
        """The recording's sweeps; with poses and what images there are for a model that looks."""
        from afov.sources.bag_topics import BagTopics
        from afov.sources.bags import BagSource

        if looks:
            assert self.bag is not None
            topics = BagTopics(cloud=cloud.name)
            source = BagSource(self.bag, topics, extrinsics=self.extrinsics, blind=True)
            yield from track(source, "predict", len(source))
            skipped.update(source.skipped)
            return
        for _, message in track(reader.messages([cloud.name]), "predict", cloud.count):
            try:
                if message is None:
                    raise InputError("damaged message")
                sweep = to_sweep(message)
            except InputError as error:
                skipped[str(error)] += 1
                continue
            yield Frame(str(sweep.stamp), sweep, ())

    def _report(self, stamps: list[int], seconds: float, skipped: Counter[str]) -> None:
        recorded = (max(stamps) - min(stamps)) / 1e9
        print(
            f"{len(stamps)} sweeps in {seconds:.0f} s, {len(stamps) / seconds:.1f} a second; "
            f"the recording spans {recorded:.0f} s"
        )
        for why, count in skipped.items():
            print(f"skipped {count} x {why}")
        print(f"{self.out}: {SEGMENTATION} beside the recording's own topics")
