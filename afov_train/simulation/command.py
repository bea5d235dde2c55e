"""afov-sim: a simulated drive in the formats that recordings come in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from afov.errors import InputError
from afov_train.simulation.config import SimConfig

KINDS = ("mcap", "foxglove", "nuscenes")


@dataclass(frozen=True)
class SimCommand:
    """A drive through streets that exist nowhere, with truth beside it."""

    out: str = ""
    """drive.mcap (ROS 2), foxglove:drive.mcap (as nuscenes2mcap writes it), or nuscenes:DIR."""
    drive: Annotated[SimConfig, tyro.conf.arg(name="")] = field(default_factory=SimConfig)

    def run(self) -> Path:
        """Simulates the drive and writes it.

        Returns:
            The file, or the nuScenes tree's folder.
        """
        kind, colon, rest = self.out.partition(":")
        if not colon:
            kind, rest = "mcap", self.out
        if kind not in KINDS or not rest or (kind != "nuscenes" and not rest.endswith(".mcap")):
            raise InputError(
                f"--out {self.out!r}: expected FILE.mcap, foxglove:FILE.mcap or nuscenes:DIR"
            )
        path = Path(rest)
        write(kind, path, self.drive)
        return path


def write(kind: str, path: Path, config: SimConfig) -> None:
    """Simulates a drive into a ROS 2 MCAP, a Foxglove MCAP or a nuScenes tree."""
    from afov_train.progress import track
    from afov_train.simulation.drive import simulate

    frames = track(simulate(config), "simulate", config.streets * config.frames_per_street)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "mcap":
        from afov_train.simulation.write_mcap import write_mcap

        write_mcap(frames, path)
    elif kind == "foxglove":
        from afov_train.simulation.write_foxglove import write_foxglove

        write_foxglove(frames, path)
    else:
        from afov_train.simulation.write_nuscenes import write_nuscenes

        write_nuscenes(frames, path, per_scene=config.frames_per_street, rate=config.rate)
