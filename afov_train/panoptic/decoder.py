"""The mask decoder: queries attend to voxels and answer with masks and classes (P3Former's head,
with one classification head in CLIP space, 2401.02402)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import normalize

from afov_train.network.unet import UNet
from afov_train.panoptic.config import DecoderConfig

METRES = 50.0  # brings x, y and rho to the order of 1
HEIGHT = 3.0  # and z
PROBABILITY = 0.01  # of a class whose text is orthogonal to a query, at the start


class Prediction(NamedTuple):
    """What the queries answer after one layer.

    Attributes:
        embedding: (Q, E), unit rows in CLIP space, one per query.
        mask: (Q, V) logits.
        position: (Q, V) logits, the share in `mask` of the positional branch.
    """

    embedding: torch.Tensor
    mask: torch.Tensor
    position: torch.Tensor


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for cin, cout in pairwise(widths):
        layers += [nn.Linear(cin, cout), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def allowed(mask: torch.Tensor) -> torch.Tensor:
    """(Q, V) logits to bool: inside the binarised mask; everywhere where a mask is empty."""
    inside = mask > 0
    return inside | ~inside.any(1, keepdim=True)


class Layer(nn.Module):
    """Masked attention over voxels, self-attention, FFN; a norm after each (P3Former)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = config.width
        self.cross = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.own = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.feedforward = perceptron(width, config.feedforward, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(
        self, queries: torch.Tensor, voxels: torch.Tensor, inside: torch.Tensor
    ) -> torch.Tensor:
        """(Q, D) queries to queries.

        Args:
            voxels: (V, D). inside: (Q, V) bool, the voxels to which each query may attend.
        """
        seen, _ = self.cross(queries, voxels, voxels, attn_mask=~inside, need_weights=False)
        queries = self.norms[0](queries + seen)
        told, _ = self.own(queries, queries, queries, need_weights=False)
        queries = self.norms[1](queries + told)
        return self.norms[2](queries + self.feedforward(queries))


class Decoder(nn.Module):
    """Masks and classes of one sweep.

    Args:
        embedding: width of the CLIP space. stuff: base stuff classes, each with a query of its
            own; theirs are the last rows.
        temperature: divides cosines at the start; scale and bias are learned on.
    """

    def __init__(
        self, config: DecoderConfig, embedding: int, stuff: int, temperature: float
    ) -> None:
        super().__init__()
        width = config.width
        self.config, self.stuff = config, stuff
        self.queries = nn.Parameter(torch.randn(config.queries + stuff, width))
        self.mix = nn.Sequential(
            nn.Linear(2 * embedding + 1 if config.fusion else embedding, width),
            nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width), nn.LayerNorm(width),
        )  # fmt: skip
        self.cartesian = nn.Sequential(nn.Linear(3, width), nn.LayerNorm(width))
        self.polar = nn.Sequential(nn.Linear(4, width), nn.LayerNorm(width))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.classify = perceptron(width, width, embedding)
        self.outline = perceptron(width, width, width)
        self.locate = perceptron(width, width, width)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.bias = nn.Parameter(torch.tensor(math.log(PROBABILITY / (1 - PROBABILITY))))

    def forward(
        self, embedding: torch.Tensor, image: torch.Tensor, xyz: torch.Tensor
    ) -> list[Prediction]:
        """A prediction of the queries as they are learned, and one after every layer.

        Args:
            embedding: (V, E), the sparse network's, not normalised.
            image: (V, E), unit rows; zero where no camera sees a voxel.
            xyz: (V, 3), metres, LiDAR frame.
        """
        features, places = self.features(embedding, image), self.places(xyz)
        queries = self.queries
        predictions = [self.predict(queries, features, places)]
        for layer in self.layers:
            inside = allowed(predictions[-1].mask.detach())
            queries = layer(queries, features + places, inside)
            predictions.append(self.predict(queries, features, places))
        return predictions

    def features(self, embedding: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """(V, D): what LiDAR and cameras say of a voxel, and whether a camera saw it."""
        if not self.config.fusion:
            return self.mix(embedding)
        seen = (image != 0).any(1, keepdim=True).to(image.dtype)
        return self.mix(torch.cat((embedding, image, seen), 1))

    def places(self, xyz: torch.Tensor) -> torch.Tensor:
        """(V, D): mixed Cartesian and polar positional embedding (P3Former).

        The azimuth goes in as cosine and sine, so that nothing jumps behind the vehicle (ours).
        """
        x, y, z = xyz.unbind(1)
        rho = (x * x + y * y).sqrt()
        far = rho.clamp(min=1e-6)
        cartesian = torch.stack((x / METRES, y / METRES, z / HEIGHT), 1)
        polar = torch.stack((rho / METRES, x / far, y / far, z / HEIGHT), 1)
        return self.cartesian(cartesian) + self.polar(polar)

    def predict(
        self, queries: torch.Tensor, features: torch.Tensor, places: torch.Tensor
    ) -> Prediction:
        """mask = <MLP(q), feature> + <MLP'(q), place>."""
        position = self.locate(queries) @ places.T
        return Prediction(
            normalize(self.classify(queries), dim=1),
            self.outline(queries) @ features.T + position,
            position,
        )

    def logits(self, cosine: torch.Tensor) -> torch.Tensor:
        """Cosines of class embeddings and classes to logits of a sigmoid."""
        return self.log_scale.exp() * cosine + self.bias


class PanopticNetwork(nn.Module):
    """The sparse network and the decoder behind it.

    The decoder takes the network's embeddings instead of the features before its last, linear
    layer: that layer widens them, so nothing is lost, and every runtime already yields them.
    """

    def __init__(self, trunk: UNet, decoder: Decoder) -> None:
        super().__init__()
        self.trunk, self.decoder = trunk, decoder
