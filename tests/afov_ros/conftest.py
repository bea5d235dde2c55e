"""A model folder of an untrained network, and the installed node on it, over real Fast DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from afov.clouds import point_fields
from afov.frames import Sweep
from afov.text_bank import TextBank
from afov.vocabulary import Vocabulary

pytest.importorskip("rclpy", reason="needs ROS 2; `make ros` installs it")

# Runs side by side must not meet; domains above 101 collide with ephemeral ports.
DOMAIN = 1 + os.getpid() % 50
CLOUD = "/test/cloud"
PROGRAM = Path(sys.prefix) / "lib" / "afov_ros" / "afov_node"


def random_sweep(count: int = 3000, seed: int = 0) -> Sweep:
    """(count, 4) points around the sensor, some of them not finite."""
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 1, (count, 4)) * (15, 15, 1, 0) + (0, 0, 0, 100)
    points[::97, rng.integers(3)] = np.nan
    return Sweep(points.astype(np.float32), ("x", "y", "z", "intensity"), 0, "lidar")


def message(points: np.ndarray, *, stamp: tuple[int, int] = (12, 345), **layout: Any) -> Any:
    """A sensor_msgs/PointCloud2 of a structured array; `layout` overrides attributes."""
    from sensor_msgs.msg import PointCloud2, PointField

    cloud = PointCloud2(height=1, width=len(points), point_step=points.dtype.itemsize)
    cloud.header.frame_id = "lidar"
    cloud.header.stamp.sec, cloud.header.stamp.nanosec = stamp
    cloud.fields = [
        PointField(name=n, offset=o, datatype=d, count=c)
        for n, o, d, c in point_fields(points.dtype)
    ]
    cloud.row_step, cloud.data = points.nbytes, points.tobytes()
    for name, value in layout.items():
        setattr(cloud, name, value)
    return cloud


def structured(sweep: Sweep) -> np.ndarray:
    """The sweep's columns as a structured array."""
    dtype = np.dtype([(name, "<f4") for name in sweep.fields])
    return np.ascontiguousarray(sweep.points).view(dtype).reshape(-1)


def untrained(folder: Path, text_bank: TextBank, text_tower: Any = None) -> Path:
    """A model folder; its labels are arbitrary, but always the same."""
    torch = pytest.importorskip("torch")
    from afov.voxels import VoxelGrid
    from afov_train.export import export_student
    from afov_train.network.config import NetworkConfig
    from afov_train.network.unet import build_network

    torch.set_num_threads(1)
    torch.manual_seed(0)
    return export_student(
        build_network(NetworkConfig(), text_bank.embeddings.shape[1]),
        config=NetworkConfig(),
        grid=VoxelGrid("cylindrical"),
        text_bank=text_bank,
        temperature=0.05,
        provenance={},
        sweep=random_sweep(),
        folder=folder,
        text_tower=text_tower,
    )


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without a text tower, as an imported teacher leaves it."""
    vocabulary = Vocabulary.load("nuscenes16")
    text = np.random.default_rng(0).normal(size=(len(vocabulary.phrases), 16))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    bank = TextBank(vocabulary, text.astype(np.float32))
    return untrained(tmp_path_factory.mktemp("afov") / "model", bank)


@pytest.fixture(scope="session")
def open_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the embedded teacher's text tower."""
    pytest.importorskip("open_clip")
    from afov.text_tower import TextTower
    from afov_train.teachers.config import TeacherConfig
    from afov_train.teachers.text_onnx import text_tower

    tower = text_tower(TeacherConfig())
    assert tower is not None
    bank = TextTower(tower).text_bank(Vocabulary.load("nuscenes16"))
    return untrained(tmp_path_factory.mktemp("afov") / "open", bank, tower)


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Set for this process too, before its first participant."""
    from afov_ros.live import ros_environment

    environment = {**ros_environment(DOMAIN), "OMP_NUM_THREADS": "1"}
    os.environ.update(environment)
    return environment


def node_command(*parameters: str, program: Path = PROGRAM) -> list[str]:
    """The installed node, as `ros2 run afov_ros afov_node` starts it, or another program."""
    flags = [flag for parameter in parameters for flag in ("-p", parameter)]
    remap = ["-r", f"~/input/pointcloud:={CLOUD}"]
    return [sys.executable, str(program), "--ros-args", *flags, *remap]


def transform(
    parent: str, child: str, turn: Rotation, shift: Any, stamp: tuple[int, int] = (0, 0)
) -> Any:
    """A geometry_msgs/TransformStamped."""
    from geometry_msgs.msg import TransformStamped

    item = TransformStamped(child_frame_id=child)
    item.header.frame_id = parent
    item.header.stamp.sec, item.header.stamp.nanosec = stamp
    q, t = item.transform.rotation, item.transform.translation
    q.x, q.y, q.z, q.w = (float(v) for v in turn.as_quat())
    t.x, t.y, t.z = (float(v) for v in shift)
    return item


@contextmanager
def running(
    name: str,
    *parameters: str,
    environment: dict[str, str],
    remap: dict[str, str] | None = None,
    program: Path = PROGRAM,
) -> Iterator[Any]:
    """Another node of that name beside the module's own, for one test."""
    remaps = {"__node": name, **(remap or {})}
    flags = [flag for old, new in remaps.items() for flag in ("-r", f"{old}:={new}")]
    command = node_command(*parameters, program=program)
    command[3:3] = flags  # of two rules for one name the first holds
    process = subprocess.Popen(command, env=environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(timeout=10)


@pytest.fixture(scope="module")
def node(model: Path, environment: dict[str, str]) -> Iterator[Any]:
    """The node in its own process."""
    process = subprocess.Popen(node_command(f"model:={model}"), env=environment)
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)


