"""The text bank on a device: the twin of `TextBank.classify`."""

from __future__ import annotations

import numpy as np
import torch

from afov.text_bank import TextBank


class Phrases:
    """A vocabulary's phrases where the voxels are."""

    def __init__(self, bank: TextBank, device: torch.device) -> None:
        self.bank = bank
        self.rows = torch.from_numpy(bank.labelled).to(device)
        # A class's phrases by number, its last one repeated until all classes have equally many.
        begins = np.append(0, bank.ends[:-1])
        longest = int((bank.ends - begins).max())
        own = np.minimum(begins[:, None] + np.arange(longest), bank.ends[:, None] - 1)
        self.own = torch.from_numpy(own).to(device)

    def classify(
        self, rows: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The likeliest class of each embedding.

        Args:
            rows: (P, E) float32.

        Returns:
            (P, E) float32 unit rows; (P,) uint8 class ids; (P,) float32 probabilities.
        """
        rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-9)
        cosine = rows @ self.rows.T
        of_class = cosine[:, self.own].amax(2)
        score, best = (of_class / temperature).softmax(1).max(1)
        return rows, (best + 1).to(torch.uint8), score
