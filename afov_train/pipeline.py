"""The method in one screen: teach, distil, export, evaluate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from afov import pictures
from afov.errors import InputError
from afov.student import Student
from afov.vocabulary import Vocabulary
from afov_train.config import Recording, TrainConfig, open_recording
from afov_train.distill import distill
from afov_train.evaluate import Evaluation, evaluate
from afov_train.export import export_student
from afov_train.run_folder import open_run, versions
from afov_train.teach import TaughtSweep, teach
from afov_train.teachers import build_teacher


def train(config: TrainConfig) -> Path:
    """From a recording to a model folder.

    Returns:
        The run folder; the model lies in its `model/`.
    """
    source = open_recording(config.recording)
    vocabulary = Vocabulary.load(config.vocabulary)
    run = open_run(config)

    teacher = build_teacher(config.teacher, vocabulary, run / "teacher")
    taught = teach(source, teacher, config.teach, run / "teach")
    network = distill(
        taught, teacher.text_bank, config.network, config.grid, config.distill, run / "distill"
    )
    model = export_student(
        network,
        config=config.network,
        grid=config.grid,
        text_bank=teacher.text_bank,
        temperature=config.distill.temperature,
        provenance={"recording": source.name, "teacher": teacher.key, **versions()},
        sweep=TaughtSweep.load(taught[0]).sweep,
        folder=run / "model",
    )
    student = Student.open(model)
    try:
        result = evaluate(test_recording(config), student, teacher, config.teach)
    except InputError as error:
        print(f"not evaluated: {error}")
    else:
        report(result, run)
    print(f"model folder: {model}")
    return run


def test_recording(config: TrainConfig):  # type: ignore[no-untyped-def]
    """The recording that evaluation reads, with truth."""
    named = config.test if config.test != Recording() else config.recording
    return open_recording(replace(named), truth=True)


def report(result: Evaluation, run: Path) -> None:
    """Prints the table and leaves it in the run folder."""
    print(result)
    result.save(run)


def inspect(config: TrainConfig) -> Path:
    """Says what the recording holds and draws its first sweep on its images.

    Returns:
        The picture.
    """
    recording = config.recording
    if recording.bag is not None:
        from afov.sources.inspect import inspect_bag

        from afov.sources.bags import BagTopics

        topics = BagTopics(cloud=recording.cloud_topic, images=recording.image_topics)
        summary = inspect_bag(recording.bag, topics, extrinsics=recording.extrinsics)
        print(summary)
        frame = summary.frame
    else:
        source = open_recording(recording)
        print(f"{source.name}: {len(source)} frames")
        frame = next(iter(source), None)
    if frame is None or not frame.images:
        raise InputError("no sweep has an image beside it, so there is nothing to draw")
    file = config.runs / "inspect.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    pictures.cameras(frame, pictures.by_depth(frame.sweep.xyz)).save(file)
    print(f"points on the images, coloured by distance: {file}")
    return file
