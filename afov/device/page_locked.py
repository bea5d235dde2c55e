"""The way up and the way back."""

from __future__ import annotations

import numpy as np
import torch

from afov.runtimes.profile import step


class PageLocked:
    """Memory of this machine that a GPU reads and writes by itself; it grows with the sweeps.

    Copies go over the current stream, one sweep at a time.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.locked = device.type == "cuda"
        self._memory = torch.empty(0, dtype=torch.uint8)

    def up(self, points: np.ndarray, columns: list[int]) -> torch.Tensor:
        """Points on the device, and NaN up to one of few lengths, so that shapes recur.

        Args:
            points: (N, F) float32. columns: I of them, to take along.

        Returns:
            (R, I) float32, R >= N.
        """
        size = (step(len(points)), len(columns))
        here = self._room(4 * size[0] * size[1]).view(torch.float32).view(size)
        rows = here.numpy()
        for i, column in enumerate(columns):
            rows[: len(points), i] = points[:, column]
        rows[len(points) :] = np.nan
        return here.to(self.device, non_blocking=True)

    def down(self, answer: torch.Tensor) -> np.ndarray:
        """(B,) uint8 from the device, when all that was begun there is done."""
        here = self._room(len(answer))
        here.copy_(answer, non_blocking=True)
        if self.locked:
            torch.cuda.current_stream().synchronize()
        return here.numpy().copy()

    def _room(self, size: int) -> torch.Tensor:
        if len(self._memory) < size:
            self._memory = torch.empty(size, dtype=torch.uint8, pin_memory=self.locked)
        return self._memory[:size]
