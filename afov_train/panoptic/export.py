"""Export: the mask decoder's graph, compared with torch before it goes out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from afov.errors import InputError
from afov.frames import CameraImage, Sweep
from afov.inputs import inputs
from afov.model_parts import Head, ImageTowerFiles, PanopticFiles
from afov.panoptic import sigmoid
from afov.panoptic_head import PanopticHead
from afov.voxels import VoxelGrid
from afov_train.panoptic.decoder import PanopticNetwork
from afov_train.panoptic.graph import graph

# Of nine queries in ten: a voxel whose logit is all but 0 may be inside a mask here and outside it
# there, which changes that mask's query, and less those that it talks to.
TOLERANCE, QUERIES = 1e-3, 0.9


def panoptic_files(
    network: PanopticNetwork,
    tower: ImageTowerFiles,
    head: Head,
    base: Sequence[str],
    names: tuple[str, ...],
    grid: VoxelGrid,
    sweep: Sweep,
    images: Sequence[CameraImage],
) -> PanopticFiles:
    """The panoptic part of a model folder.

    Args:
        base: names of the classes with labels. names: inputs of a voxel.
        sweep, images: real ones, on which ONNX Runtime must agree with torch, with the images and
            without.

    Raises:
        InputError: the two disagree.
    """
    network = network.eval().cpu()
    decoder = network.decoder
    files = PanopticFiles(
        graph(decoder, tower.embedding).SerializeToString(),
        tower,
        decoder.log_scale.exp().item(),
        decoder.bias.item(),
        head,
        tuple(base),
    )
    for seen in (images, ()):
        check(network, files, names, grid, sweep, seen)
    return files


def check(
    network: PanopticNetwork,
    files: PanopticFiles,
    names: tuple[str, ...],
    grid: VoxelGrid,
    sweep: Sweep,
    images: Sequence[CameraImage],
) -> float:
    """How far ONNX Runtime and torch are apart on a sweep, relative, in nine queries of ten.

    Raises:
        InputError: it is above 1e-3.
    """
    head = PanopticHead(files)
    voxels = grid.voxelize(sweep.xyz)
    coords = torch.from_numpy(np.pad(voxels.coords, ((0, 0), (1, 0))))
    image = head.tower.look(sweep.xyz, images).of_voxels(voxels.inverse, len(voxels))
    xyz = np.ascontiguousarray(sweep.xyz[voxels.representative])
    with torch.inference_mode():
        rows = network.trunk(torch.from_numpy(inputs(sweep, voxels, names)), coords, 1)
        wanted = network.decoder(rows, torch.from_numpy(image), torch.from_numpy(xyz))[-1]
    got = head.answers(rows.numpy(), image, xyz)
    each = [
        np.abs(ours - theirs.numpy()).max(1) / float(theirs.abs().max())
        for ours, theirs in (
            (got.embedding, wanted.embedding),
            (sigmoid(got.mask), wanted.mask.sigmoid()),  # logits fall without end, far away
        )
    ]
    difference = float(np.quantile(np.maximum(*each), QUERIES))
    if not difference <= TOLERANCE:
        raise InputError(
            f"export: ONNX Runtime and torch decode {difference:.1e} apart (relative) on a sweep "
            f"of {len(voxels)} voxels, at most {TOLERANCE:.0e} is allowed; nothing was written"
        )
    return difference
