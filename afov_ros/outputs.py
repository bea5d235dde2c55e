"""What the node publishes, each computed only while someone listens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Float64

from afov.clouds import read_points
from afov.errors import InputError
from afov.labelled import inside_box
from afov.pictures import overlay
from afov.sources.bag_topics import CameraTopics
from afov_ros.cameras import CameraInput
from afov_ros.conversions import (
    chosen_message,
    image_message,
    label_info_message,
    legend_markers,
    vocabulary_message,
)
from afov_ros.live_vocabulary import Language
from afov_ros.moment import (
    Moment,
    detections,
    embedding,
    segmentation,
    segments,
    visualization,
)
from afov_ros.msg import Segments, Vocabulary
from afov_ros.parameters import Settings
from afov_ros.things import thing_markers
from afov_ros.transforms import Transforms

# A best-effort publisher could not feed RViz's defaults; depth 1 keeps no old clouds.
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
PARTS = (
    "decode",
    "images",
    "voxels",
    "kernel maps",
    "network",
    "image tower",
    "image features",
    "decoder",
    "masks",
    "labels",
    "afi",
    "things",
    "publish",
    "total",
)
DEBUG = (
    *(f"processing_time/{part.replace(' ', '_')}_ms" for part in PARTS),
    "pipeline_latency_ms",
)


class Outputs:
    """The publishers.

    Attributes:
        sent: messages by topic.
    """

    def __init__(self, node: Any, settings: Settings, transforms: Transforms) -> None:
        self._node, self._transforms = node, transforms
        self._publishers: dict[str, Any] = {}
        self.sent: Counter[str] = Counter()
        self._clouds: list[tuple[str, Callable[[Moment], Any]]] = [
            ("~/segmentation", segmentation),
            ("~/visualization", visualization),
            ("~/filtered", self._filtered),
        ]
        if settings.embedding:
            self._clouds.append(("~/embedding", embedding))
        self._of_things: list[tuple[str, Callable[[Moment], Any]]] = [
            ("~/segments", segments),
            ("~/detections", detections),
        ]
        for topic, _ in self._clouds:
            self._publisher(topic, PointCloud2, NEWEST)
        self._publisher("~/query_points", PointCloud2, NEWEST)
        for camera in settings.cameras:
            self._publisher(f"~/overlay/{CameraTopics.of(camera).name}", Image, NEWEST)
        for name in DEBUG:
            self._publisher(f"~/debug/{name}", Float64, NEWEST)
        self._publisher("~/segments", Segments, NEWEST)
        self._publisher("~/vocabulary", Vocabulary, LATCHED)
        self._optional("~/detections", "vision_msgs", "Detection3DArray", NEWEST)
        self._optional("~/label_info", "vision_msgs", "LabelInfo", LATCHED)
        self._optional("~/markers", "visualization_msgs", "MarkerArray", LATCHED)
        self._legend: Any = None

    def publish(self, moment: Moment) -> None:
        """The clouds of a sweep, the segmentation first, then its things."""
        for topic, make in (*self._clouds, *(self._of_things if moment.things else ())):
            if self.wanted(topic):
                try:
                    self.send(topic, make(moment))
                except InputError as error:
                    self._node.warn(f"{topic}: {error}")
        self._mark(moment)

    @property
    def tells_of_things(self) -> bool:
        """Whether anyone listens to what tells of things."""
        return any(map(self.wanted, ("~/segmentation", "~/segments", "~/detections", "~/markers")))

    def announce(self, language: Language, settings: Settings) -> None:
        """Latches what the ids of the clouds to come mean."""
        header = PointCloud2().header
        header.stamp = self._node.get_clock().now().to_msg()
        vocabulary = language.student.vocabulary
        if why := settings.unknown_classes(vocabulary.names):
            self._node.warn(why)
        self.send("~/vocabulary", vocabulary_message(vocabulary, language.version, header))
        if "~/label_info" in self._publishers:
            self.send("~/label_info", label_info_message(vocabulary, settings.threshold, header))

    def draw(self, moment: Moment, cameras: list[CameraInput]) -> None:
        """The overlays that someone looks at."""
        settings, palette = moment.settings, moment.language.student.vocabulary.palette
        for camera in cameras:
            if camera.name not in moment.seen or not self.shows(camera.name):
                camera.fault = ""
                continue
            try:
                image = camera.image(
                    moment.seen[camera.name],
                    moment.sweep,
                    self._transforms,
                    settings.camera_tolerance,
                    settings.overlay_width,
                )
            except InputError as error:
                camera.fault = str(error)
                self._node.warn(str(error))
            else:
                camera.fault = ""
                picture = overlay(image, moment.sweep.xyz, palette[moment.ids], radius=1)
                message = image_message(np.asarray(picture), image.stamp, camera.frame_id)
                self.send(f"~/overlay/{camera.name}", message)

    def shows(self, camera: str) -> bool:
        """Whether anyone looks at a camera's overlay."""
        return self.wanted(f"~/overlay/{camera}")

    def measure(self, seconds: dict[str, float], latency: float) -> None:
        """How long each part took, and how old the sweep was when all was done; seconds."""
        values = {f"processing_time/{p.replace(' ', '_')}_ms": s for p, s in seconds.items()}
        for name, value in (*values.items(), ("pipeline_latency_ms", latency)):
            topic = f"~/debug/{name}"
            if self.wanted(topic):
                self.send(topic, Float64(data=1e3 * value))

    def wanted(self, topic: str) -> bool:
        """Whether anyone listens; nobody does when the node is about to end."""
        try:
            return bool(self._publishers[topic].get_subscription_count())
        except Exception:  # RCLError: the context was shut down under a sweep
            return False

    def send(self, topic: str, message: Any) -> None:
        """Publishes; what the middleware refuses is warned about."""
        try:
            self._publishers[topic].publish(message)
            self.sent[topic] += 1
        except Exception as error:  # RCLError: a flooded reliable writer
            self._node.warn(f"{topic}: not published: {error}")

    def destroy(self) -> None:
        """Publishes no longer."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._publishers.clear()

    def _filtered(self, moment: Moment) -> Any:
        settings = moment.settings
        names = moment.language.student.vocabulary.names
        unwanted = [i for i, n in enumerate(names) if n in settings.filter_classes]
        likely = moment.labels.score >= settings.filter_probability
        keep = ~(np.isin(moment.ids, unwanted) & likely)
        if any(settings.ego_box):
            pose = self._transforms.lookup(
                settings.ego_frame, moment.sweep.frame_id, moment.sweep.stamp
            )
            keep &= ~inside_box(moment.sweep.xyz, pose, settings.ego_box)
        return chosen_message(moment.message, read_points(moment.message), keep)

    def _mark(self, moment: Moment) -> None:
        """Latched; sent again when vocabulary, frame or box is another, and as things move."""
        if "~/markers" not in self._publishers:
            return
        settings, things = moment.settings, moment.things
        box = (settings.ego_frame, settings.ego_box) if any(settings.ego_box) else None
        state = (moment.language.version, moment.sweep.frame_id, box)
        if state == self._legend and not (things and self.wanted("~/markers")):
            return
        from visualization_msgs.msg import MarkerArray

        vocabulary = moment.language.student.vocabulary
        markers = legend_markers(vocabulary, moment.sweep.frame_id, box)
        if things:
            markers += thing_markers(things, vocabulary, moment.message.header)
        self.send("~/markers", MarkerArray(markers=markers))
        self._legend = state

    def _publisher(self, topic: str, kind: Any, qos: QoSProfile) -> None:
        self._publishers[topic] = self._node.create_publisher(kind, topic, qos)

    def _optional(self, topic: str, package: str, name: str, qos: QoSProfile) -> None:
        """A publisher, where the message's package is installed."""
        from importlib import import_module

        try:
            kind = getattr(import_module(f"{package}.msg"), name)
        except ImportError:
            self._node.get_logger().warning(
                f"no {topic}: {package} is not installed "
                f"(apt install ros-$ROS_DISTRO-{package.replace('_', '-')})"
            )
        else:
            self._publisher(topic, kind, qos)
