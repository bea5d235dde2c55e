"""What machines that are not at hand could do at best: bytes and FLOPs on the real sweep.

    python benchmarks/roofline.py

A layer takes at least the longer of its arithmetic at the machine's rate and its bytes at the
memory's; nothing here was measured. Two forms of the same weights, in fp16: over the pairs that
exist (as on the CPU, or in spconv's kernels: a layer's rows are read and written once), and as
exported (all 27 offsets; gathered rows are written and read again, as TensorRT does without a
plugin).
"""

from __future__ import annotations

from dataclasses import dataclass

from compare import PAPER, real_sweep
from network import untrained

from afov.kernel_maps import KernelMaps, kernel_maps
from afov.model_folder import ModelFolder
from afov.unet import unet
from afov_train.network.config import NetworkConfig

# TFLOP/s of dense fp16 products and GB/s. The vendor's figures: a Jetson's is its GPU's headline
# (170 and 60 TOPS of sparse INT8, 2070 TFLOPS of sparse FP4) brought down to dense fp16.
MACHINES = {
    "Orin NX 16 GB": (15, 102.4),
    "AGX Orin 64 GB": (42.5, 204.8),
    "AGX Thor": (259, 273),
    "H200": (989, 4800),
}
HALF, INDEX = 2, 4  # bytes of a value in fp16, of an entry of a kernel map


@dataclass(frozen=True)
class Layer:
    """FLOPs and bytes of memory of one layer."""

    flop: float
    byte: float


class Layers:
    """The operations of the network; a value is its rows and channels."""

    def __init__(self, weights: dict, maps: KernelMaps, *, exported: bool) -> None:
        self.weights, self.maps, self.exported = weights, maps, exported
        self.layers: list[Layer] = []

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.weights

    def _layer(
        self, name: str, x: tuple[int, int], rows: int, pairs: int, between: int = 0, plus: int = 0
    ) -> tuple[int, int]:
        """between: values that go through memory beside input and output, once each way."""
        weight = self.weights[f"{name}.weight"]
        cin, cout = weight.shape[-2:]
        byte = x[0] * cin + (1 + plus) * rows * cout + weight.size + 2 * between
        self.layers.append(Layer(2.0 * pairs * cin * cout, HALF * byte + INDEX * pairs))
        return rows, cout

    def _gathered(
        self, name: str, x: tuple[int, int], rows: int, pairs: int, plus: int = 0
    ) -> tuple[int, int]:
        offsets, cin, _ = self.weights[f"{name}.weight"].shape
        if not self.exported:
            return self._layer(name, x, rows, pairs, plus=plus)
        every = rows * offsets
        return self._layer(name, x, rows, every, every * cin, plus)

    def subm(
        self, x: tuple[int, int], name: str, level: int, plus: tuple[int, int] | None = None
    ) -> tuple[int, int]:
        table = self.maps.stem if level < 0 else self.maps.subm[level]
        pairs = int((table != len(table)).sum())
        return self._gathered(name, x, len(table), pairs, int(plus is not None))

    def down(self, x: tuple[int, int], name: str, level: int) -> tuple[int, int]:
        return self._gathered(name, x, len(self.maps.subm[level + 1]), x[0])

    def up(self, x: tuple[int, int], name: str, level: int) -> tuple[int, int]:
        rows, every = len(self.maps.subm[level]), 8 * x[0]
        if not self.exported:
            return self._layer(name, x, rows, rows)
        return self._layer(name, x, rows, every, every * self.weights[f"{name}.weight"].shape[2])

    def linear(self, x: tuple[int, int], name: str) -> tuple[int, int]:
        return self._layer(name, x, x[0], x[0])

    def join(self, x: tuple[int, int], skip: tuple[int, int]) -> tuple[int, int]:
        return x[0], x[1] + skip[1]


def layers(model: ModelFolder, maps: KernelMaps, *, exported: bool) -> list[Layer]:
    """Those of the network over one sweep's maps."""
    ops = Layers(model.weights, maps, exported=exported)
    unet(model.shape, ops, (len(maps.subm[0]), len(model.inputs)))
    return ops.layers


def floors(found: list[Layer]) -> dict[str, float]:
    """The least milliseconds on each machine."""
    return {
        name: 1e3 * sum(max(x.flop / (rate * 1e12), x.byte / (speed * 1e9)) for x in found)
        for name, (rate, speed) in MACHINES.items()
    }


def main() -> None:
    """One line per network and form."""
    voxels = PAPER.voxelize(real_sweep()[:, :3])
    print(f"{'':28} {'GFLOP':>7} {'MB':>7}  " + "  ".join(f"{m:>14}" for m in MACHINES))
    for config, width in ((NetworkConfig(), 512), (NetworkConfig("minkunet34c"), 512)):
        _, model = untrained(config, width)
        maps = kernel_maps(voxels.coords, model.shape.stem)
        for exported in (False, True):
            found = layers(model, maps, exported=exported)
            name = f"{config.name}, {'as exported' if exported else 'pairs that exist'}"
            total = [sum(x.flop for x in found) / 1e9, sum(x.byte for x in found) / 1e6]
            milliseconds = "  ".join(f"{ms:11.2f} ms" for ms in floors(found).values())
            print(f"{name:28} {total[0]:7.1f} {total[1]:7.1f}  {milliseconds}")


if __name__ == "__main__":
    main()
