"""Voxels and kernel maps of all levels: ours, the same in NumPy, spconv's index building."""

from __future__ import annotations

from unittest import mock

import torch
from compare import PAPER, Row, by_turns, real_sweep, run

from afov import kernel_maps as maps_module
from afov import voxels as voxels_module
from afov.kernel_maps import kernel_maps
from afov.native import call
from afov_train.network.unet import ALGO, COARSEST, spconv


def thin() -> torch.nn.Module:
    """All of spconv's indices with one channel each: next to no arithmetic."""
    layers = []
    for level in range(5):
        layers.append(spconv.SubMConv3d(1, 1, 3, indice_key=f"subm{level}", algo=ALGO))
        if level < 4:
            layers.append(spconv.SparseConv3d(1, 1, 2, 2, indice_key=f"down{level}", algo=ALGO))
    return spconv.SparseSequential(*layers)


@torch.inference_mode()
def rows(repeat: int) -> list[Row]:
    """Against NumPy (voxels included) and against spconv (from voxels on)."""
    call("keep_memory")
    xyz, grid, network = real_sweep()[:, :3], PAPER, thin()
    coords = grid.voxelize(xyz).coords
    shifted = torch.from_numpy(coords - coords.min(0) // COARSEST * COARSEST)
    extent = ((shifted.amax(0) // COARSEST + 1) * COARSEST).tolist()
    indices = torch.nn.functional.pad(shifted, (1, 0)).contiguous()
    one = torch.ones(len(coords), 1)

    def in_numpy() -> None:
        with (
            mock.patch.object(voxels_module, "library", lambda: None),
            mock.patch.object(maps_module, "library", lambda: None),
        ):
            kernel_maps(grid.voxelize(xyz).coords)

    times = by_turns(
        repeat,
        both=lambda: kernel_maps(grid.voxelize(xyz).coords),
        numpy=in_numpy,
        maps=lambda: kernel_maps(coords),
        spconv=lambda: network(spconv.SparseConvTensor(one, indices, extent, 1)),
    )
    size = {"points": float(len(xyz)), "voxels": float(len(coords))}
    return [
        Row("voxels + maps", "unique + searchsorted", times["both"], times["numpy"], 4, size),
        Row("maps", "spconv indices", times["maps"], times["spconv"], 4),
    ]


if __name__ == "__main__":
    run(rows, 15)
