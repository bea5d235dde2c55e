"""A sweep on a GPU, part by part, with and without CUDA graphs, beside the network's floor.

    python benchmarks/gpu.py                                # torch, fresh weights: small and 34C
    python benchmarks/gpu.py --model runs/latest/model --runtime tensorrt
    python benchmarks/gpu.py --device cpu --repeat 3        # whether the script works

The parts are timed one by one, the device waited for after each, so they add up to more than the
whole sweep, whose host goes ahead of the device. The floor is `roofline.py`'s, "as exported".
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from compare import PAPER, real_sweep
from network import untrained
from roofline import MACHINES, floors, layers

from afov.device.cutter import Cut, Cutter
from afov.device.graphs import Replayed
from afov.device.levels import fit
from afov.device.page_locked import PageLocked
from afov.device.phrases import Phrases
from afov.device.runtime import DeviceRuntime, Network
from afov.device.tables import tables
from afov.frames import Sweep
from afov.kernel_maps import kernel_maps
from afov.model_folder import ModelFolder, read_model_folder
from afov.runtimes.torch_dense import TorchNetwork
from afov.short_head import shortened
from afov.student import Student
from afov_train.network.config import NetworkConfig


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    device: str
    runtime: str
    repeat: int
    model: Path | None


def main() -> None:
    """One table per model."""
    options = asked()
    if options.device == "cuda":
        if not torch.cuda.is_available():
            raise SystemExit(
                "gpu.py: no GPU here (torch finds no CUDA), so nothing was measured; "
                "--device cpu checks the script"
            )
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    else:
        print("on the CPU: this checks the script, and says nothing of a GPU")
    for name, model in models(options):
        table(name, model, options)


def asked() -> Options:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--runtime", choices=("torch", "tensorrt"), default="torch")
    parser.add_argument("--repeat", type=int, default=100)
    parser.add_argument("--model", type=Path, help="a model folder; else fresh weights")
    options = Options(**vars(parser.parse_args()))
    if options.runtime == "tensorrt" and (options.model is None or options.device == "cpu"):
        raise SystemExit("gpu.py: tensorrt needs a GPU and --model, whose graph it takes")
    return options


def models(options: Options) -> Iterator[tuple[str, ModelFolder]]:
    """Those to measure, by name."""
    if options.model is not None:
        yield str(options.model), read_model_folder(options.model)
        return
    for config in (NetworkConfig(), NetworkConfig("minkunet34c")):
        yield config.name, replace(untrained(config, 512)[1], grid=PAPER)


def opened(model: ModelFolder, options: Options) -> tuple[ModelFolder, Network, np.ndarray | None]:
    """The model as the network sees it, the network, and what makes embeddings of its rows."""
    if options.runtime == "tensorrt":
        from afov.runtimes.tensorrt_runtime import TensorRtNetwork

        return model, TensorRtNetwork(model), None
    short, basis = shortened(model)
    return short, TorchNetwork(short, options.device), basis


def table(name: str, model: ModelFolder, options: Options) -> None:
    """Parts, whole sweeps and floors."""
    sweep = Sweep(real_sweep(), ("x", "y", "z", "intensity"), 0, "lidar")
    short, network, basis = opened(model, options)
    voxels = model.grid.voxelize(sweep.xyz)
    print(f"\n{name}, {options.runtime}: {len(sweep)} points, {len(voxels)} voxels")
    print(f"{'':44} {'median':>8} {'least':>8} {'90%':>8}  ms")
    for recorded in (False, True)[: 2 if options.device == "cuda" else 1]:
        how = "as CUDA graphs" if recorded else "kernel by kernel"
        with alone(network.device):
            for part, work in parts(short, network, basis, sweep, recorded).items():
                line(f"{part}, {how}", work, options)
        student = Student(
            model, DeviceRuntime(short, network, graphs=recorded), model.text_bank, basis
        )
        line(f"whole sweep, {how}", partial(student.label, sweep), options)
    line("the same, and every point's embedding", lambda: student.label(sweep).embedding, options)
    maps = kernel_maps(voxels.coords, model.shape.stem)
    least = floors(layers(short, maps, exported=True))
    print("the network's floor: " + ", ".join(f"{m} {least[m]:.2f} ms" for m in MACHINES))


def parts(
    model: ModelFolder, network: Network, basis: np.ndarray | None, sweep: Sweep, recorded: bool
) -> dict[str, Callable[[], object]]:
    """What a sweep is made of, each part on what the one before it left."""
    device, stem = network.device, model.shape.stem
    memory, cutter = PageLocked(device), Cutter(model.grid, model.inputs, device)
    columns = cutter.columns(sweep)
    points = memory.up(sweep.points, columns).clone()
    cut_up = Replayed(lambda: cutter, device, graphs=recorded)
    cut = Cut.of(tuple(t.clone() for t in cut_up(points)))
    sizes = network.sizes(tuple(cut.levels.counts.tolist()))
    padded = cut.levels.padded(sizes)
    features = fit(cut.features, sizes[0], 0)
    mapped = Replayed(lambda: lambda *p: every(tables(p, stem)), device, graphs=recorded)
    maps = tables(padded, stem)
    embed = network.prepared()
    embedded = Replayed(lambda: lambda f: (embed(f, maps),), device, graphs=recorded)
    rows = embedded(features)[0].clone()
    bank = model.text_bank
    if basis is not None:
        bank = replace(bank, embeddings=bank.embeddings @ basis)
    phrases = Phrases(bank, device)
    answer = torch.zeros(5 * len(sweep), dtype=torch.uint8, device=device)
    return {
        "points up": partial(memory.up, sweep.points, columns),
        "voxels and strides": partial(cut_up, points),
        "kernel maps": partial(mapped, *padded),
        "network": partial(embedded, features),
        "labels": partial(phrases.classify, rows, model.temperature),
        "classes and scores down": partial(memory.down, answer),
    }


def every(maps: object) -> tuple[torch.Tensor, ...]:
    """The tables of kernel maps."""
    found = vars(maps)
    return (*found["subm"], found["stem"], *found["down"], *found["up"])


def line(what: str, work: Callable[[], object], options: Options) -> None:
    """Measures and prints."""
    times = []
    for i in range(options.repeat + 3):  # the first ones record graphs and take memory
        began = time.perf_counter()
        work()
        if options.device == "cuda":
            torch.cuda.synchronize()
        if i >= 3:
            times.append(1e3 * (time.perf_counter() - began))
    low, middle, high = np.percentile(times, (0, 50, 90))
    print(f"{what:44} {middle:8.3f} {low:8.3f} {high:8.3f}")


@contextmanager
def alone(device: torch.device) -> Iterator[None]:
    """As `DeviceRuntime` runs: without gradients, on a stream of its own."""
    stream = torch.cuda.Stream() if device.type == "cuda" else None
    with torch.inference_mode(), torch.cuda.stream(stream):
        yield


if __name__ == "__main__":
    main()
