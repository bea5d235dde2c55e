"""The things of the sweeps: followed in a frame that stands still, and as messages."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from afov.errors import InputError
from afov.frames import Sweep
from afov.instances import Box, Instance
from afov.student import Labels
from afov.tracking import Tracker, follow
from afov.vocabulary import Vocabulary
from afov_ros.conversions import color_message
from afov_ros.msg import Segment, Segments
from afov_ros.parameters import Settings
from afov_ros.transforms import Transforms


@dataclass(frozen=True)
class Things:
    """What a panoptic sweep holds.

    Attributes:
        found: under ids that last.
        fixed_frame: that velocities refer to; "" where tf does not know it.
    """

    found: tuple[Instance, ...]
    fixed_frame: str


class Following:
    """A tracker that takes its poses from tf; it never waits for one."""

    def __init__(self, transforms: Transforms) -> None:
        self._tracker, self._transforms = Tracker(), transforms

    def follow(
        self, sweep: Sweep, labels: Labels, vocabulary: Vocabulary, settings: Settings
    ) -> tuple[Labels, Things]:
        """The labels with ids that last, and the things of the sweep."""
        began, fixed = time.perf_counter(), settings.fixed_frame
        try:
            pose = self._transforms.lookup(fixed, sweep.frame_id, sweep.stamp)
        except InputError:  # /diagnostics tell it
            pose, fixed = None, ""
        labels, found = follow(self._tracker, sweep, labels, vocabulary, settings.threshold, pose)
        seconds = {**labels.seconds, "things": time.perf_counter() - began}
        return replace(labels, seconds=seconds), Things(tuple(found), fixed)


def segments_message(things: Things, vocabulary: Vocabulary, version: int, header: Any) -> Any:
    """An afov_ros/Segments."""
    segments = [_segment(i, vocabulary.names[i.class_id]) for i in things.found]
    return Segments(
        header=header, vocabulary=version, fixed_frame=things.fixed_frame, segments=segments
    )


def detections_message(things: Things, vocabulary: Vocabulary, header: Any) -> Any:
    """A vision_msgs/Detection3DArray. ImportError where vision_msgs is missing."""
    from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose

    detections = []
    for thing in things.found:
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id = vocabulary.names[thing.class_id]
        result.hypothesis.score = thing.score
        detection = Detection3D(header=header, results=[result], id=str(thing.id))
        _place(detection.bbox.center, thing.box)
        _vector(detection.bbox.size, thing.box.size)
        result.pose.pose = detection.bbox.center
        detections.append(detection)
    return Detection3DArray(header=header, detections=detections)


def thing_markers(things: Things, vocabulary: Vocabulary, header: Any) -> list[Any]:
    """visualization_msgs/Marker: a box in its class's colour, and its name, id and speed above."""
    from visualization_msgs.msg import Marker

    markers = []
    for thing in things.found:
        category = vocabulary.labelled[thing.class_id - 1]
        box = Marker(header=header, ns="things", id=thing.id, type=Marker.CUBE)
        box.color = color_message(category.color, 0.4)
        _place(box.pose, thing.box)
        # RViz refuses a box without any thickness.
        _vector(box.scale, thing.box.size.clip(0.05))
        text = f"{category.name} {thing.id}"
        if thing.velocity is not None:
            text += f"\n{float(thing.velocity @ thing.velocity) ** 0.5:.1f} m/s"
        name = Marker(
            header=header, ns="names", id=thing.id, type=Marker.TEXT_VIEW_FACING, text=text
        )
        name.color = color_message(category.color)
        name.scale.z = 0.5
        _place(name.pose, thing.box)
        name.pose.position.z += float(thing.box.size[2]) / 2 + 0.5
        markers += [box, name]
    return markers


def _segment(thing: Instance, name: str) -> Any:
    segment = Segment(
        id=thing.id,
        class_id=thing.class_id,
        name=name,
        score=thing.score,
        points=len(thing.xyz),
        tracked=thing.velocity is not None,
    )
    _vector(segment.centroid, thing.centroid)
    _place(segment.pose, thing.box)
    _vector(segment.size, thing.box.size)
    if thing.velocity is not None:
        _vector(segment.velocity, thing.velocity)
    return segment


def _place(pose: Any, box: Box) -> None:
    _vector(pose.position, box.center)
    turn = pose.orientation
    turn.x, turn.y, turn.z, turn.w = box.quaternion


def _vector(target: Any, values: Any) -> None:
    target.x, target.y, target.z = (float(v) for v in values)
