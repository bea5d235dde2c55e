"""The node: a cloud in, every point of it labelled, out."""

from __future__ import annotations

import sys
import time
from typing import Any, get_args

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2

from afov.afi import Mode
from afov.clouds import to_sweep
from afov.errors import InputError
from afov.labelled import labelled_points
from afov.student import Student
from afov_ros.conversions import cloud_message, vocabulary_message
from afov_ros.msg import Vocabulary

PARAMETERS: tuple[tuple[str, Any, str], ...] = (
    ("model", "", "Model folder that afov-train exported."),
    ("runtime", "auto", "auto, onnxruntime or torch."),
    ("queue", 1, "Clouds that may wait; 1 keeps the latency of a slow machine low."),
    ("threshold", 0.0, "Points with a lower probability are published as unknown (255)."),
    ("afi", "off", "Geometry corrects the labels: off, refined (takes longer) or paper."),
)
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


class AfovNode(Node):
    """Labels `~/input/pointcloud`; publishes `~/segmentation` and, latched, `~/vocabulary`.

    Once a second its counts go out on `/diagnostics`.

    Raises:
        InputError: the model folder is not named or cannot be opened.
    """

    def __init__(self) -> None:
        super().__init__("afov")
        for name, default, text in PARAMETERS:
            self.declare_parameter(
                name, default, ParameterDescriptor(description=text, read_only=True)
            )
        model = str(self.get_parameter("model").value)
        if not model:
            raise InputError("parameter 'model' is not set; expected a model folder (model:=DIR)")
        self.student = Student.open(model, self.get_parameter("runtime").value)
        self.threshold = float(self.get_parameter("threshold").value)
        self.afi = self.get_parameter("afi").value
        if self.afi not in get_args(Mode):
            raise InputError(
                f"parameter 'afi': expected {', '.join(get_args(Mode))}, got {self.afi!r}"
            )
        self.labelled, self.refused, self.reason, self.milliseconds = 0, 0, "", 0.0
        self.segmentation = self.create_publisher(PointCloud2, "~/segmentation", RELIABLE)
        self.vocabulary = self.create_publisher(Vocabulary, "~/vocabulary", LATCHED)
        header = PointCloud2().header
        header.stamp = self.get_clock().now().to_msg()
        self.vocabulary.publish(vocabulary_message(self.student.vocabulary, header))
        # Best effort, as sensors publish; of those that wait the oldest is dropped.
        depth = int(self.get_parameter("queue").value)
        newest = QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(PointCloud2, "~/input/pointcloud", self.on_cloud, newest)
        self.diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self.create_timer(1.0, self.report)
        self.get_logger().info(
            f"labels {len(self.student.vocabulary.labelled)} classes with "
            f"{self.student.runtime.name}; waiting for clouds"
        )

    def on_cloud(self, message: Any) -> None:
        """Labels one cloud; whatever is wrong with it, the node goes on."""
        began = time.perf_counter()
        try:
            sweep = to_sweep(message)
            labels = self.student.corrected(self.student.label(sweep), sweep, self.afi)
            points = labelled_points(sweep, labels, self.student.vocabulary, self.threshold)
            self.segmentation.publish(cloud_message(points, message.header))
        except InputError as error:
            self._refuse(str(error))
        except Exception as error:  # a vehicle must not lose the node to one message
            self._refuse(f"{type(error).__name__}: {error}")
        else:
            self.labelled += 1
            self.milliseconds = (time.perf_counter() - began) * 1e3
            self.get_logger().info(
                f"{len(sweep)} points in {self.milliseconds:.0f} ms; {self.counts}",
                throttle_duration_sec=5.0,
            )

    @property
    def counts(self) -> str:
        """What became of the clouds so far."""
        return f"{self.labelled} clouds labelled, {self.refused} refused"

    def report(self) -> None:
        """A warning when a cloud was refused since the last report."""
        refused, self.reason = self.reason, ""
        waiting = "" if self.labelled else "waiting for the first cloud; "
        status = DiagnosticStatus(
            name=f"{self.get_fully_qualified_name()}: segmentation",
            level=DiagnosticStatus.WARN if refused else DiagnosticStatus.OK,
            message=refused or waiting + self.counts,
            values=[
                KeyValue(key="labelled", value=str(self.labelled)),
                KeyValue(key="refused", value=str(self.refused)),
                KeyValue(key="last sweep, ms", value=f"{self.milliseconds:.0f}"),
            ],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self.diagnostics.publish(message)

    def _refuse(self, reason: str) -> None:
        self.refused += 1
        self.reason = reason
        self.get_logger().warning(
            f"cloud refused ({self.refused} so far): {reason}", throttle_duration_sec=5.0
        )


def main(args: list[str] | None = None) -> int:
    """Runs the node until it is told to stop."""
    rclpy.init(args=args)
    try:
        node = AfovNode()
    except InputError as error:
        print(f"afov_node: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        # The logger's ROS side is gone after SIGINT; the console is not.
        print(f"afov_node: {node.counts}", file=sys.stderr)
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
