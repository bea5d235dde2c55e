"""Export: the student as a model folder, compared before it is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from afov.errors import InputError
from afov.frames import Sweep
from afov.inputs import inputs
from afov.kernel_maps import kernel_maps
from afov.model_folder import ModelFolder, Sample, write_model_folder
from afov.model_parts import PanopticFiles, TowerFiles
from afov.runtimes.onnx_runtime import OnnxRuntime
from afov.text_bank import TextBank
from afov.text_tower import TextTower
from afov.voxels import VoxelGrid
from afov_train.network.config import NetworkConfig
from afov_train.network.unet import UNet
from afov_train.student_onnx import folded, graph

TOLERANCE = 1e-4


def export_student(
    network: nn.Module,
    *,
    config: NetworkConfig,
    grid: VoxelGrid,
    text_bank: TextBank,
    temperature: float,
    provenance: dict[str, Any],
    sweep: Sweep,
    folder: Path,
    text_tower: TowerFiles | None = None,
    panoptic: PanopticFiles | None = None,
    others: Iterable[Sweep] = (),
) -> Path:
    """Writes the model folder.

    Args:
        network: trained `UNet`.
        sweep: a real one, on which ONNX Runtime must agree with spconv.
        text_tower: of the teacher, with which the vocabulary can change on the vehicle.
        panoptic: mask decoder and image tower, already compared.
        others: more of the training data; an engine is made for sweeps as large as these.

    Raises:
        InputError: a weight is left over, or the two disagree by more than 1e-4 relative, or the
            text tower does not make the text bank.
    """
    assert isinstance(network, UNet)
    network = network.eval().cpu()
    weights = folded(network)
    model = ModelFolder(
        folder,
        graph(network.shape, weights, len(config.inputs)).SerializeToString(),
        weights,
        network.shape,
        grid,
        config.inputs,
        text_bank,
        temperature,
        provenance,
    )
    check(network, model, sweep)
    if text_tower is not None:
        check_tower(text_tower, text_bank)
    voxels = grid.voxelize(sweep.xyz)
    sample = Sample(inputs(sweep, voxels, config.inputs), voxels.coords)
    counted = voxel_counts(grid, chain([sweep], others))
    whole = replace(model, voxels=counted, sample=sample)
    return write_model_folder(whole, text_tower, panoptic)


def voxel_counts(grid: VoxelGrid, sweeps: Iterable[Sweep]) -> tuple[tuple[int, int, int], ...]:
    """Least, median and most voxels per level."""
    maps = (kernel_maps(grid.voxelize(sweep.xyz).coords) for sweep in sweeps)
    counts = np.array([[len(table) for table in m.subm] for m in maps])
    ranges = np.stack((counts.min(0), np.median(counts, 0), counts.max(0)), 1).astype(int)
    return tuple((max(1, least), max(1, mid), max(1, most)) for least, mid, most in ranges.tolist())


def check(network: UNet, model: ModelFolder, sweep: Sweep) -> float:
    """The largest difference between ONNX Runtime and spconv on a sweep, relative.

    Raises:
        InputError: it is above 1e-4.
    """
    voxels = model.grid.voxelize(sweep.xyz)
    features = inputs(sweep, voxels, model.inputs)
    coords = torch.from_numpy(np.pad(voxels.coords, ((0, 0), (1, 0))))
    with torch.inference_mode():
        expected = network(torch.from_numpy(features), coords, 1).numpy()
    got = OnnxRuntime(model).run(features, kernel_maps(voxels.coords, model.shape.stem))
    difference = float(np.abs(got - expected).max() / np.abs(expected).max())
    if not difference <= TOLERANCE:
        raise InputError(
            f"export: ONNX Runtime and spconv differ by {difference:.1e} relative on a sweep of "
            f"{len(voxels)} voxels, at most {TOLERANCE:.0e} is allowed; nothing was written"
        )
    return difference


def check_tower(tower: TowerFiles, text_bank: TextBank) -> float:
    """The largest difference between the bank, which torch made, and what the tower makes of it.

    Raises:
        InputError: it is above 1e-4.
    """
    made = TextTower(tower).embed(text_bank.vocabulary.phrases)
    if made.shape != text_bank.embeddings.shape:
        raise InputError(
            f"export: the text tower is {made.shape[1]} wide, the text bank "
            f"{text_bank.embeddings.shape[1]}; export without it"
        )
    difference = float(np.abs(made - text_bank.embeddings).max())
    if not difference <= TOLERANCE:
        raise InputError(
            f"export: ONNX Runtime and torch embed a phrase {difference:.1e} apart, at most "
            f"{TOLERANCE:.0e} is allowed; nothing was written"
        )
    return difference
