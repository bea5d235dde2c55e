"""The node's parameters: declared here once, with what each one means and when it takes effect."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from afov.afi import Mode
from afov.errors import InputError
from afov.runtimes import RuntimeName
from afov.sources.bag_topics import CameraTopics

MODES: tuple[str, ...] = get_args(Mode)
TOPIC = re.compile(r"(~/|/)?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)


def _parameter(
    default: Any,
    text: str,
    *,
    live: bool = False,
    least: float | None = None,
    greatest: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    about = {
        "text": text,
        "live": live,
        "least": least,
        "greatest": greatest,
        "choices": choices,
    }
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Settings:
    """The parameters' values, checked; those that are not live are read at configure."""

    model: str = _parameter("", "Model folder that afov-train exported.")
    runtime: str = _parameter("auto", "What runs the network.", choices=get_args(RuntimeName))
    vocabulary: str | tuple[str, ...] = _parameter(
        "",
        "YAML file, preset or list of phrases; empty for the trained vocabulary.",
        live=True,
    )
    intensity_scale: float = _parameter(
        1.0, "Brings the sensor's intensity to 0..255, as in training.", least=1e-6, greatest=1e6
    )
    threshold: float = _parameter(
        0.0, "Less probable points are published as unknown (255).", live=True, least=0, greatest=1
    )
    afi: Mode = _parameter(  # noqa: RUF009
        "off",
        "Geometry corrects the labels, which takes longer.",
        live=True,
        choices=MODES,
    )
    queue: int = _parameter(
        1, "Clouds that may wait; 1 keeps the latency of a slow machine low.", least=1, greatest=100
    )
    autostart: bool = _parameter(True, "Configure and activate at the start.")
    cameras: tuple[str, ...] = _parameter(
        ("",),
        "Image topics; those that end in compressed are CompressedImage. The camera_info lies "
        "beside each.",
    )
    camera_tolerance: float = _parameter(
        0.1,
        "Most seconds between a sweep and a camera's image.",
        live=True,
        least=0,
        greatest=10,
    )
    overlay_width: int = _parameter(
        800, "Width of the overlay images, pixels.", live=True, least=64, greatest=4096
    )
    extrinsics: str = _parameter("", "YAML file with mounts of the sensors, where tf lacks them.")
    filter_classes: tuple[str, ...] = _parameter(
        ("",), "Classes that ~/filtered leaves out, by name.", live=True
    )
    filter_probability: float = _parameter(
        0.0, "Only points at least this probable are left out.", live=True, least=0, greatest=1
    )
    ego_frame: str = _parameter("base_link", "Frame of ego_box.", live=True)
    ego_box: tuple[float, ...] = _parameter(
        (0.0,) * 6,
        "What ~/filtered crops: least x y z, greatest x y z, metres in ego_frame; zeros for none.",
        live=True,
    )
    fixed_frame: str = _parameter(
        "odom", "Frame that stands still: things are followed in it.", live=True
    )
    embedding: bool = _parameter(False, "Offer ~/embedding: large, E floats a point.")
    max_allowed_processing_time_ms: float = _parameter(
        100.0, "A slower sweep is a warning.", live=True, least=1, greatest=60000
    )
    max_acceptable_consecutive_delay_ms: float = _parameter(
        1000.0, "As long without a sweep in time is an error.", live=True, least=1, greatest=600000
    )

    def __post_init__(self) -> None:
        for one in fields(self):
            choices, value = one.metadata["choices"], getattr(self, one.name)
            if choices and value not in choices:
                raise InputError(
                    f"parameter {one.name!r}: expected {', '.join(choices)}, got {value!r}"
                )
        if not isinstance(self.vocabulary, str) and (
            not isinstance(self.vocabulary, tuple)
            or not all(isinstance(phrase, str) for phrase in self.vocabulary)
        ):
            raise InputError(
                "parameter 'vocabulary': expected a file, a preset or a list of phrases, got "
                f"{self.vocabulary!r}"
            )
        named: dict[str, str] = {}
        for topic in self.cameras:
            if not TOPIC.fullmatch(topic):
                raise InputError(f"parameter 'cameras': {topic!r} is no topic's name")
            other = named.setdefault(CameraTopics.of(topic).name, topic)
            if other is not topic:
                raise InputError(
                    f"parameter 'cameras': {other!r} and {topic!r} lie in one namespace, where "
                    "there is one camera_info; remap one of them"
                )
        box = self.ego_box
        if len(box) != 6 or not all(map(math.isfinite, box)):
            raise InputError(f"parameter 'ego_box': expected six finite metres, got {list(box)}")
        if any(box) and not all(a < b for a, b in zip(box[:3], box[3:], strict=True)):
            raise InputError(
                f"parameter 'ego_box': expected least x y z below greatest x y z, got {list(box)}"
            )

    @classmethod
    def read(cls, node: Any, changed: dict[str, Any] | None = None) -> Settings:
        """The node's parameters, with those that are about to change.

        Raises:
            InputError: a value that cannot be.
        """
        values = {f.name: node.get_parameter(f.name).value for f in fields(cls)} | (changed or {})
        for name, value in values.items():
            if isinstance(value, str) and value.startswith("~/"):
                values[name] = str(Path(value).expanduser())  # no shell does it behind :=
            if not isinstance(value, str | int | float):
                # ROS has no empty list of text: [""] stands for it.
                values[name] = tuple(v for v in value or () if v != "")
        return cls(**values)

    def unknown_classes(self, names: Sequence[str]) -> str:
        """What `filter_classes` names and a vocabulary lacks, in words; "" for nothing."""
        unknown = [name for name in self.filter_classes if name not in names]
        if not unknown:
            return ""
        return f"filter_classes: no class {', '.join(unknown)}; there are {', '.join(names[1:])}"


