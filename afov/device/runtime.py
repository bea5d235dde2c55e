"""A whole sweep on the device, for whichever network runs there.

The host waits twice: for the number of voxels, from which the size of everything else follows,
and for the answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import numpy as np
import torch

from afov.device.cutter import Cut, Cutter
from afov.device.graphs import Replayed, Work
from afov.device.levels import fit, levels, pack, unpack
from afov.device.page_locked import PageLocked
from afov.device.phrases import Phrases
from afov.device.tables import tables
from afov.frames import Sweep
from afov.kernel_maps import KernelMaps
from afov.labels import Labels
from afov.model_folder import ModelFolder
from afov.text_bank import TextBank
from afov.voxels import Voxels

Embed = Callable[[torch.Tensor, KernelMaps[torch.Tensor]], torch.Tensor]


class Network(Protocol):
    """The student's network on a device.

    Attributes:
        width: of its rows.
    """

    name: str
    device: torch.device
    width: int

    def sizes(self, counts: tuple[int, ...]) -> tuple[int, ...]:
        """Rows per level, padding included, for a sweep with so many voxels.

        Raises:
            InputError: it does not take so many.
        """
        ...

    def prepared(self) -> Embed:
        """(P, C) float32 features and their maps to (P, width) float32; one for each shape."""
        ...


class DeviceRuntime:
    """From points to labels where the network is.

    Args:
        graphs: False starts every kernel by itself.
    """

    def __init__(self, model: ModelFolder, network: Network, *, graphs: bool = True) -> None:
        self.name, self.width, self.device = network.name, network.width, network.device
        self.network = network
        self._stem = model.shape.stem
        self._cutter = Cutter(model.grid, model.inputs, self.device)
        self._cut = Replayed(lambda: self._cutter, self.device, graphs=graphs)
        self._embed = Replayed(self._prepared, self.device, graphs=graphs)
        self._phrases: Phrases | None = None
        self._memory = PageLocked(self.device)
        self._stream = torch.cuda.Stream() if self.device.type == "cuda" else None
        self._one_at_a_time = threading.Lock()

    def label(
        self, sweep: Sweep, bank: TextBank, temperature: float, basis: np.ndarray | None = None
    ) -> Labels:
        """Labels every point; embeddings stay on the device until somebody asks for them.

        Args:
            bank: phrases as wide as the network's rows. basis: what makes embeddings of these.

        Raises:
            InputError: the sweep lacks a field, or has more voxels than the network takes.
        """
        with self._alone():
            began = time.perf_counter()
            cut, counts = self._cut_sweep(sweep)
            known = time.perf_counter()
            inverse = cut.inverse[: len(sweep)].clone()
            if self._phrases is None or self._phrases.bank is not bank:
                self._phrases = Phrases(bank, self.device)
            rows, class_id, score = self._phrases.classify(self._rows(cut, counts), temperature)
            answer = self._memory.down(_at_points(score, class_id, inverse))
        seconds = {"voxels": known - began, "network": time.perf_counter() - known}
        return Labels(
            answer[4 * len(sweep) :],
            answer[: 4 * len(sweep)].view(np.float32),
            partial(_fetch, rows[: counts[0]]),
            partial(_fetch, inverse),
            seconds,
            basis=basis,
        )

    def embed(self, sweep: Sweep) -> tuple[Voxels, np.ndarray, dict[str, float]]:
        """The sweep's voxels, (V, width) float32 of each, not normalised, and seconds by part."""
        with self._alone():
            began = time.perf_counter()
            cut, counts = self._cut_sweep(sweep)
            known = time.perf_counter()
            count = counts[0]
            voxels = Voxels(
                unpack(cut.levels.keys[0][:count]).int().cpu().numpy(),
                cut.representative[:count].cpu().numpy(),
                cut.inverse[: len(sweep)].cpu().numpy(),
            )
            rows = self._rows(cut, counts)[:count].cpu().numpy()
        return voxels, rows, {"voxels": known - began, "network": time.perf_counter() - known}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._one_at_a_time, torch.inference_mode(), torch.cuda.stream(self._stream):
            yield

    def _cut_sweep(self, sweep: Sweep) -> tuple[Cut, tuple[int, ...]]:
        """Points up, voxels and strides there; how many voxels each level has."""
        points = self._memory.up(sweep.points, self._cutter.columns(sweep))
        cut = Cut.of(self._cut(points))
        return cut, tuple(cut.levels.counts.tolist())

    def _rows(self, cut: Cut, counts: tuple[int, ...]) -> torch.Tensor:
        """(P, width) float32, the voxels' rows first."""
        if not counts[0]:
            return torch.zeros((0, self.width), device=self.device)
        sizes = self.network.sizes(counts)
        (rows,) = self._embed(fit(cut.features, sizes[0], 0), *cut.levels.padded(sizes))
        return rows

    def _prepared(self) -> Work:
        embed = self.network.prepared()
        return lambda features, *padded: (embed(features, tables(padded, self._stem)),)


def embedding(network: Network, features: np.ndarray, coords: np.ndarray, stem: int) -> np.ndarray:
    """(V, width) float32: the network alone, on what is known of the voxels.

    Args:
        features: (V, C) float32. coords: (V, 3) int32, as `VoxelGrid` gives them.
        stem: kernel of the first convolution.
    """
    there = torch.device(network.device)
    with torch.inference_mode():
        keys = pack(torch.from_numpy(coords).to(there).long())
        found = levels(keys, torch.tensor(len(keys), device=there))
        sizes = network.sizes(tuple(found.counts.tolist()))
        given = fit(torch.from_numpy(features).to(there), sizes[0], 0)
        rows = network.prepared()(given, tables(found.padded(sizes), stem))
        return rows[: len(coords)].cpu().numpy()


def _at_points(score: torch.Tensor, class_id: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """(5 N,) uint8: each point's score, four bytes each, then each point's class, as one copy."""
    score, class_id = (torch.cat((v, v.new_zeros(1)))[inverse] for v in (score, class_id))
    return torch.cat((score.view(torch.uint8), class_id))


def _fetch(rows: torch.Tensor) -> np.ndarray:
    return rows.cpu().numpy()
