"""The method in one screen: teach, pre-train (TMP), distil, export, evaluate."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch

from afov.clouds import unusual_intensity
from afov.errors import InputError
from afov.frames import Source, Sweep
from afov.inputs import inputs
from afov.sources.bags import TRUTH, BagSource
from afov.sources.nuscenes import NuScenesSource
from afov.student import Student
from afov.text_bank import TextBank
from afov.vocabulary import Vocabulary
from afov.voxels import VoxelGrid
from afov_train.config import FinetuneConfig, TrainConfig
from afov_train.distill import closed_bank, distill
from afov_train.evaluate import evaluate
from afov_train.evaluation import Evaluation
from afov_train.export import export_student
from afov_train.network.unet import UNet, build_network
from afov_train.nuscenes_eval import Submission, evaluate_officially, evaluate_panoptic_officially
from afov_train.pretrain import pretrain
from afov_train.ranks import on_first, ranks
from afov_train.recordings import Recording, open_recordings
from afov_train.rehearsal import rehearse
from afov_train.report import write_report
from afov_train.run_folder import open_run, versions
from afov_train.taught import TaughtSweep
from afov_train.teach import teach
from afov_train.teachers import build_teacher
from afov_train.teachers.config import EMBEDDED
from afov_train.teachers.segments import Teacher
from afov_train.teachers.text_onnx import text_tower

STRANGER = f"""
WARNING: the teacher {EMBEDDED} has only ever seen simulated streets. It cannot know the real
world, and what it teaches about this recording will be wrong. Name a real model:
  --teacher.model ViT-B-16 --teacher.pretrained TAG   (downloaded)
  --teacher.model ViT-B-16 --teacher.weights FILE     (local)
"""


def train(config: TrainConfig) -> Path:
    """From a recording to a model folder.

    Returns:
        The run folder; the model lies in its `model/`.
    """
    sources = open_recordings(config.recording)
    vocabulary = Vocabulary.load(config.vocabulary)
    check_inputs(sources, config.network.inputs)
    if config.test != Recording():
        open_recordings(config.test, truth=True)  # better refused now than after the training
    run = on_first(lambda: open_run(config))
    if (
        config.teacher.model == EMBEDDED
        and config.teacher.imported is None
        and not all(map(simulated, sources))
    ):
        print(STRANGER, file=sys.stderr)

    teacher = build_teacher(config.teacher, vocabulary, run / "teacher")
    on_first(lambda: rehearse(config, sources, teacher, run))
    if config.until == "rehearse":
        return run
    taught = teach_all(config, sources, teacher, run)
    if config.until == "teach":
        return run
    bank = teacher.text_bank
    torch.manual_seed(config.distill.seed)
    network = build_network(config.network, bank.embeddings.shape[1])
    setup = config.network, config.grid
    if config.pretrain.wanted:
        pretrain(network, taught, bank, *setup, config.pretrain, run / "pretrain")
    if config.until == "pretrain":
        return run
    if config.distill.head == "closed":
        bank = closed_bank(vocabulary)
        network.with_head(bank.embeddings.shape[1])
    for number in range(1, config.rounds):
        student, folder = deepcopy(network), run / f"distill-{number}"
        distill(student, taught, bank, *setup, config.distill, folder)
        data = student, bank, taught, folder / "model"
        model = on_first(partial(export, config, sources, teacher, *data))
        taught = teach_all(config, sources, teacher, run, model)
    distill(network, taught, bank, *setup, config.distill, run / "distill")
    if config.until == "distill" or ranks()[0] > 0:
        return run
    model = export(config, sources, teacher, network, bank, taught, run / "model")
    evaluation = None
    try:
        evaluation = judge(config, Student.open(model), teacher, run)
    except InputError as error:
        print(f"not evaluated: {error}")
    print(f"report: {write_report(run, evaluation)}")
    print(f"model folder: {model}")
    return run


def teach_all(
    config: TrainConfig,
    sources: Sequence[Source],
    teacher: Teacher,
    run: Path,
    model: Path | None = None,
) -> list[Path]:
    """Pseudo-labels of all recordings; from the second round on a student has a say in them.

    Args:
        model: folder of the last round's student.
    """

    def work() -> list[Path]:
        student = None if model is None else Student.open(model)
        folder = run / "teach"
        return [f for s in sources for f in teach(s, teacher, config.teach, folder, student)]

    return on_first(work)


def export(
    config: TrainConfig,
    sources: Sequence[Source],
    teacher: Teacher,
    network: UNet,
    bank: TextBank,
    taught: Sequence[Path],
    folder: Path,
) -> Path:
    """The model folder of a distilled student."""
    return export_student(
        network,
        config=config.network,
        grid=config.grid,
        text_bank=bank,
        temperature=config.distill.temperature,
        provenance={"recording": names(sources), "teacher": teacher.key, **versions()},
        sweep=TaughtSweep.load(taught[0]).sweep,
        folder=folder,
        text_tower=text_tower(config.teacher) if config.distill.head != "closed" else None,
        others=spread(taught),
    )


def spread(files: Sequence[Path], most: int = 100) -> Iterator[Sweep]:
    """Sweeps from all over the training data."""
    for file in files[:: -(-len(files) // most)]:
        yield TaughtSweep.load(file).sweep


def names(sources: Sequence[Source]) -> str:
    """What the model folder says it was made from."""
    return ", ".join(source.name for source in sources)


def check_inputs(sources: Sequence[Source], fields: tuple[str, ...]) -> None:
    """Whether the first sweeps have what the network is to be told, before a night of teaching.

    Raises:
        InputError: no sweep, or a field is missing.
    """
    for source in sources:
        frame = next(iter(source), None)
        if frame is None:
            raise InputError(
                f"{source.name}: no frame could be read; left out: {source.skipped or 'nothing'}"
            )
        inputs(frame.sweep, VoxelGrid().voxelize(frame.sweep.xyz), fields)
        unusual = unusual_intensity(frame.sweep) if "intensity" in fields else None
        if unusual:
            print(f"WARNING: {source.name}: {unusual}", file=sys.stderr)


def judge(config: TrainConfig, student: Student, teacher: Teacher, run: Path) -> Evaluation:
    """Our table; and for a split of nuScenes the devkit's own result beside it."""
    sources = test_sources(config)
    source, *others = sources
    official = submission = None
    if isinstance(source, NuScenesSource) and source.official and not others:
        official = source
        submission = Submission(run / "nuscenes", str(official.split))
    result = evaluate(sources, student, teacher, config.teach, submission)
    print(result)
    result.save(run)
    if official and submission:
        theirs = evaluate_officially(official, submission.folder)
        print(f"nuscenes-devkit on {official.split}: mIoU {100 * theirs['miou']:.1f}")
        if result.panoptic is not None:
            everything = evaluate_panoptic_officially(official, submission.folder)["all"]
            print(f"nuscenes-devkit on {official.split}: PQ {100 * everything['PQ']:.1f}")
    return result


def simulated(source: Source) -> bool:
    """Whether the simulator made this recording: no vehicle publishes truth."""
    if isinstance(source, NuScenesSource):
        return all(log["logfile"] == "afov-sim" for log in source.nusc.log)
    return isinstance(source, BagSource) and any(
        t.name.lower().startswith(TRUTH) for t in source.reader.topics
    )


def test_sources(config: TrainConfig | FinetuneConfig) -> list[Source]:
    """The recordings that evaluation reads, with truth."""
    named = config.test if config.test != Recording() else config.recording
    return open_recordings(named, truth=True)
