"""Frames from a bag: topics by type, images to sweeps by header stamp, poses from tf."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from afov.clouds import read_points, scaled_intensity, stamp_of, to_sweep
from afov.errors import InputError
from afov.extrinsics import add_extrinsics
from afov.frames import Frame, Sweep, Truth
from afov.sources.bag_topics import (
    TRUTH,
    BagTopics,
    CameraTopics,
    camera_of,
    choose_cameras,
    choose_cloud,
)
from afov.sources.decoding import Encoded, decoded
from afov.sources.messages import Reader, open_reader
from afov.sources.nuscenes_classes import RAW_TO_16
from afov.transforms import TransformTree, matrix_from

# Messages of one time may lie this far apart in the file.
DISORDER_NS = 150_000_000


@dataclass
class _Buffers:
    """What waits to be paired; old entries are dropped as the bag goes on."""

    sweeps: deque[Any] = field(default_factory=deque)
    images: dict[str, deque[Any]] = field(default_factory=dict)
    infos: dict[str, Any] = field(default_factory=dict)
    truths: dict[int, Any] = field(default_factory=dict)
    newest: int = 0


class BagSource:
    """A bag as a source of frames; it is streamed, never held.

    Args:
        path: ROS 1 bag, rosbag2 folder, .mcap or .db3, or a Foxglove MCAP.
        topics: which to take, when the types leave a choice.
        extrinsics: YAML with mounts, where tf is missing.
        truth: read /truth/<cloud>, if it is there; only evaluation asks for it.
        tolerance_s: seconds between a sweep and an image, at most.
        every: take every n-th sweep.
        blind: a bag without images will do.

    Raises:
        InputError: no bag, no cloud, no camera, or a choice that must be made.
    """

    def __init__(
        self,
        path: Path | str,
        topics: BagTopics | None = None,
        *,
        extrinsics: Path | None = None,
        truth: bool = False,
        tolerance_s: float = 0.1,
        every: int = 1,
        intensity_scale: float = 1.0,
        blind: bool = False,
    ) -> None:
        self.path = Path(path)
        self.name = self.path.stem
        topics = topics or BagTopics()
        self.reader: Reader = open_reader(self.path)
        self.cloud = choose_cloud(self.path, self.reader.topics, topics.cloud)
        self.cameras = choose_cameras(self.path, self.reader.topics, topics.images, blind)
        self.truth = truth
        self.tolerance = round(tolerance_s * 1e9)
        self.every = max(every, 1)
        self.intensity_scale = intensity_scale
        self._extrinsics = extrinsics
        self._skipped: Counter[str] = Counter()

    @property
    def key(self) -> str:
        """The bag, its topics, and how they are read."""
        mounts = self._extrinsics.read_text() if self._extrinsics is not None else ""
        topics = [self.cloud.name, *(camera.image.name for camera in self.cameras)]
        return f"{self.name} {topics} {self.tolerance} {self.intensity_scale} {mounts}"

    def __len__(self) -> int:
        return -(-self.cloud.count // self.every)

    @property
    def skipped(self) -> dict[str, int]:
        """What the last pass left out, by reason."""
        return dict(self._skipped)

    def static_tree(self) -> TransformTree:
        """The transforms that hold for all time: /tf_static, wherever it lies in the file."""
        tree = TransformTree()
        names = [t.name for t in self.reader.topics if t.kind == "tf_static"]
        for topic, message in self.reader.messages(names):
            if message is None:
                self._skipped[f"{topic.name}: damaged message"] += 1
            else:
                add_transforms(tree, message.transforms, True, topic.name)
        if self._extrinsics is not None:
            add_extrinsics(tree, self._extrinsics)
        return tree

    def __iter__(self) -> Iterator[Frame]:
        self._skipped = Counter()
        return decoded(self._frames(), self._skipped)

    def _frames(self) -> Iterator[tuple[Frame, list[Encoded]]]:
        """Frames without images, and these as they lie in the bag."""
        tree, wait, count = self.static_tree(), _Buffers(), 0
        by_image = {c.image.name: c for c in self.cameras}
        by_info = {c.info: c for c in self.cameras}
        truth_topic = TRUTH + self.cloud.name if self.truth else None
        names = {self.cloud.name, *by_image, *by_info}
        names |= {t.name for t in self.reader.topics if t.kind == "tf"}
        names |= {truth_topic} if truth_topic else set()
        for topic, message in self.reader.messages(names):
            if message is None:
                self._skipped[f"{topic.name}: damaged message"] += 1
                continue
            if topic.kind == "tf":
                self._add_poses(tree, message.transforms, topic.name)
                continue
            stamp = stamp_of(message.header)
            if topic.name == self.cloud.name:
                if count % self.every == 0:
                    wait.sweeps.append((stamp, message))
                count += 1
            elif topic.name == truth_topic:
                wait.truths[stamp] = message
            elif topic.name in by_image:
                name = by_image[topic.name].name
                wait.images.setdefault(name, deque()).append((stamp, message))
            else:
                wait.infos[by_info[topic.name].name] = message
            # A jump back (a loop, a new recording) must not hold everything that follows.
            wait.newest = max(wait.newest, stamp) if stamp > wait.newest - 10**10 else stamp
            yield from self._ready(tree, wait, wait.newest - self.tolerance - DISORDER_NS)
        yield from self._ready(tree, wait, None)

    def _add_poses(self, tree: TransformTree, transforms: Any, topic: str) -> None:
        """One that is none is skipped: localisations begin with NaN before they know better."""
        for transform in transforms:
            try:
                add_transforms(tree, [transform], False, topic)
            except InputError as error:
                self._skipped[f"bad transform ({str(error).split(': rotation')[0]})"] += 1

    def _ready(
        self, tree: TransformTree, wait: _Buffers, until: int | None
    ) -> Iterator[tuple[Frame, list[Encoded]]]:
        """Frames whose images must have come by now."""
        while wait.sweeps and (until is None or wait.sweeps[0][0] <= until):
            stamp, message = wait.sweeps.popleft()
            frame = self._frame(tree, wait, message)
            if frame is not None:
                yield frame
            oldest = (wait.sweeps[0][0] if wait.sweeps else stamp) - self.tolerance
            for images in wait.images.values():
                while len(images) > 1 and images[1][0] < oldest:
                    images.popleft()
            wait.truths = {s: m for s, m in wait.truths.items() if s > stamp}
            tree.forget_before(oldest - DISORDER_NS)
        if not wait.sweeps and until is not None:
            # No sweep waits: images older than any sweep to come can go.
            for images in wait.images.values():
                while len(images) > 1 and images[1][0] < until:
                    images.popleft()

    def _frame(
        self, tree: TransformTree, wait: _Buffers, message: Any
    ) -> tuple[Frame, list[Encoded]] | None:
        try:
            sweep = scaled_intensity(to_sweep(message), self.intensity_scale)
        except InputError as error:
            self._skipped[f"bad cloud ({error})"] += 1
            return None
        images = []
        for camera in self.cameras:
            image = self._image(tree, wait, camera, sweep)
            if image is not None:
                images.append(image)
        world = None
        if tree.knows(sweep.frame_id) and tree.moves(sweep.frame_id):
            try:
                world = tree.lookup(tree.root(sweep.frame_id), sweep.frame_id, sweep.stamp)
            except InputError:
                self._skipped["no pose at the sweep's time"] += 1
        truth = _truth(wait.truths.get(sweep.stamp), len(sweep))
        return Frame(str(sweep.stamp), sweep, (), world, truth), images

    def _image(
        self, tree: TransformTree, wait: _Buffers, topics: CameraTopics, sweep: Sweep
    ) -> Encoded | None:
        """The camera's nearest image, or None, counted."""
        candidates = wait.images.get(topics.name, ())
        near = min(candidates, key=lambda c: abs(c[0] - sweep.stamp), default=None)
        if near is None or abs(near[0] - sweep.stamp) > self.tolerance:
            self._skipped[f"{topics.name}: no image within the tolerance"] += 1
            return None
        stamp, message = near
        info = wait.infos.get(topics.name)
        if info is None:
            self._skipped[f"{topics.name}: no camera_info yet"] += 1
            return None
        camera = camera_of(info, topics)
        frame_id = message.header.frame_id or info.header.frame_id
        for frame in (frame_id, sweep.frame_id):
            if not tree.knows(frame):
                raise InputError(
                    f"{self.path}: no transform for frame {frame!r} of {topics.image.name}; "
                    f"frames: {', '.join(tree.frames) or 'none'}; give --extrinsics FILE.yaml"
                )
        try:
            pose = tree.lookup(frame_id, sweep.frame_id, stamp, source_stamp=sweep.stamp)
        except InputError as error:
            timely = "asked for at" not in str(error)
            reason = str(error) if timely else "no transform at the image's time"
            self._skipped[f"{topics.name}: {reason}"] += 1
            return None
        compressed = topics.image.kind == "compressed"
        return Encoded(topics.name, stamp, message, compressed, camera, pose)


