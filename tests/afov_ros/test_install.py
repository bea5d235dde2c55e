"""The layout in which `ros2 launch` and `ros2 run` find the package."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

import pytest

from tests.afov_ros.conftest import Peer

PREFIX = Path(sys.prefix)
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not (PREFIX / "share/afov_ros").is_dir(), reason="the ROS package is built by `make ros`"
)


def test_the_ament_index_knows_the_package() -> None:
    assert (PREFIX / "share/ament_index/resource_index/packages/afov_ros").is_file()
    assert (PREFIX / "share/afov_ros/package.xml").is_file()


def test_ros2_run_finds_an_executable() -> None:
    program = PREFIX / "lib/afov_ros/afov_node"
    assert os.access(program, os.X_OK)
    assert program.read_text().startswith("#!/usr/bin/env python3\n")


def test_launch_file_occurs_once_with_what_it_names() -> None:
    share = PREFIX / "share/afov_ros"
    (launch,) = share.rglob("*.launch.py")
    assert launch == share / "launch/afov.launch.py"
    assert (share / "config/fastdds.xml").is_file()
    assert (share / "rviz/afov.rviz").is_file()


def test_installed_modules_are_those_of_the_checkout() -> None:
    import afov_ros.msg

    installed = Path(afov_ros.msg.__file__).parents[1]
    for module in (ROOT / "afov_ros").glob("*.py"):
        if module.name != "__init__.py":
            assert (installed / module.name).read_text() == module.read_text(), "run `make ros`"


def test_every_launch_argument_has_a_description() -> None:
    # launch is not on PyPI: the table is read, not run.
    tree = ast.parse((ROOT / "launch/afov.launch.py").read_text())
    tables = {
        getattr(node.targets[0], "id", ""): node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
    }
    rows = tables["ARGUMENTS"]
    assert isinstance(rows, ast.Tuple)
    texts = {ast.literal_eval(r.elts[0]): ast.literal_eval(r.elts[2]) for r in rows.elts}  # type: ignore[attr-defined]
    assert {"model", "cloud", "namespace", "bag", "log_level", "use_sim_time", "rviz"} <= set(texts)
    assert all(text.endswith(".") and len(text) > 10 for text in texts.values())


def test_the_parameter_file_and_the_docs_are_those_of_the_code() -> None:
    from afov_ros.parameters import parameter_file, table

    assert (ROOT / "config/afov.yaml").read_text() == parameter_file()
    assert table() in (ROOT / "docs/node.md").read_text()


def test_every_parameter_is_described(peer: Peer) -> None:
    from rcl_interfaces.srv import DescribeParameters

    from afov_ros.parameters import LIVE

    request = DescribeParameters.Request(names=list(LIVE))
    answer = peer.call(DescribeParameters, "/afov/describe_parameters", request)
    assert len(answer.descriptors) == len(LIVE)
    for about in answer.descriptors:
        assert about.description.endswith(".")
        assert ("changes live" in about.additional_constraints) == LIVE[about.name]
    limits = {d.name: d for d in answer.descriptors}["threshold"].floating_point_range[0]
    assert (limits.from_value, limits.to_value) == (0.0, 1.0)
