"""A Foxglove MCAP as nuscenes2mcap writes it: protobuf, no profile, everything logged at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from afov.frames import Frame
from afov.transforms import quaternion_from
from afov_train.simulation.rig import RIG
from afov_train.simulation.write_mcap import jpeg, truth_of, world_from_base

# Foxglove's numeric types.
NUMBERS: dict[str, Any] = {"|u1": 1, "<u2": 3, "<f4": 7}
COLUMNS = ("x", "y", "z", "intensity", "ring")


def write_foxglove(frames: Iterable[Frame], path: Path, *, upper_case: bool = False) -> None:
    """Writes frames as they come.

    Args:
        upper_case: topics as nuscenes2mcap had them until 2026, /LIDAR_TOP and /CAM_FRONT/...
    """
    from mcap_protobuf.writer import Writer

    with path.open("wb") as stream, Writer(stream) as writer:
        for frame in frames:
            _Messages(writer, frame, upper_case).write()


class _Messages:
    """One frame's messages, logged at the sweep's time whatever their own is."""

    def __init__(self, writer: Any, frame: Frame, upper_case: bool) -> None:
        self.writer, self.frame, self.upper_case = writer, frame, upper_case

    def put(self, name: str, rest: str, message: Any) -> None:
        topic = f"/{name.upper() if self.upper_case else name}{rest}"
        stamp = self.frame.sweep.stamp
        self.writer.write_message(topic, message, log_time=stamp, publish_time=stamp)

    def write(self) -> None:
        from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
        from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage

        sweep = self.frame.sweep
        self.pose(sweep.stamp, "map", "base_link", world_from_base(self.frame))
        self.pose(sweep.stamp, "base_link", "lidar_top", RIG.base_from_lidar)
        for image in self.frame.images:
            self.pose(image.stamp, "map", "base_link", world_from_base(self.frame, image))
            self.pose(image.stamp, "base_link", image.name, RIG.base_from_camera[image.name])
        points = np.zeros(len(sweep), [(name, "<f4") for name in COLUMNS])
        for name in COLUMNS:
            points[name] = sweep.points[:, sweep.fields.index(name)]
        self.cloud("lidar_top", points)
        if self.frame.truth is not None:
            self.cloud("truth/lidar_top", truth_of(self.frame))
        for image in self.frame.images:
            camera = image.camera
            info = CameraCalibration(
                frame_id=image.name, width=camera.width, height=camera.height,
                K=camera.K.ravel(), R=np.eye(3).ravel(),
                P=np.column_stack((camera.K, np.zeros(3))).ravel(),
            )  # fmt: skip
            picture = CompressedImage(frame_id=image.name, format="jpeg", data=jpeg(image.image))
            info.timestamp.FromNanoseconds(image.stamp)
            picture.timestamp.FromNanoseconds(image.stamp)
            self.put(image.name, "/camera_info", info)
            self.put(image.name, "/image_rect_compressed", picture)

    def pose(self, stamp: int, parent: str, child: str, matrix: np.ndarray) -> None:
        from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform

        message = FrameTransform(parent_frame_id=parent, child_frame_id=child)
        message.timestamp.FromNanoseconds(stamp)
        t, r = message.translation, message.rotation
        t.x, t.y, t.z = map(float, matrix[:3, 3])
        r.x, r.y, r.z, r.w = map(float, quaternion_from(matrix))
        stamp = self.frame.sweep.stamp
        self.writer.write_message("/tf", message, log_time=stamp, publish_time=stamp)

    def cloud(self, name: str, points: np.ndarray) -> None:
        from foxglove_schemas_protobuf.PackedElementField_pb2 import PackedElementField
        from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud

        assert points.dtype.fields is not None
        message = PointCloud(
            frame_id="lidar_top",
            point_stride=points.dtype.itemsize,
            fields=[
                PackedElementField(name=field, offset=offset, type=NUMBERS[kind.str])
                for field, (kind, offset, *_) in points.dtype.fields.items()
            ],
            data=points.tobytes(),
        )
        message.timestamp.FromNanoseconds(self.frame.sweep.stamp)
        self.put(name, "", message)
