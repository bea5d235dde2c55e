"""A run's folder: time-stamped, with what it was run with; `latest` points to the newest."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import time
from pathlib import Path
from typing import Protocol

import yaml

from afov.config import to_dict

PACKAGES = ("afov", "torch", "open_clip_torch", "lightning", "onnxruntime", "numpy")


class RunConfig(Protocol):
    """A frozen dataclass of settings that says where its run goes."""

    @property
    def runs(self) -> Path: ...

    @property
    def run(self) -> Path | None: ...


def open_run(config: RunConfig) -> Path:
    """Makes (or takes up) the run folder and writes config.yaml and versions.json into it."""
    folder = config.run
    if folder is None:
        folder = config.runs / time.strftime("%Y-%m-%d_%H-%M-%S")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(to_dict(config), sort_keys=False))
    (folder / "versions.json").write_text(json.dumps(versions(), indent=1))
    if config.run is None:
        latest = config.runs / "latest"
        if latest.is_symlink() or not latest.exists():
            latest.unlink(missing_ok=True)
            latest.symlink_to(folder.name)
    return folder


def versions() -> dict[str, str]:
    """Python, the packages that results depend on, and the code itself."""
    found = {"python": platform.python_version()}
    for package in (*PACKAGES, "spconv-cu120", "spconv-cu126"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | git_state()


def git_state() -> dict[str, str]:
    """The commit this code stands at, and whether files differ from it; empty outside a clone."""
    here = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit, changed = (
            subprocess.run([*here, *what], capture_output=True, text=True, check=True).stdout
            for what in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"git": commit.strip() + (" with changes" if changed else "")}
