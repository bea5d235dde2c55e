"""The mask decoder: queries attend to voxels and answer with masks and classes (P3Former's head,
with one classification head in CLIP space, 2401.02402)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import normalize, pad, softplus

from afov_train.network.unet import UNet
from afov_train.panoptic.config import CANDIDATES, DecoderConfig

METRES = 50.0  # brings x, y and rho to the order of 1
HEIGHT = 3.0  # and z
PROBABILITY = 0.1  # of a class whose text is orthogonal to a query, at the start
APART = 1.0  # metres between two proposals
REACH = 1.5  # metres from a proposal at which its mask has lost half a logit, at the start


class Voxels(NamedTuple):
    """What queries look at.

    Attributes:
        features: (V, D), what LiDAR and cameras say. places: (V, D), where.
        xyz: (V, 3), metres, LiDAR frame.
        centre: (V,) logits, whether a voxel is the middle one of a thing.
    """

    features: torch.Tensor
    places: torch.Tensor
    xyz: torch.Tensor
    centre: torch.Tensor


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


def square_distances(xyz: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(A, 3) and (B, 3), metres, to (A, B), square metres in the plane."""
    return (xyz[:, None, :2] - others[:, :2]).square().sum(2)


@torch.no_grad()
def proposals(centre: torch.Tensor, xyz: torch.Tensor, count: int) -> torch.Tensor:
    """(count,) int64: the voxels likeliest to be the middle of a thing, in their own order.

    One within a metre of a likelier one comes after all others (CenterPoint, 2006.11275, keeps the
    maxima of its map alike). Where there are too few voxels the last one stands in.

    Args:
        centre: (V,) logits. xyz: (V, 3), metres.
    """
    candidate = pad(centre, (0, CANDIDATES), value=-1e9).topk(CANDIDATES).indices
    candidate = candidate.clamp(max=len(centre) - 1)
    near = square_distances(xyz[candidate], xyz[candidate]) < APART**2
    rank = torch.arange(CANDIDATES, device=xyz.device)
    beaten = (near & (rank < rank[:, None])).any(1)
    first = (rank + CANDIDATES * beaten).topk(count, largest=False).indices
    # Not by rank: two that are all but alike would come either way round in another runtime.
    return candidate[first].sort().values


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

    The queries: `config.proposals` that begin at a voxel each, `config.queries` learned ones, and
    one for each base stuff class.

    Args:
        embedding: width of the CLIP space. stuff: base stuff classes; theirs are the last rows.
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
        middle = nn.Linear(width, 1)
        nn.init.constant_(middle.bias, -3.0)  # hardly any voxel is one
        self.centre = nn.Sequential(nn.Linear(width, width), nn.ReLU(), middle)
        self.begin = nn.Linear(2 * width, width)
        self.reach = nn.Linear(width, 1)
        nn.init.zeros_(self.reach.weight)
        nn.init.constant_(self.reach.bias, math.log(math.expm1(1 / (2 * REACH**2))))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.classify = perceptron(width, width, embedding)
        self.outline = perceptron(width, width, width)
        self.locate = perceptron(width, width, width)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.bias = nn.Parameter(torch.tensor(math.log(PROBABILITY / (1 - PROBABILITY))))

    def forward(
        self, embedding: torch.Tensor, image: torch.Tensor, xyz: torch.Tensor
    ) -> list[Prediction]:
        """What `decode` answers to what `voxels` makes of a sweep."""
        return self.decode(self.voxels(embedding, image, xyz))

    def voxels(self, embedding: torch.Tensor, image: torch.Tensor, xyz: torch.Tensor) -> Voxels:
        """What queries look at.

        Args:
            embedding: (V, E), the sparse network's, not normalised.
            image: (V, E), unit rows; zero where no camera sees a voxel.
            xyz: (V, 3), metres, LiDAR frame.
        """
        features, places = self.features(embedding, image), self.places(xyz)
        centre = self.centre(features + places)[:, 0]
        return Voxels(features, places, xyz, centre)

    def decode(self, voxels: Voxels) -> list[Prediction]:
        """A prediction of the queries as they begin, and one after every layer."""
        features, places, xyz, centre = voxels
        chosen = proposals(centre, xyz, self.config.proposals)
        away = square_distances(xyz[chosen], xyz)
        first = self.begin(torch.cat((features[chosen], places[chosen]), 1))
        queries = torch.cat((first, self.queries))
        predictions = [self.predict(queries, voxels, away)]
        for layer in self.layers:
            inside = allowed(predictions[-1].mask.detach())
            queries = layer(queries, features + places, inside)
            predictions.append(self.predict(queries, voxels, away))
        return predictions

    def features(self, embedding: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """(V, D): what LiDAR and cameras say of a voxel, and whether a camera saw it."""
        if not self.config.fusion:
            return self.mix(embedding)
        seen = (image.norm(dim=1, keepdim=True) > 0).to(image.dtype)
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

    def predict(self, queries: torch.Tensor, voxels: Voxels, away: torch.Tensor) -> Prediction:
        """mask = <MLP(q), feature> + <MLP'(q), place> - reach(q) x distance^2 to its proposal.

        The last term is ours: what lies 20 m from where a query began is not the same thing.

        Args:
            away: (P, V), square metres, of the queries that began at a voxel, the first ones.
        """
        near = softplus(self.reach(queries[: len(away)])) * away
        near = pad(near, (0, 0, 0, len(queries) - len(away)))
        position = self.locate(queries) @ voxels.places.T - near
        return Prediction(
            normalize(self.classify(queries), dim=1),
            self.outline(queries) @ voxels.features.T + position,
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
