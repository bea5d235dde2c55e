"""Cameras on a live node: paired through tf at both times, and never in a sweep's way."""

from __future__ import annotations

import importlib.util
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image as Pillow
from scipy.spatial.transform import Rotation

from tests.afov_ros.conftest import Peer, message, random_sweep, running, structured, transform

WIDTH, HEIGHT, FOCAL = 320, 240, 200.0
RAW, JPEG = "/cam_a/image_raw", "/cam_b/image_raw/compressed"
GHOST = "/cam_c/image_raw/compressed"  # tf does not know where this camera is
# Optical axes (z ahead, x right, y down) in a body whose x points ahead and y to the left.
OPTICAL = Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
MOUNTS = {"a": [0.2, 0.0, -0.1], "b": [0.1, 0.05, 0.0]}
BEGIN = 1000  # seconds
HAS_TF = importlib.util.find_spec("tf2_msgs") is not None


def sweep_message(stamp: tuple[int, int]) -> Any:
    """A cluster of points ten metres ahead, and others behind where no camera looks."""
    rng = np.random.default_rng(1)
    sweep = random_sweep(400)
    xyz = sweep.points
    xyz[:, :3] = rng.normal((-15, 0, 0), 2, (400, 3))
    xyz[:60, :3] = rng.normal((10, 1, 0.5), 0.02, (60, 3))
    return message(structured(sweep), stamp=stamp)


def stamp_of(seconds: float) -> tuple[int, int]:
    return int(seconds), round((seconds - int(seconds)) * 1e9)


class Rig:
    """Two cameras, tf of a vehicle that drives at 10 m/s, and a cloud; all at times of ours."""

    def __init__(self, peer: Peer, *, tf: bool = True) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image

        self.peer, ros = peer, peer.ros
        self.images = {
            "a": ros.create_publisher(Image, RAW, 5),
            "b": ros.create_publisher(CompressedImage, JPEG, 5),
            "c": ros.create_publisher(CompressedImage, GHOST, 5),
        }
        self.infos = {
            c: ros.create_publisher(CameraInfo, f"/cam_{c}/camera_info", 5) for c in "abc"
        }
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.now, self.has_tf = float(BEGIN), tf
        if tf:
            from tf2_msgs.msg import TFMessage

            self.tf = ros.create_publisher(TFMessage, "/tf", 50)
            self.tf_static = ros.create_publisher(TFMessage, "/tf_static", latched)
            mounts = [transform("base_link", "lidar", Rotation.identity(), [0, 0, 1.8])]
            mounts += [transform("lidar", f"cam_{c}", OPTICAL, at) for c, at in MOUNTS.items()]
            self.tf_static.publish(TFMessage(transforms=mounts))

    def image(self, camera: str, seconds: float, shade: int = 90) -> Any:
        from sensor_msgs.msg import CompressedImage, Image

        pixels = np.full((HEIGHT, WIDTH, 3), shade, np.uint8)
        if camera == "a":
            made = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
            made.data = pixels.tobytes()
        else:
            file = io.BytesIO()
            Pillow.fromarray(pixels).save(file, "JPEG")
            made = CompressedImage(format="jpeg", data=file.getvalue())
        made.header.frame_id = f"cam_{camera}"
        made.header.stamp.sec, made.header.stamp.nanosec = stamp_of(seconds)
        return made

    def info(self, camera: str) -> Any:
        from sensor_msgs.msg import CameraInfo

        k = [FOCAL, 0, WIDTH / 2, 0, FOCAL, HEIGHT / 2, 0, 0, 1]
        info = CameraInfo(width=WIDTH, height=HEIGHT, k=[float(v) for v in k])
        info.header.frame_id = f"cam_{camera}"
        return info

    def step(self, cameras: str = "ab", lag: float = 0.04, *, tf: bool = True) -> None:
        """A tenth of a second of driving: poses, images `lag` seconds older, the sweep."""
        self.now += 0.1
        for late in np.arange(-0.1, 0.11, 0.05) if tf and self.has_tf else ():
            from tf2_msgs.msg import TFMessage

            moment = self.now + late
            pose = transform(
                "odom", "base_link", Rotation.identity(), [10 * (moment - BEGIN), 0, 0],
                stamp_of(moment),
            )  # fmt: skip
            self.tf.publish(TFMessage(transforms=[pose]))
        for camera in cameras:
            self.infos[camera].publish(self.info(camera))
            self.images[camera].publish(self.image(camera, self.now - lag))
        for _ in range(4):
            self.peer.executor.spin_once(timeout_sec=0.02)
        self.peer.publisher.publish(sweep_message(stamp_of(self.now)))
        for _ in range(6):
            self.peer.executor.spin_once(timeout_sec=0.05)

    def until(self, done: Callable[[], bool], seconds: float = 40.0, **step: Any) -> None:
        until = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < until, "nothing came in time"
            self.step(**step)