class Peer:
    """A ROS node of the test's own: sends clouds, keeps what comes back."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from sensor_msgs.msg import PointCloud2

        from afov_ros.msg import Vocabulary as VocabularyMessage

        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.ros = rclpy.create_node("peer", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.ros)
        self.clouds: list[Any] = []
        self.vocabularies: list[Any] = []
        self.publisher = self.ros.create_publisher(PointCloud2, CLOUD, 10)
        self.ros.create_subscription(PointCloud2, "/afov/segmentation", self.clouds.append, 10)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.ros.create_subscription(
            VocabularyMessage, "/afov/vocabulary", self.vocabularies.append, latched
        )

    def spin_until(self, done: Callable[[], bool], seconds: float = 40.0) -> None:
        """Lets messages come in until there is what the test waits for."""
        until = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < until, "nothing came in time"
            self.executor.spin_once(timeout_sec=0.1)

    def ask(self, *clouds: Any) -> Any:
        """Publishes clouds (messages or serialised bytes); the node's answer to the last."""
        self.clouds.clear()
        for cloud in clouds:
            self.publisher.publish(cloud)
            time.sleep(0.3)  # a node that takes the newest would skip the one before
        self.spin_until(lambda: bool(self.clouds))
        return self.clouds[-1]

    def stream(self, cloud: Any, done: Callable[[], bool], seconds: float = 40.0) -> None:
        """Publishes a cloud again and again, as a sensor does, until it has had its effect.

        That this side sees a subscription does not mean that the other side is connected.
        """
        until = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < until, "nothing came in time"
            self.publisher.publish(cloud)
            for _ in range(5):
                self.executor.spin_once(timeout_sec=0.1)

    def call(self, kind: Any, service: str, request: Any = None, seconds: float = 60.0) -> Any:
        """A service's answer; asked again when the first request met no server."""
        client = self.ros.create_client(kind, service)
        until = time.monotonic() + seconds
        try:
            while True:
                future = client.call_async(request or kind.Request())
                asked = time.monotonic()
                while not future.done() and time.monotonic() - asked < 20:
                    assert time.monotonic() < until, f"no answer from {service}"
                    self.executor.spin_once(timeout_sec=0.1)
                if future.done():
                    return future.result()
        finally:
            self.ros.destroy_client(client)

    def diagnostics(
        self, name: str, done: Callable[[Any], bool], cloud: Any = None, seconds: float = 40.0
    ) -> Any:
        """The first status of that name that satisfies `done`, while a cloud is streamed."""
        from diagnostic_msgs.msg import DiagnosticArray

        found: list[Any] = []

        def take(report: Any) -> None:
            found.extend(s for s in report.status if s.name == name and done(s))

        subscription = self.ros.create_subscription(DiagnosticArray, "/diagnostics", take, 10)
        try:
            if cloud is None:
                self.spin_until(lambda: bool(found), seconds)
            else:
                self.stream(cloud, lambda: bool(found), seconds)
        finally:
            self.ros.destroy_subscription(subscription)
        return found[0]

    def listen(self, kind: Any, topic: str, *, latched: bool = False) -> list[Any]:
        """What comes on a topic from now on."""
        from rclpy.qos import DurabilityPolicy, QoSProfile

        qos = QoSProfile(depth=10)
        if latched:
            qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        heard: list[Any] = []
        self.ros.create_subscription(kind, topic, heard.append, qos)
        return heard

    def close(self) -> None:
        import rclpy

        self.executor.shutdown()
        self.ros.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def talker(environment: dict[str, str]) -> Iterator[Peer]:
    """Connected to nothing yet."""
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture(scope="module")
def peer(node: Any, environment: dict[str, str]) -> Iterator[Peer]:
    """Connected to the node in both directions."""
    peer = Peer()
    peer.spin_until(
        lambda: (
            node.poll() is not None
            or (
                peer.publisher.get_subscription_count() > 0
                and peer.ros.count_publishers("/afov/segmentation") > 0
                and bool(peer.vocabularies)
            )
        )
    )
    assert node.poll() is None, "the node ended"
    time.sleep(0.3)
    yield peer
    peer.close()
