"""Parameters that a hurried engineer mistypes; on real rclpy nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.parameter import Parameter

from afov.errors import InputError
from afov_ros.parameters import LIVE, Settings, declare
from tests.afov_ros.conftest import DOMAIN


@pytest.fixture(scope="module")
def context(environment: dict[str, str]) -> Iterator[Any]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    yield context
    rclpy.shutdown(context=context)


def read(context: Any, **values: Any) -> Settings:
    """What a node started with `-p name:=value` would go by."""
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = rclpy.create_node("typed", context=context, parameter_overrides=overrides)
    try:
        declare(node)
        return Settings.read(node)
    finally:
        node.destroy_node()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"vocabulary": 5}, "'vocabulary': expected a file, a preset or a list of phrases, got 5"),
        ({"vocabulary": [1, 2]}, "list of phrases"),
        ({"afi": "best"}, "expected off, paper, refined, got 'best'"),
        ({"cameras": ["/cam//image"]}, "'/cam//image' is no topic's name"),
        ({"cameras": ["/cam/image/"]}, "no topic's name"),
        ({"cameras": ["/cam/image raw"]}, "no topic's name"),
        ({"cameras": ["/stereo/left", "/stereo/right"]}, "'/stereo/left' and '/stereo/right'"),
        ({"cameras": ["/a/image", "/a/image/compressed"]}, "one namespace"),
        ({"ego_box": [0.0, 0.0, 0.0, -1.0, 1.0, 1.0]}, "least x y z below greatest"),
    ],
)
def test_a_wrong_value_is_refused_by_name(
    values: dict[str, Any], reason: str, context: Any
) -> None:
    with pytest.raises(InputError) as caught:
        read(context, **values)
    assert reason in str(caught.value)


def test_relative_and_private_camera_topics_are_names_too(context: Any) -> None:
    topics = ("cam_a/image", "~/cam_b/image", "/Cam/c/image_raw/compressed")
    assert read(context, cameras=list(topics)).cameras == topics


def test_a_home_folder_may_be_written_as_a_tilde(context: Any) -> None:
    settings = read(context, model="~/model", vocabulary="~/yard.yaml", extrinsics="mounts.yaml")
    assert settings.model == str(Path.home() / "model")
    assert settings.vocabulary == str(Path.home() / "yard.yaml")
    assert settings.extrinsics == "mounts.yaml"


def test_a_name_that_no_parameter_has_is_told(
    context: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert read(context, treshold=0.5, use_sim_time=True).threshold == 0.0
    told = [line for line in capfd.readouterr().err.splitlines() if "no parameter" in line]
    (line,) = told
    assert "there is no parameter 'treshold'; is it 'threshold'?" in line


def test_each_parameter_says_when_it_takes_effect(context: Any) -> None:
    node = rclpy.create_node("described", context=context)
    declare(node)
    for about in node.describe_parameters(list(LIVE)):
        live, at_configure = (
            w in about.additional_constraints for w in ("changes live", "read at configure")
        )
        assert live == LIVE[about.name] and live != at_configure
    node.destroy_node()