def mount(camera: str) -> dict[str, Any]:
    """An entry of an extrinsics file."""
    rotation = [float(v) for v in OPTICAL.as_quat()]
    at = {"parent": "lidar", "child": f"cam_{camera}"}
    return {**at, "translation": MOUNTS[camera], "rotation": rotation}


@pytest.fixture(scope="module")
def seeing(
    model: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    mounts = tmp_path_factory.mktemp("mounts") / "mounts.yaml"
    mounts.write_text(yaml.safe_dump({"frames": [mount(c) for c in "ab"]}))
    parameters = [f"model:={model}", f"cameras:=[{RAW},{JPEG}]", "overlay_width:=160"]
    if not HAS_TF:
        parameters.append(f"extrinsics:={mounts}")
    with running("seeing", *parameters, environment=environment) as node:
        yield node


@pytest.fixture(scope="module")
def rig(seeing: Any, environment: dict[str, str]) -> Iterator[Rig]:
    from diagnostic_msgs.msg import DiagnosticArray
    from sensor_msgs.msg import Image, PointCloud2

    peer = Peer()
    rig = Rig(peer, tf=HAS_TF)
    rig.clouds = peer.listen(PointCloud2, "/seeing/segmentation")
    rig.overlays = {c: peer.listen(Image, f"/seeing/overlay/cam_{c}") for c in "ab"}
    rig.reports = peer.listen(DiagnosticArray, "/diagnostics")
    rig.until(lambda: bool(rig.clouds and rig.overlays["a"] and rig.overlays["b"]))
    yield rig
    peer.close()


def camera_status(rig: Rig, camera: str) -> Any:
    wanted = f"/seeing: camera cam_{camera}"
    found = [s for r in rig.reports for s in r.status if s.name == wanted]
    return found[-1] if found else None


def fresh(rig: Rig) -> None:
    for heard in (rig.clouds, rig.reports, *rig.overlays.values()):
        heard.clear()


@pytest.mark.parametrize("camera", "ab")
@pytest.mark.parametrize("lag", [0.0, 0.08])
def test_points_fall_where_the_vehicle_was_when_the_image_was_taken(
    camera: str, lag: float, rig: Rig
) -> None:
    fresh(rig)
    rig.until(lambda: len(rig.overlays[camera]) > 3, lag=lag)
    picture = rig.overlays[camera][-1]
    assert (picture.encoding, picture.width, picture.height) == ("rgb8", 160, 120)
    assert picture.header.frame_id == f"cam_{camera}"
    stamps = [c.header.stamp.sec + c.header.stamp.nanosec / 1e9 for c in rig.clouds]
    taken = picture.header.stamp.sec + picture.header.stamp.nanosec / 1e9
    assert min(abs(s - lag - taken) for s in stamps) < 1e-6
    pixels = np.frombuffer(bytes(picture.data), np.uint8).reshape(120, 160, 3).astype(int)
    drawn = np.abs(pixels - np.array([49, 49, 49])).max(2) > 12
    drawn[:30, :100] = False  # the camera's name is written there
    # The cluster, seen from where the camera stood `lag` seconds before: farther back by 10 m/s.
    # Without tf nobody knows that the vehicle moves.
    driven = 10 * lag if HAS_TF else 0
    x, y, z = np.array([10, 1, 0.5]) - MOUNTS[camera] + [driven, 0, 0]
    expected = np.array([HEIGHT / 2 - FOCAL * z / x, WIDTH / 2 - FOCAL * y / x]) / 2
    assert drawn.any()
    np.testing.assert_allclose(np.argwhere(drawn).mean(0), expected, atol=1.0)


def test_a_camera_that_falls_silent_is_reported_and_delays_no_sweep(rig: Rig) -> None:
    rig.until(lambda: len(rig.overlays["b"]) > 0)
    for _ in range(3):
        rig.step("a")
    fresh(rig)
    before = rig.now
    rig.until(
        lambda: (
            (status := camera_status(rig, "b")) is not None
            and status.level == b"\x01"
            and "stale" in status.message
        ),
        cameras="a",
    )
    assert len(rig.overlays["a"]) > 0 and not rig.overlays["b"]
    # Best effort on a busy machine: of those sent, nearly all come back.
    assert len(rig.clouds) >= 0.6 * round((rig.now - before) / 0.1)
    fresh(rig)
    rig.until(lambda: bool(rig.overlays["b"]))


def test_a_camera_that_nobody_publishes_or_of_another_type_is_told(
    model: Path, environment: dict[str, str], talker: Peer
) -> None:
    """The topic mistyped, or the raw image's name without /compressed: nothing would ever come."""
    from sensor_msgs.msg import CompressedImage

    talker.ros.create_publisher(CompressedImage, "/cam_y/image_raw", 1)
    cameras = "cameras:=[/cam_x/image_raw,/cam_y/image_raw]"
    cloud = message(structured(random_sweep(100)))
    with running("typo", f"model:={model}", cameras, environment=environment):
        for camera, reason in (
            ("cam_x", "no image yet: nobody publishes /cam_x/image_raw"),
            ("cam_y", "/cam_y/image_raw is sensor_msgs/msg/CompressedImage, expected sensor_msgs"),
        ):
            name = f"/typo: camera {camera}"
            status = talker.diagnostics(name, lambda s: "waiting" not in s.message, cloud)
            assert status.level == b"\x01" and reason in status.message


def test_all_cameras_and_tf_may_stop(rig: Rig) -> None:
    fresh(rig)
    for _ in range(15):
        rig.step("", tf=False)
    assert len(rig.clouds) >= 9
    if HAS_TF:
        told = [s for r in rig.reports for s in r.status if s.name == "/seeing: transforms"]
        assert told[-1].level == b"\x01" and "no pose on /tf for " in told[-1].message
    assert not rig.overlays["a"] or rig.overlays["a"][-1].header.stamp.sec < rig.now - 1
    fresh(rig)
    rig.until(lambda: bool(rig.overlays["a"] and rig.overlays["b"]))


@pytest.mark.parametrize("fault", ["jpeg", "truncated", "no stamp", "encoding"])
def test_a_bad_image_is_reported_and_the_next_good_one_is_drawn(
    fault: str, rig: Rig, seeing: Any
) -> None:
    from rclpy.serialization import serialize_message

    camera = "a" if fault == "encoding" else "b"

    def spoil() -> Any:
        bad = rig.image(camera, rig.now + 0.1)
        if fault == "jpeg":
            bad.data = b"\xff\xd8 this is no picture"
        if fault == "truncated":
            return serialize_message(bad)[:30]
        if fault == "no stamp":
            bad.header.stamp.sec = bad.header.stamp.nanosec = 0
        if fault == "encoding":
            bad.encoding = "thermal99"
        return bad

    def refused() -> int:
        status = camera_status(rig, camera)
        return int({v.key: v.value for v in status.values}["refused"]) if status else -1

    def told() -> bool:
        rig.images[camera].publish(spoil())
        status = camera_status(rig, camera)
        return status is not None and status.message != "ok" and refused() > before

    fresh(rig)
    rig.until(lambda: refused() >= 0)
    before = refused()
    fresh(rig)
    rig.until(told, cameras="a" if camera == "b" else "b")
    assert rig.clouds and seeing.poll() is None
    fresh(rig)
    rig.until(lambda: bool(rig.overlays[camera]))


def test_time_that_jumps_back_brings_new_overlays(rig: Rig) -> None:
    rig.until(lambda: bool(rig.overlays["a"]))
    rig.now = BEGIN + 1.0
    fresh(rig)
    rig.until(lambda: any(o.header.stamp.sec <= BEGIN + 60 for o in rig.overlays["a"]))
    rig.until(lambda: bool(rig.overlays["b"]))


def test_without_tf_a_file_of_mounts_does(
    model: Path, environment: dict[str, str], talker: Peer, tmp_path: Path
) -> None:
    from sensor_msgs.msg import Image

    file = tmp_path / "mounts.yaml"
    file.write_text(yaml.safe_dump({"frames": [mount("a")]}))
    rig = Rig(talker, tf=False)
    parameters = [f"model:={model}", f"cameras:=[{RAW}]", f"extrinsics:={file}"]
    with running("mounted", *parameters, environment=environment):
        heard = talker.listen(Image, "/mounted/overlay/cam_a")
        rig.until(lambda: bool(heard), cameras="a", lag=0.0, tf=False)


@pytest.mark.skipif(not HAS_TF, reason="PyPI has no tf2_msgs")
def test_a_frame_that_tf_lacks_is_named(
    model: Path, environment: dict[str, str], talker: Peer
) -> None:
    from diagnostic_msgs.msg import DiagnosticArray

    rig = Rig(talker)
    reports: list[Any] = []
    with running("lost", f"model:={model}", f"cameras:=[{GHOST}]", environment=environment):
        heard = talker.listen(DiagnosticArray, "/diagnostics")

        def told() -> bool:
            found = (s for r in heard for s in r.status if s.name == "/lost: transforms")
            reports.extend(s for s in found if s.level == b"\x01")
            return bool(reports)

        rig.until(told, cameras="c")
    assert "no frame 'cam_c'" in reports[0].message and "lidar" in reports[0].message


def test_images_wait_in_the_middleware_until_someone_looks(talker: Peer) -> None:
    """No callback a message: the executor's work for six cameras was most of the node's."""
    from afov_ros.cameras import CameraInput

    rig = Rig(talker, tf=False)
    camera = CameraInput(talker.ros, JPEG)
    handed_out: list[Any] = []
    camera._images.callback = handed_out.append

    def send(seconds: float) -> None:
        rig.images["b"].publish(rig.image("b", seconds))
        talker.executor.spin_once(timeout_sec=0.1)

    talker.spin_until(lambda: bool(send(BEGIN) or camera.look()))
    for seconds in (BEGIN + 1, BEGIN + 2):
        send(seconds)
    talker.spin_until(lambda: camera.age((BEGIN + 2) * 10**9) == 0.0)
    first, again = camera.look(), camera.look()
    assert first is not None and first is again  # kept until there is another
    message = rig.image("b", BEGIN + 2)
    pixels, once_more = (camera._pixels(seen[1], message) for seen in (first, again))
    assert pixels is once_more and pixels.shape == (HEIGHT, WIDTH, 3)
    assert camera._pixels(bytes(bytearray(first[1])), message) is not pixels
    send(BEGIN + 3)
    time.sleep(0.5)
    camera.forget()
    assert camera.look() is None  # nor does one come back that nobody had looked at
    assert not handed_out
    camera.destroy()
    assert camera.look() is None
