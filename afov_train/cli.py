"""The command lines. Heavy imports wait until the flags are read, so that --help is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TypeVar

import tyro

from afov.config import load_yaml
from afov.errors import InputError

C = TypeVar("C")


def configured(cls: type[C], prog: str, args: list[str]) -> C:
    """Settings from the class's defaults, then `--config FILE` (YAML), then flags."""
    default: Any = None
    if "--config" in args:
        place = args.index("--config")
        if place + 1 == len(args):
            raise InputError("--config: expected a YAML file behind it")
        default = load_yaml(cls, Path(args[place + 1]))
        args = args[:place] + args[place + 2 :]
    return tyro.cli(cls, prog=prog, args=args, default=default or cls())


def train(args: list[str] | None = None) -> int:
    """afov-train: from a recorded drive to a model folder."""
    from afov_train.config import TrainConfig

    try:
        config = configured(TrainConfig, "afov-train", sys.argv[1:] if args is None else args)
        if config.inspect:
            from afov_train.inspect import inspect

            inspect(config)
        else:
            from afov_train.pipeline import train as run

            run(config)
    except InputError as error:
        return _refuse("afov-train", error)
    return 0


def sim(args: list[str] | None = None) -> int:
    """afov-sim: a simulated drive, as recordings have it."""
    from afov_train.simulation.command import SimCommand

    try:
        command = configured(SimCommand, "afov-sim", sys.argv[1:] if args is None else args)
        command.run()
    except InputError as error:
        return _refuse("afov-sim", error)
    return 0


def _refuse(program: str, error: InputError) -> int:
    print(f"{program}: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(train())
