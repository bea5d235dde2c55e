"""The command lines. Heavy imports wait until the flags are read, so that --help is instant."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TypeVar

import tyro

from afov.config import load_yaml
from afov.errors import InputError

C = TypeVar("C")
YAML = "--config FILE.yaml may hold these settings; flags win."
OTHERS = """
Others, each with a --help of its own:
  afov-train finetune   on a share of the truth
  afov-train probe      on the truth, the head alone
  afov-train panoptic   things, one by one
"""


def configured(cls: type[C], prog: str, args: list[str], default: C | None = None) -> C:
    """Settings from the class's defaults, then `--config FILE` (YAML), then flags."""
    if "--config" in args:
        place = args.index("--config")
        if place + 1 == len(args):
            raise InputError("--config: expected a YAML file behind it")
        default = load_yaml(cls, Path(args[place + 1]))
        args = args[:place] + args[place + 2 :]
    about = f"{inspect.getdoc(cls)}\n{OTHERS if prog == 'afov-train' else ''}\n{YAML}"
    return tyro.cli(cls, prog=prog, description=about, args=args, default=default or cls())


def train(args: list[str] | None = None) -> int:
    """afov-train: from a recorded drive to a model folder; finetune and probe: with truth;
    panoptic: instances, too."""
    from afov_train.config import FinetuneConfig, TrainConfig, linear_probe

    args = sys.argv[1:] if args is None else args
    try:
        if args and args[0] in ("finetune", "probe"):
            start = linear_probe() if args[0] == "probe" else FinetuneConfig()
            chosen = configured(FinetuneConfig, f"afov-train {args[0]}", args[1:], start)
            from afov_train.finetune import finetune

            finetune(chosen)
            return 0
        if args and args[0] == "panoptic":
            from afov_train.panoptic.config import PanopticTrainConfig

            wanted = configured(PanopticTrainConfig, "afov-train panoptic", args[1:])
            from afov_train.panoptic.pipeline import panoptic

            panoptic(wanted)
            return 0
        config = configured(TrainConfig, "afov-train", args)
        if config.inspect:
            from afov_train.inspect import inspect as look

            look(config)
        else:
            from afov_train.pipeline import train as run

            run(config)
    except InputError as error:
        return _refuse("afov-train", error)
    return 0


def evaluate(args: list[str] | None = None) -> int:
    """afov-eval: any model folder on any recording with truth."""
    from afov_train.config import EvalConfig
    from afov_train.recordings import open_recordings

    try:
        config = configured(EvalConfig, "afov-eval", sys.argv[1:] if args is None else args)
        sources = open_recordings(config.recording, truth=True, blind=True)
        from afov.splits import Split
        from afov.student import Student
        from afov_train.evaluate import evaluate as run
        from afov_train.report import write_report

        student = Student.open(config.model)
        split = Split.asked(student.vocabulary, config.novel, "--novel") if config.novel else None
        result = run(sources, student, split=split)
        config.out.mkdir(parents=True, exist_ok=True)
        result.save(config.out)
        print(result)
        print(f"report: {write_report(config.out, result)}")
    except InputError as error:
        return _refuse("afov-eval", error)
    return 0


def predict(args: list[str] | None = None) -> int:
    """afov-predict: a recording with its labels beside it."""
    from afov_train.predict import Predict

    try:
        configured(Predict, "afov-predict", sys.argv[1:] if args is None else args).run()
    except InputError as error:
        return _refuse("afov-predict", error)
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


def export(args: list[str] | None = None) -> int:
    """afov-export: a model folder's TensorRT engine, built and compared."""
    from afov_train.engine import ExportEngine

    try:
        configured(ExportEngine, "afov-export", sys.argv[1:] if args is None else args).run()
    except InputError as error:
        return _refuse("afov-export", error)
    return 0


def _refuse(program: str, error: InputError) -> int:
    print(f"{program}: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(train())
