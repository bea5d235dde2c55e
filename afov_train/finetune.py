"""From a share of the truth: fine-tuning and linear probing, the papers' protocols."""

from __future__ import annotations

from pathlib import Path

import torch

from afov.student import Student
from afov.vocabulary import Vocabulary
from afov_train.config import FinetuneConfig
from afov_train.distill import closed_bank, distill
from afov_train.evaluate import evaluate
from afov_train.export import export_student
from afov_train.network.unet import build_network, load_trunk
from afov_train.pipeline import check_inputs, names, spread, test_sources
from afov_train.ranks import on_first, ranks
from afov_train.recordings import open_recordings
from afov_train.report import write_report
from afov_train.run_folder import open_run, versions
from afov_train.supervise import supervised_sweeps
from afov_train.taught import TaughtSweep


def finetune(config: FinetuneConfig) -> Path:
    """From a share of the truth to a model folder with a closed head, and its evaluation.

    Returns:
        The run folder; the model lies in its `model/`.
    """
    sources = open_recordings(config.recording, truth=True)
    vocabulary = Vocabulary.load(config.vocabulary)
    check_inputs(sources, config.network.inputs)
    run = on_first(lambda: open_run(config))
    labels = on_first(
        lambda: [
            file
            for i, source in enumerate(sources)
            for file in supervised_sweeps(source, vocabulary, config.fraction, run / f"labels/{i}")
        ]
    )
    torch.manual_seed(config.training.seed)
    bank = closed_bank(vocabulary)
    network = build_network(config.network, bank.embeddings.shape[1])
    if config.weights is not None:
        load_trunk(network, config.weights)
    distill(network, labels, bank, config.network, config.grid, config.training, run / "finetune")
    if ranks()[0] > 0:
        return run
    model = export_student(
        network,
        config=config.network,
        grid=config.grid,
        text_bank=bank,
        temperature=config.training.temperature,
        provenance={"recording": names(sources), "labels": len(labels), **versions()},
        sweep=TaughtSweep.load(labels[0]).sweep,
        folder=run / "model",
        others=spread(labels),
    )
    result = evaluate(test_sources(config), Student.open(model))
    print(result)
    result.save(run)
    print(f"report: {write_report(run, result)}")
    return run
