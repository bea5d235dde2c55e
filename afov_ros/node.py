"""The node: a cloud in, every point of it labelled, out."""

from __future__ import annotations

import time
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2

from afov.clouds import scaled_intensity, to_sweep
from afov.errors import InputError
from afov.frames import CameraImage, Sweep
from afov.student import Student
from afov.tracking import JUMP_NS
from afov_ros.cameras import CameraInput, images_of
from afov_ros.diagnostics import statuses
from afov_ros.health import Health, oddities
from afov_ros.live_vocabulary import LiveVocabulary
from afov_ros.moment import Moment
from afov_ros.outputs import Outputs
from afov_ros.parameters import Settings, declare
from afov_ros.requests import Requests
from afov_ros.subscriptions import decoded
from afov_ros.things import Following
from afov_ros.throttle import Throttle
from afov_ros.transforms import Transforms
from afov_ros.worker import Worker


class AfovNode(LifecycleNode):
    """Labels `~/input/pointcloud`; docs/node.md lists topics, services and parameters.

    Raises:
        rclpy.exceptions.ParameterException: a parameter of another type, or out of its range.
    """

    def __init__(self) -> None:
        super().__init__("afov")
        declare(self)
        self.health, self.why_not = Health(), ""
        self.vocabulary: LiveVocabulary | None = None
        self.outputs: Any = None
        self.transforms: Any = None
        self.latest: Moment | None = None
        self.cameras: list[CameraInput] = []
        self._side_group = MutuallyExclusiveCallbackGroup()
        self.subscription: Any = None
        self._workers: tuple[Worker, ...] = ()
        self._throttle, self._last_stamp = Throttle(), 0
        self.diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Steady: a simulated clock may stand still or jump back.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self.report, self._side_group, steady)
        self.requests = Requests(self, MutuallyExclusiveCallbackGroup())

    def start(self) -> None:
        """Configures and, if that goes well, activates."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Opens and warms the model; a reason why not leaves the node unconfigured."""
        try:
            self.settings = settings = Settings.read(self)
            if not settings.model:
                raise InputError("parameter 'model' is not set; expected a model folder")
            student = Student.open(settings.model, settings.runtime)  # type: ignore[arg-type]
            vocabulary = LiveVocabulary(student)
            vocabulary.begin_with(settings.vocabulary)
            vocabulary.current.student.warm()
            self.transforms = Transforms(self, settings.extrinsics, self._side_group)
            self.outputs = Outputs(self, settings, self.transforms)
        except Exception as error:  # a model may fail in any way; the node must outlive it
            self._free()
            self.why_not = str(error) if isinstance(error, InputError) else repr(error)
            self.get_logger().error(f"not configured: {self.why_not}")
            return TransitionCallbackReturn.FAILURE
        self.health, self.why_not, self.vocabulary = Health(), "", vocabulary
        self.outputs.announce(vocabulary.current, settings)
        self.get_logger().info(
            f"labels {len(vocabulary.current.student.vocabulary.labelled)} classes with "
            f"{student.runtime.name}"
        )
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Begins to listen."""
        settings, self._last_stamp = self.settings, 0
        self.cameras = [CameraInput(self, topic) for topic in settings.cameras]
        self._following = Following(self.transforms)
        self._sweeps, self._drawings = Worker(self.label, settings.queue), Worker(self.draw)
        self._workers = self._sweeps, self._drawings
        # Best effort, as sensors publish; of those that wait the oldest is dropped.
        newest = QoSProfile(depth=settings.queue, reliability=ReliabilityPolicy.BEST_EFFORT)
        # Raw: rclpy ends a node whose message it cannot decode.
        self.subscription = self.create_subscription(
            PointCloud2, "~/input/pointcloud", self.on_cloud, newest,  # type: ignore[arg-type]
            callback_group=MutuallyExclusiveCallbackGroup(), raw=True,
        )  # fmt: skip
        self.get_logger().info(f"active; waiting for clouds on {self.subscription.topic_name}")
        return super().on_activate(state)

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """Listens no longer; the model stays open until cleanup."""
        self._silence()
        return super().on_deactivate(state)

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Frees the model."""
        self._free()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        """Ends whatever it was doing; also after a transition that failed."""
        self._free()
        return TransitionCallbackReturn.SUCCESS

    on_error = on_shutdown

    def stop(self) -> None:
        """Ends what takes long: a thread that is in native code when Python ends aborts it."""
        self._silence()
        if self.vocabulary is not None:
            self.vocabulary.close()

    def on_cloud(self, data: bytes, about: dict[str, Any]) -> None:
        """Takes a cloud in; one that still waited for its turn makes room."""
        self.health.arrived(about["publication_sequence_number"])
        if not self._sweeps.put(data):
            self.health.drop()

    def label(self, data: bytes) -> None:
        """Labels one cloud; whatever is wrong with it, the node goes on."""
        assert self.vocabulary is not None
        settings, began = self.settings, time.perf_counter()
        try:
            message = decoded(data, PointCloud2)
            sweep = to_sweep(message)
            self._notice_jump(sweep.stamp)
            read = time.perf_counter()
            language = self.vocabulary.current
            seen = self._seen(language.student)
            scaled = scaled_intensity(sweep, settings.intensity_scale)
            images = self._images(language.student, seen, sweep)
            looked = time.perf_counter()
            labels = language.student.label(scaled, images)
            labels = language.student.corrected(labels, sweep, settings.afi)
            things = None
            if labels.instance_id is not None and self.outputs.tells_of_things:
                vocabulary = language.student.vocabulary
                labels, things = self._following.follow(sweep, labels, vocabulary, settings)
            moment = Moment(message, sweep, labels, language, settings, seen, things)
            labelled = time.perf_counter()
            self.outputs.publish(moment)
        except InputError as error:
            self._refuse(str(error))
            return
        except Exception as error:  # a vehicle must not lose the node to one message
            self._refuse(f"{type(error).__name__}: {error}")
            return
        total = time.perf_counter() - began
        about = f"first cloud: {len(sweep)} points of {' '.join(sweep.fields)}"
        self.get_logger().info(about, once=True)
        self.latest = moment
        age = (self.get_clock().now().nanoseconds - sweep.stamp) / 1e9
        self.health.finished(total, age, settings.max_allowed_processing_time_ms)
        for oddity in oddities(scaled, language.student.model.inputs):
            self.health.wonder(oddity)
            self.warn(oddity)
        parts = {"decode": read - began, **labels.seconds, "total": total}
        if images:
            parts["images"] = looked - read
        parts["publish"] = total - (labelled - began)
        self.outputs.measure(parts, age)
        if self.cameras:
            self._drawings.put(moment)

    def draw(self, moment: Moment) -> None:
        """A labelled sweep on the images that someone looks at, behind the clouds."""
        try:
            self.outputs.draw(moment, self.cameras)
        except Exception as error:
            self.warn(f"overlay: {error}")

    def report(self) -> None:
        """Diagnostics, once a second."""
        try:
            message = DiagnosticArray(status=statuses(self))
            message.header.stamp = self.get_clock().now().to_msg()
            self.diagnostics.publish(message)
        except Exception as error:  # the life cycle may move on meanwhile
            if rclpy.ok():  # else the node ends, and this is no news
                self.warn(f"diagnostics: {error}")

    def warn(self, text: str) -> None:
        """Logs a warning, unless one of its kind was logged a moment ago."""
        if self._throttle.worth_telling(text):
            self.get_logger().warning(text)

    def _silence(self) -> None:
        if self.subscription is not None:
            self.destroy_subscription(self.subscription)
        for worker in self._workers:
            worker.stop()
        for camera in self.cameras:
            camera.destroy()
        self.cameras, self._workers = [], ()
        self.latest = self.subscription = None

    def _free(self) -> None:
        self.stop()
        self.vocabulary = None
        for part in (self.outputs, self.transforms):
            if part is not None:
                part.destroy()
        self.outputs = self.transforms = None

    def _seen(self, student: Student) -> dict[str, tuple[int, bytes] | None]:
        """The newest image of each camera of which anyone makes use."""
        every = student.panoptic is not None
        return {c.name: c.look() for c in self.cameras if every or self.outputs.shows(c.name)}

    def _images(self, student: Student, seen: dict[str, Any], sweep: Sweep) -> list[CameraImage]:
        """What a panoptic model looks at besides; a camera that is late is left out."""
        if student.panoptic is None:
            return []
        tolerance = self.settings.camera_tolerance
        images, faults = images_of(self.cameras, seen, sweep, self.transforms, tolerance)
        for fault in faults:
            self.warn(f"labelled without {fault}")
        return images

    def _notice_jump(self, stamp: int) -> None:
        if 0 < stamp < self._last_stamp - JUMP_NS:  # 0 is none
            self.health.jumps += 1
            self.transforms.forget_poses()
            for camera in self.cameras:
                camera.forget()
            self.get_logger().info("time jumped back: poses and images of before are forgotten")
        self._last_stamp = stamp or self._last_stamp

    def _refuse(self, reason: str) -> None:
        self.health.refuse(reason)
        self.warn(f"cloud refused ({self.health.refused} so far): {reason}")
