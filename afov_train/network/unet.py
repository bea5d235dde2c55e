"""Res16UNet (Choy et al. 2019): four strides down, four up, residual blocks between.

Weights and modules are spconv's. On a CPU the compiled kernels do the convolutions
(convolution.py), where they were built.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

with warnings.catch_warnings():
    # spconv 2.3 writes decorators and asks torch questions that newer torch spells differently:
    # a page of warnings before every training, none of them ours to heed.
    warnings.simplefilter("ignore", FutureWarning)
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    import spconv.pytorch as spconv
    from spconv.core import ConvAlgo

from afov.errors import InputError
from afov.unet import Shape
from afov_train.network.config import SHAPES, NetworkConfig
from afov_train.network.convolution import COARSEST, Rows, compiled, convolved, rows

# The implicit-GEMM kernels exist on CUDA alone; Native runs everywhere, backward too.
ALGO = ConvAlgo.Native


def subm(cin: int, cout: int, kernel: int, level: int) -> Any:
    """A submanifold convolution; layers of one level and kernel share their kernel map."""
    key = f"subm{level}" if kernel == 3 else f"stem{kernel}"
    return spconv.SubMConv3d(cin, cout, kernel, bias=False, indice_key=key, algo=ALGO)


def convolve(conv: Any, x: Any) -> Any:
    """The convolution on spconv's tensor, or on ours."""
    return convolved(conv, x) if isinstance(x, Rows) else conv(x)


class Normed(nn.Sequential):
    """Convolution, BatchNorm, ReLU."""

    def __init__(self, conv: Any, planes: int) -> None:
        super().__init__(conv, nn.BatchNorm1d(planes), nn.ReLU(inplace=True))

    def forward(self, x: Any) -> Any:
        conv, norm, relu = self
        out = convolve(conv, x)
        return out.replace_feature(relu(norm(out.features)))


class Residual(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))), the shortcut a 1 x 1 where channels change."""

    def __init__(self, cin: int, cout: int, level: int) -> None:
        super().__init__()
        self.first = Normed(subm(cin, cout, 3, level), cout)
        self.second = subm(cout, cout, 3, level)
        self.norm = nn.BatchNorm1d(cout)
        self.shortcut = (
            nn.Sequential(nn.Linear(cin, cout, bias=False), nn.BatchNorm1d(cout))
            if cin != cout
            else nn.Identity()
        )

    def forward(self, x: Any) -> Any:
        out = convolve(self.second, self.first(x))
        return out.replace_feature(torch.relu(self.norm(out.features) + self.shortcut(x.features)))


def blocks(cin: int, cout: int, count: int, level: int) -> nn.Sequential:
    """`count` residual blocks at one level."""
    return nn.Sequential(*(Residual(cin if i == 0 else cout, cout, level) for i in range(count)))


class UNet(nn.Module):
    """Points of CLIP space for voxels.

    Args:
        channels: input features per voxel.
        embedding: width of the CLIP space.
    """

    def __init__(self, shape: Shape, channels: int, embedding: int) -> None:
        super().__init__()
        self.shape = shape
        p, n = shape.planes, shape.layers
        self.stem = Normed(subm(channels, shape.stem_planes, shape.stem, 0), shape.stem_planes)
        into = (shape.stem_planes, *p[:3])
        self.down = nn.ModuleList(
            Normed(
                spconv.SparseConv3d(c, c, 2, 2, bias=False, indice_key=f"down{level}", algo=ALGO),
                c,
            )
            for level, c in enumerate(into)
        )
        self.encode = nn.ModuleList(
            blocks(c, p[level], n[level], level + 1) for level, c in enumerate(into)
        )
        skips = into[::-1]
        above = (p[3], *p[4:7])
        self.up = nn.ModuleList(
            Normed(
                spconv.SparseInverseConv3d(
                    above[i], p[4 + i], 2, bias=False, indice_key=f"down{3 - i}", algo=ALGO
                ),
                p[4 + i],
            )
            for i in range(4)
        )
        self.decode = nn.ModuleList(
            blocks(p[4 + i] + skips[i], p[4 + i], n[4 + i], 3 - i) for i in range(4)
        )
        self.head = nn.Linear(p[7], embedding)

    def forward(self, features: torch.Tensor, coords: torch.Tensor, batch: int) -> torch.Tensor:
        """One embedding per voxel, not normalised.

        Args:
            features: (V, C) float32.
            coords: (V, 4) int32: sweep in the batch, then the voxel, which may be negative; in
                lexicographic order, none twice.
            batch: sweeps in it.
        """
        if compiled(features):
            x = self.stem(rows(features, coords, self.shape.stem))
        else:
            x = self.stem(sparse_tensor(features, coords, batch))
        skips = []
        for down, encode in zip(self.down, self.encode, strict=True):
            skips.append(x)
            x = encode(down(x))
        for up, decode in zip(self.up, self.decode, strict=True):
            x, skip = up(x), skips.pop()
            x = decode(x.replace_feature(torch.cat((x.features, skip.features), 1)))
        return self.head(x.features)

    def with_head(self, outputs: int) -> UNet:
        """Itself, with a fresh head of so many outputs."""
        self.head = nn.Linear(self.head.in_features, outputs)
        return self


def sparse_tensor(features: torch.Tensor, coords: torch.Tensor, batch: int) -> Any:
    """spconv's tensor.

    Origin and extent are multiples of the coarsest voxel, so that floor(c / 2) stays what it is
    and no stride cuts off the last row.
    """
    low = torch.div(coords[:, 1:].amin(0), COARSEST, rounding_mode="floor") * COARSEST
    shifted = coords.clone()
    shifted[:, 1:] -= low
    extent = (shifted[:, 1:].amax(0) // COARSEST + 1) * COARSEST
    return spconv.SparseConvTensor(features, shifted, extent.tolist(), batch)


def build_network(config: NetworkConfig, embedding: int) -> UNet:
    """The network with fresh weights."""
    network = UNet(SHAPES[config.name], len(config.inputs), embedding)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = config.norm_momentum
    return network


def load_trunk(network: UNet, weights: Path) -> None:
    """Weights of another run, all but the head's.

    Raises:
        InputError: no such file, or weights of another network.
    """
    try:
        state = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise InputError(f"--weights {weights}: cannot be read ({error})") from None
    own = network.state_dict()
    trunk = {name: value for name, value in state.items() if not name.startswith("head.")}
    expected = {name: own[name].shape for name in own if not name.startswith("head.")}
    if {name: value.shape for name, value in trunk.items()} != expected:
        raise InputError(
            f"--weights {weights}: weights of another network; name the same network.name and "
            "network.inputs"
        )
    network.load_state_dict(trunk, strict=False)
