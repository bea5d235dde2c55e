"""One labelled sweep, and the messages that tell of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from afov.frames import Sweep
from afov.labelled import embedded_points, labelled_points, published_ids, visual_points
from afov.student import Labels
from afov_ros.conversions import cloud_message
from afov_ros.live_vocabulary import Language
from afov_ros.parameters import Settings
from afov_ros.things import Things, detections_message, segments_message


@dataclass(frozen=True)
class Moment:
    """One labelled sweep, with all that it was labelled under.

    Attributes:
        seen: the newest image of each camera of which anyone makes use, when the sweep's turn came:
            stamp (nanoseconds) and bytes.
        things: None where the model knows none, or nobody listens to what tells of them.
    """

    message: Any
    sweep: Sweep
    labels: Labels
    language: Language
    settings: Settings
    seen: dict[str, tuple[int, bytes] | None]
    things: Things | None = None

    @cached_property
    def ids(self) -> np.ndarray:
        """(N,) uint8, 255 = unknown."""
        return published_ids(self.labels, self.settings.threshold)


def segmentation(moment: Moment) -> Any:
    """Every input point in its order, as `afov.labelled.POINT` lays it out."""
    student, version = moment.language.student, moment.language.version
    points = labelled_points(
        moment.sweep, moment.labels, student.vocabulary, moment.settings.threshold, version
    )
    return cloud_message(points, moment.message.header)


def visualization(moment: Moment) -> Any:
    """Every input point in the colour of its class: x y z rgb."""
    vocabulary = moment.language.student.vocabulary
    return cloud_message(visual_points(moment.sweep, moment.ids, vocabulary), moment.message.header)


def embedding(moment: Moment) -> Any:
    """Every input point with its vector in CLIP space."""
    return cloud_message(embedded_points(moment.sweep, moment.labels), moment.message.header)


def segments(moment: Moment) -> Any:
    """The things of the sweep."""
    assert moment.things is not None
    student, version = moment.language.student, moment.language.version
    return segments_message(moment.things, student.vocabulary, version, moment.message.header)


def detections(moment: Moment) -> Any:
    """They, as other packages know them."""
    assert moment.things is not None
    vocabulary = moment.language.student.vocabulary
    return detections_message(moment.things, vocabulary, moment.message.header)
