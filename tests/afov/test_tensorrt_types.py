"""Every use of TensorRT exists in its published types: all that can be checked without a GPU."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WRONG = """
import tensorrt as trt
def wrong(engine: trt.ICudaEngine, context: trt.IExecutionContext) -> None:
    engine.get_binding_name(0)
    context.execute_async_v3("stream")
"""


def published_types() -> str:
    """tensorrt-stubs as Python can read them: as published they hold four slips of the pen."""
    try:
        files = importlib.metadata.files("tensorrt-stubs") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs tensorrt-stubs")
    (file,) = (f for f in files if f.name == "tensorrt.pyi")
    text = re.sub(r"\bin: ", "in_: ", Path(str(file.locate())).read_text())
    return text.replace("channel_axis: int)", "channel_axis: int = ...)") + "\n__version__: str\n"


@pytest.mark.slow
def test_the_runtime_uses_tensorrt_as_its_types_say(tmp_path):
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    (stubs / "tensorrt.pyi").write_text(published_types())
    (tmp_path / "wrong.py").write_text(WRONG)
    config = tmp_path / "mypy.ini"
    config.write_text(
        "[mypy]\nignore_missing_imports = true\ndisallow_untyped_defs = true\n"
        "follow_imports = silent\n[mypy-tensorrt]\nignore_errors = true\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", tmp_path / "cache",
         *sorted((ROOT / "afov/runtimes").glob("tensorrt_*.py")), tmp_path / "wrong.py"],
        cwd=ROOT, env={**os.environ, "MYPYPATH": str(stubs)}, capture_output=True, text=True,
    )  # fmt: skip
    errors = [line for line in run.stdout.splitlines() if ": error:" in line]
    found, *others = errors or [run.stdout + run.stderr]
    # That these two are found says that the types were read.
    assert "get_binding_name" in found and len(others) == 1 and "execute_async_v3" in others[0], (
        run.stdout + run.stderr
    )
