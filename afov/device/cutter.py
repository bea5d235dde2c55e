"""Points to voxels, strides and what the network is told of them, in one go."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from afov.device.levels import Cells, Levels, distinct, levels
from afov.frames import Sweep
from afov.inputs import LIMIT, SCALE, check_fields
from afov.kernel_maps import LEVELS
from afov.voxels import VoxelGrid


@dataclass(frozen=True)
class Cut:
    """A sweep in voxels, in arrays as long as its points, R.

    Attributes:
        features: (R, C) float32, as `afov.inputs` gives them.
        representative, inverse: (R,) int64, as in `Voxels`.
    """

    features: torch.Tensor
    representative: torch.Tensor
    inverse: torch.Tensor
    levels: Levels

    @classmethod
    def of(cls, tensors: tuple[torch.Tensor, ...]) -> Cut:
        """What a `Cutter` gives, by name."""
        features, representative, inverse, counts, *others = tensors
        keys, up = tuple(others[:LEVELS]), tuple(others[LEVELS:])
        return cls(features, representative, inverse, Levels(keys, up, counts))


class Cutter:
    """The voxels of a grid, and a network's inputs, on a device."""

    def __init__(self, grid: VoxelGrid, inputs: tuple[str, ...], device: torch.device) -> None:
        self.inputs = inputs
        self._cells = Cells(grid, device)
        self._scale = torch.tensor([SCALE[name] for name in inputs], device=device)

    def columns(self, sweep: Sweep) -> list[int]:
        """The fields that `__call__` wants, as columns of the sweep.

        Raises:
            InputError: it lacks one.
        """
        check_fields(sweep, self.inputs)
        return [*range(3), *(sweep.fields.index(n) for n in self.inputs if n != "rho")]

    def __call__(self, points: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(R, 3 + I) float32, x, y, z and the inputs but rho, to the tensors of a `Cut`."""
        keys, representative, inverse, count = distinct(self._cells.keys(points[:, :3]))
        found = levels(keys, count)
        leaders = points[representative]
        rho, others = torch.hypot(leaders[:, 0], leaders[:, 1]), iter(leaders[:, 3:].unbind(1))
        features = torch.stack([rho if n == "rho" else next(others) for n in self.inputs], 1)
        # A NaN in one field must not spread to the neighbours.
        features = torch.nan_to_num(features, nan=0, posinf=0, neginf=0) * self._scale
        features = features.clamp(-LIMIT, LIMIT)
        return features, representative, inverse, found.counts, *found.keys, *found.up
