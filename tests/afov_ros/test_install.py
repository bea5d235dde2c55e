"""The layout in which `ros2 launch` and `ros2 run` find the package."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

import pytest

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
    (table,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ARGUMENTS"
    )
    assert {"model", "cloud", "namespace", "threshold", "runtime", "rviz"} <= {n for n, *_ in table}
    assert all(text.endswith(".") and len(text) > 10 for *_, text in table)
