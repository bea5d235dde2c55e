"""A ROS 2 MCAP, as rosbag2 records a vehicle."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from afov.clouds import point_fields
from afov.frames import CameraImage, Frame
from afov.transforms import inverse, quaternion_from
from afov_train.simulation.rig import RIG

CLOUD = np.dtype(
    [
        ("x", "<f4"),
        ("y", "<f4"),
        ("z", "<f4"),
        ("intensity", "<f4"),
        ("ring", "<u2"),
        ("time", "<f4"),
    ]
)
TRUTH = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("class_id", "u1"), ("instance_id", "<u2")]
)


def jpeg(image: np.ndarray) -> bytes:
    """The one encoding that all writers share, so that all formats hold the same pixels."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def cloud_of(frame: Frame) -> np.ndarray:
    """(N,) of dtype `CLOUD`."""
    points = np.zeros(len(frame.sweep), CLOUD)
    for name, column in zip(frame.sweep.fields, frame.sweep.points.T, strict=True):
        points[name] = column
    return points


def truth_of(frame: Frame) -> np.ndarray:
    """(N,) of dtype `TRUTH`; class_id is the raw nuScenes index."""
    assert frame.truth is not None
    points = np.zeros(len(frame.sweep), TRUTH)
    for i, name in enumerate("xyz"):
        points[name] = frame.sweep.points[:, i]
    points["class_id"], points["instance_id"] = frame.truth.raw, frame.truth.instance_id
    return points


def world_from_base(frame: Frame, image: CameraImage | None = None) -> np.ndarray:
    """(4, 4) pose of the vehicle at the sweep's stamp, or at an image's."""
    assert frame.world_from_lidar is not None
    if image is None:
        return frame.world_from_lidar @ inverse(RIG.base_from_lidar)
    world_from_camera = frame.world_from_lidar @ inverse(image.camera_from_lidar)
    return world_from_camera @ inverse(RIG.base_from_camera[image.name])


def write_mcap(frames: Iterable[Frame], path: Path) -> None:
    """Writes frames as they come; truth lies on /truth/lidar_top, which only evaluation reads."""
    from rosbags.typesys import Stores, get_typestore

    bag = _Mcap(path, get_typestore(Stores.ROS2_JAZZY))
    with bag:
        first = True
        for frame in frames:
            if first:
                bag.static_transforms(frame)
                first = False
            bag.frame(frame)


class _Mcap:
    """Messages of the typestore, into one file."""

    def __init__(self, path: Path, store: Any) -> None:
        self.path, self.store = path, store
        self.channels: dict[str, int] = {}

    def __enter__(self) -> _Mcap:
        from mcap.writer import CompressionType, Writer

        self.stream = self.path.open("wb")
        # JPEGs do not shrink any further, so compression would only cost time.
        self.writer = Writer(self.stream, compression=CompressionType.NONE)
        self.writer.start(profile="ros2", library="afov-sim")
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.finish()
        self.stream.close()

    def make(self, kind: str, *values: Any) -> Any:
        return self.store.types[kind](*values)

    def header(self, stamp: int, frame_id: str) -> Any:
        time = self.make("builtin_interfaces/msg/Time", stamp // 10**9, stamp % 10**9)
        return self.make("std_msgs/msg/Header", time, frame_id)

    def put(self, topic: str, message: Any, log_time: int) -> None:
        kind = message.__msgtype__
        if topic not in self.channels:
            text = self.store.generate_msgdef(kind)[0].encode()
            schema = self.writer.register_schema(kind, "ros2msg", text)
            self.channels[topic] = self.writer.register_channel(topic, "cdr", schema)
        data = bytes(self.store.serialize_cdr(message, kind))
        self.writer.add_message(self.channels[topic], log_time, data, log_time)

    def transform(self, stamp: int, parent: str, child: str, matrix: np.ndarray) -> Any:
        q, t = quaternion_from(matrix), matrix[:3, 3]
        motion = self.make(
            "geometry_msgs/msg/Transform",
            self.make("geometry_msgs/msg/Vector3", *map(float, t)),
            self.make("geometry_msgs/msg/Quaternion", *map(float, q)),
        )
        kind = "geometry_msgs/msg/TransformStamped"
        return self.make(kind, self.header(stamp, parent), child, motion)

    def static_transforms(self, frame: Frame) -> None:
        stamp = frame.sweep.stamp - 10**9
        mounts = {"lidar_top": RIG.base_from_lidar, **RIG.base_from_camera}
        transforms = [self.transform(stamp, "base_link", n, m) for n, m in mounts.items()]
        self.put("/tf_static", self.make("tf2_msgs/msg/TFMessage", transforms), stamp)

    def pose(self, stamp: int, matrix: np.ndarray) -> None:
        moved = [self.transform(stamp, "map", "base_link", matrix)]
        self.put("/tf", self.make("tf2_msgs/msg/TFMessage", moved), stamp)

    def cloud(self, topic: str, stamp: int, points: np.ndarray, log_time: int) -> None:
        fields = [
            self.make("sensor_msgs/msg/PointField", *field) for field in point_fields(points.dtype)
        ]
        step, count = points.dtype.itemsize, len(points)
        data = np.frombuffer(points.tobytes(), np.uint8)
        head = self.header(stamp, "lidar_top")
        values = (head, 1, count, fields, False, step, step * count, data, True)
        self.put(topic, self.make("sensor_msgs/msg/PointCloud2", *values), log_time)

    def frame(self, frame: Frame) -> None:
        for image in sorted(frame.images, key=lambda i: i.stamp):
            self.pose(image.stamp, world_from_base(frame, image))
            self.image(image)
        stamp = frame.sweep.stamp
        self.pose(stamp, world_from_base(frame))
        # Drivers deliver late: log times differ from stamps, as in real recordings.
        self.cloud("/lidar_top", stamp, cloud_of(frame), stamp + 8_000_000)
        if frame.truth is not None:
            self.cloud("/truth/lidar_top", stamp, truth_of(frame), stamp + 9_000_000)

    def image(self, image: CameraImage) -> None:
        late = image.stamp + 15_000_000
        head = self.header(image.stamp, image.name)
        data = np.frombuffer(jpeg(image.image), np.uint8)
        picture = self.make("sensor_msgs/msg/CompressedImage", head, "jpeg", data)
        camera = image.camera
        P = np.column_stack((camera.K, np.zeros(3)))
        info = self.make(
            "sensor_msgs/msg/CameraInfo", head, camera.height, camera.width, "plumb_bob",
            np.zeros(5), camera.K.ravel(), np.eye(3).ravel(), P.ravel(), 0, 0,
            self.make("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False),
        )  # fmt: skip
        self.put(f"/{image.name}/camera_info", info, late)
        self.put(f"/{image.name}/image_rect_compressed", picture, late)
