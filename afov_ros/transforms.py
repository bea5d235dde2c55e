"""Where the sensors are: /tf and /tf_static, or a file of mounts where there is no tf."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from afov.errors import InputError
from afov.extrinsics import add_extrinsics
from afov.sources.bags import add_transforms
from afov.transforms import TransformTree
from afov_ros.subscriptions import subscribe

KEPT_NS = 10 * 10**9  # around the pose that came last: a stamp of another time holds no longer
MISSING = (
    "tf2_msgs is not installed (apt install ros-$ROS_DISTRO-tf2-msgs): no tf, the "
    "sensors' mounts come from the parameter 'extrinsics' alone"
)


class Transforms:
    """A tree of frames that fills itself while the node runs.

    Attributes:
        heard: why tf is not; "" where it is.
        refused: transforms and messages that were bad.

    Args:
        extrinsics: YAML with mounts; tf does not change them. "" for none.

    Raises:
        InputError: the file is not of that form.
    """

    def __init__(self, node: Any, extrinsics: str, group: Any) -> None:
        self._node, self._lock = node, threading.Lock()
        self._tree, self.refused = TransformTree(), 0
        self._last_pose: float | None = None
        if extrinsics:
            add_extrinsics(self._tree, Path(extrinsics))
        self._fixed = tuple(self._tree.children)
        self._subscriptions = []
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError:
            self.heard = MISSING
            node.get_logger().warning(MISSING)
            return
        self.heard = ""
        latched = QoSProfile(
            depth=100,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
            reliability=ReliabilityPolicy.RELIABLE,
        )
        for topic, qos in (("/tf_static", latched), ("/tf", QoSProfile(depth=100))):
            self._subscriptions.append(
                subscribe(node, TFMessage, topic, self._taker(topic), self._refuse, qos, group)
            )

    def lookup(
        self, target: str, source: str, stamp: int, source_stamp: int | None = None
    ) -> np.ndarray:
        """(4, 4) float64 that takes `source` at its time to `target` at `stamp` (nanoseconds).

        Raises:
            InputError: frames or times that no transform covers; it never waits for one.
        """
        with self._lock:
            return self._tree.lookup(target, source, stamp, source_stamp=source_stamp)

    def forget_poses(self) -> None:
        """After time jumped back: poses of the future that was are wrong."""
        with self._lock:
            self._tree.forget_timed()

    @property
    def silence(self) -> float:
        """Seconds since the last pose came on /tf; 0 where none ever did."""
        return 0.0 if self._last_pose is None else time.monotonic() - self._last_pose

    @property
    def frames(self) -> tuple[str, ...]:
        """Every frame that was heard of."""
        with self._lock:
            return self._tree.frames

    def destroy(self) -> None:
        """Listens no longer."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _refuse(self, reason: str) -> None:
        self.refused += 1
        self._node.warn(reason)

    def _taker(self, topic: str) -> Any:
        static = topic == "/tf_static"

        def take(message: Any) -> None:
            if not static:
                self._last_pose = time.monotonic()
            transforms = [
                t for t in message.transforms if t.child_frame_id.lstrip("/") not in self._fixed
            ]
            with self._lock:
                for transform in transforms:
                    try:
                        stamp = add_transforms(self._tree, [transform], static, topic)
                    except InputError as error:
                        self._refuse(str(error))
                        continue
                    if not static:
                        self._tree.keep_near(transform.child_frame_id, stamp, KEPT_NS)

        return take