def add_transforms(tree: TransformTree, transforms: Any, static: bool, where: str) -> int:
    """Adds geometry_msgs/TransformStamped to the tree; the newest stamp among them, nanoseconds.

    Raises:
        InputError: numbers that are no transform, or a loop of frames.
    """
    newest = 0
    for item in transforms:
        q, t = item.transform.rotation, item.transform.translation
        parent, child = item.header.frame_id, item.child_frame_id
        label = f"{where}: {parent} -> {child}"
        pose = matrix_from(np.array([q.x, q.y, q.z, q.w]), np.array([t.x, t.y, t.z]), label)
        if static:
            tree.add_static(parent, child, pose)
        else:
            newest = max(newest, stamp_of(item.header))
            tree.add(parent, child, stamp_of(item.header), pose)
    return newest


def _truth(message: Any, count: int) -> Truth | None:
    if message is None:
        return None
    points = read_points(message)
    if len(points) != count or "class_id" not in (points.dtype.names or ()):
        raise InputError(f"truth cloud: {len(points)} points for {count} of the sweep")
    raw = points["class_id"].astype(np.uint8)
    class_id = RAW_TO_16[np.minimum(raw, 31)]
    if "instance_id" not in (points.dtype.names or ()):
        return Truth(class_id, np.zeros(count, np.uint16), raw)
    return Truth(class_id, points["instance_id"].astype(np.uint16), raw, class_id)