# Whether a parameter may change while the node is configured.
LIVE = {f.name: bool(f.metadata["live"]) for f in fields(Settings)}


def declare(node: Any) -> None:
    """Declares every parameter with its description and range."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    for one in fields(Settings):
        about = one.metadata
        descriptor = ParameterDescriptor(
            description=about["text"],
            additional_constraints=constraints(about),
            dynamic_typing=one.name == "vocabulary",
        )
        if about["least"] is not None:
            whole = isinstance(one.default, int)
            limits = IntegerRange() if whole else FloatingPointRange()
            kind = int if whole else float
            limits.from_value, limits.to_value = kind(about["least"]), kind(about["greatest"])
            ranges = descriptor.integer_range if whole else descriptor.floating_point_range
            ranges.append(limits)
        default = list(one.default) if isinstance(one.default, tuple) else one.default
        node.declare_parameter(one.name, default, descriptor)
    # ROS says nothing of a name that no node declares.
    for name in getattr(node, "_parameter_overrides", {}):
        if not node.has_parameter(name):
            meant = "".join(f"; is it {m!r}?" for m in get_close_matches(name, LIVE, 1))
            node.get_logger().warning(f"there is no parameter {name!r}{meant}")


def constraints(about: Any) -> str:
    """What a value may be and when it takes effect, in words."""
    words = [f"one of {', '.join(about['choices'])}"] if about["choices"] else []
    if about["least"] is not None:
        words.append(f"{about['least']} to {about['greatest']}")
    words.append("changes live" if about["live"] else "read at configure")
    return "; ".join(words)


def table() -> str:
    """The parameters as Markdown, for docs/node.md."""
    rows = ["| parameter | default | what | |", "|---|---|---|---|"]
    for one in fields(Settings):
        shown = [] if one.default == ("",) else one.default
        shown = list(shown) if isinstance(shown, tuple) else shown
        rows.append(
            f"| `{one.name}` | `{shown!r}` | {one.metadata['text']} | {constraints(one.metadata)} |"
        )
    return "\n".join(rows) + "\n"


def parameter_file() -> str:
    """Every parameter at its default, with what it means: config/afov.yaml."""
    made = "# Made by `python -m afov_ros.parameters --yaml`; `ros2 param describe` tells the same."
    lines = [made, "/**:", "  ros__parameters:"]
    for one in fields(Settings):
        if one.name not in ("model", "autostart"):  # the launch file sets them
            lines.append(f"    # {one.metadata['text']} ({constraints(one.metadata)})")
            value = list(one.default) if isinstance(one.default, tuple) else one.default
            lines.append(f"    {one.name}: {json.dumps(value)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(parameter_file() if "--yaml" in sys.argv[1:] else table(), end="")
