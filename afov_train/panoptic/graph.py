"""The mask decoder as an ONNX graph of standard operators."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from torch import nn

from afov_train.onnx_graph import FLOAT, Graph
from afov_train.panoptic.decoder import APART, CANDIDATES, HEIGHT, METRES, Decoder, Layer


def graph(decoder: Decoder, embedding: int) -> onnx.ModelProto:
    """embedding (V, E), image (V, E), xyz (V, 3) to class_embedding (Q, E), mask (Q, V)."""
    return _Graph().build(decoder, embedding)


class _Graph(Graph):
    """`Decoder` step by step; only the last layer's prediction goes out."""

    def build(self, decoder: Decoder, embedding: int) -> onnx.ModelProto:
        """Voxels lie in columns from the first layer on, so that nothing is turned round there."""
        features, places = self.features(decoder), self.places(decoder)
        memory = self.node("Add", features, places)
        chosen = self.proposals(decoder, memory)
        away, of_voxel = self.away(chosen)
        both = self.node("Concat", features, places, of_voxel, axis=1)
        seats = (self.node("Gather", x, chosen, axis=0) for x in (features, places))
        first = self.dense(decoder.begin, self.node("Concat", *seats, axis=1))
        queries = self.node("Concat", first, self.constant(decoder.queries), axis=0)
        memory, both = (self.node("Transpose", x, perm=[1, 0]) for x in (memory, both))
        for layer in decoder.layers:
            assert isinstance(layer, Layer)
            mask = self.mask(decoder, queries, both, away)
            queries = self.layer(layer, queries, memory, mask)
        mask = self.mask(decoder, queries, both, away)
        rows = self.sequence(decoder.classify.children(), queries)
        length = self.node("ReduceL2", rows, axes=[1], keepdims=1)
        rows = self.node("Div", rows, self.node("Max", length, self.constant(1e-12)))
        self.output(rows, "class_embedding")
        self.output(mask, "mask")
        count = decoder.config.proposals + len(decoder.queries)
        into: dict[str, list[str | int]] = {
            "embedding": ["voxels", embedding],
            "image": ["voxels", embedding],
            "xyz": ["voxels", 3],
        }
        return self.model(
            "panoptic",
            {name: (FLOAT, size) for name, size in into.items()},
            {"class_embedding": [count, embedding], "mask": [count, "voxels"]},
        )

    def features(self, decoder: Decoder) -> str:
        """The first product in three parts: joining the wide rows first would take longer."""
        first, *rest = decoder.mix.children()
        assert isinstance(first, nn.Linear)
        if not decoder.config.fusion:
            return self.sequence([first, *rest], "embedding")
        width = (first.in_features - 1) // 2
        lidar, camera, flag = first.weight.split((width, width, 1), 1)
        length = self.node("ReduceL2", "image", axes=[1], keepdims=1)
        seen = self.node("Cast", self.node("Greater", length, self.constant(0)), to=FLOAT)
        x = self.affine("embedding", lidar, first.bias)
        x = self.node("Add", x, self.affine("image", camera, None))
        x = self.node("Add", x, self.node("Mul", seen, self.constant(flag.T)))
        return self.sequence(rest, x)

    def places(self, decoder: Decoder) -> str:
        scale = self.constant((1 / METRES, 1 / METRES, 1 / HEIGHT))
        cartesian = self.node("Mul", "xyz", scale)
        zero, two, three, one = (self.integers(i) for i in (0, 2, 3, 1))
        xy = self.node("Slice", "xyz", zero, two, one)
        z = self.node("Slice", cartesian, two, three, one)
        rho = self.node("ReduceL2", xy, axes=[1], keepdims=1)
        way = self.node("Div", xy, self.node("Max", rho, self.constant(1e-6)))
        far = self.node("Mul", rho, self.constant(1 / METRES))
        polar = self.node("Concat", far, way, z, axis=1)
        return self.node(
            "Add",
            self.sequence(decoder.cartesian.children(), cartesian),
            self.sequence(decoder.polar.children(), polar),
        )

    def proposals(self, decoder: Decoder, memory: str) -> str:
        """(P,) int64, as `decoder.proposals`."""
        count, rank = decoder.config.proposals, np.arange(CANDIDATES)
        centre = self.sequence(decoder.centre.children(), memory)
        centre = self.node("Reshape", centre, self.integers(-1))
        padded = self.node("Concat", centre, self.constant(np.full(CANDIDATES, -1e9)), axis=0)
        _, candidate = self.topk(padded, CANDIDATES, largest=1)
        last = self.node("Sub", self.node("Shape", centre), self.integers(1))
        candidate = self.node("Min", candidate, last)
        away = self.square_distances(candidate)
        near = self.node("Less", away, self.constant(APART**2))
        beaten = self.node("And", near, self.constant(rank < rank[:, None], bool))
        beaten = self.node("ReduceMax", self.node("Cast", beaten, to=FLOAT), axes=[1], keepdims=0)
        later = self.node("Mul", beaten, self.constant(CANDIDATES))
        _, first = self.topk(self.node("Add", self.constant(rank), later), count, largest=0)
        chosen, _ = self.topk(self.node("Gather", candidate, first, axis=0), count, largest=0)
        return chosen

    def square_distances(self, voxels: str) -> str:
        """(A, A): between the voxels with these indices, in the plane."""
        xy = self.node("Gather", self.xy(), voxels, axis=0)
        way = self.node("Sub", self.node("Unsqueeze", xy, self.integers(1)), xy)
        return self.node("ReduceSumSquare", way, axes=[2], keepdims=0)

    def away(self, chosen: str) -> tuple[str, str]:
        """(P, 4) and (V, 4): their product is -|p - v|^2 = 2pv - p^2 - v^2, in the plane.

        So it is part of a mask's one product, where it costs nothing.
        """
        xy = self.xy()
        square = self.node("ReduceSumSquare", xy, axes=[1], keepdims=1)
        minus = self.node("Neg", square)
        one = self.node("Add", self.node("Mul", square, self.constant(0)), self.constant(1))
        of_voxel = self.node("Concat", xy, minus, one, axis=1)
        mine, less, each = (self.node("Gather", x, chosen, axis=0) for x in (xy, minus, one))
        twice = self.node("Mul", mine, self.constant(2))
        return self.node("Concat", twice, each, less, axis=1), of_voxel

    def xy(self) -> str:
        return self.node("Slice", "xyz", self.integers(0), self.integers(2), self.integers(1))

    def topk(self, x: str, count: int, largest: int) -> tuple[str, str]:
        """Values and places of the first ones, in order."""
        values, places = (f"v{len(self.nodes)}.{i}" for i in range(2))
        into = [x, self.integers(count)]
        self.nodes.append(onnx.helper.make_node("TopK", into, [values, places], largest=largest))
        return values, places

    def mask(self, decoder: Decoder, queries: str, both: str, away: str) -> str:
        """(Q, V): what outlines a query's voxels, what locates them, and how far they are from
        the voxel at which it began, in one product."""
        outline = self.sequence(decoder.outline.children(), queries)
        locate = self.sequence(decoder.locate.children(), queries)
        first = self.integers(0), self.integers(decoder.config.proposals)
        reach = self.dense(decoder.reach, self.node("Slice", queries, *first))
        near = self.node("Mul", self.node("Softplus", reach), away)
        near = self.node("Pad", near, self.integers(0, 0, len(decoder.queries), 0))
        return self.node("MatMul", self.node("Concat", outline, locate, near, axis=1), both)

    def layer(self, layer: Layer, queries: str, memory: str, mask: str) -> str:
        first, second, third = (n for n in layer.norms if isinstance(n, nn.LayerNorm))
        seen = self.masked_attention(layer.cross, queries, memory, mask)
        queries = self.norm(first, self.node("Add", queries, seen))
        single = self.node("Unsqueeze", queries, self.integers(0))
        told = self.node("Squeeze", self.attention(layer.own, single, None), self.integers(0))
        queries = self.norm(second, self.node("Add", queries, told))
        more = self.sequence(layer.feedforward.children(), queries)
        return self.norm(third, self.node("Add", queries, more))

    def masked_attention(
        self, layer: nn.MultiheadAttention, queries: str, memory: str, mask: str
    ) -> str:
        """Queries attend inside of their masks, and everywhere where a mask is empty."""
        heads, width = layer.num_heads, layer.embed_dim
        of_q, *of_known = zip(
            layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3), strict=True
        )
        q = self.node("Mul", self.affine(queries, *of_q), self.constant((width // heads) ** -0.5))
        q = self.node("Reshape", q, self.integers(-1, heads, width // heads))
        q = self.node("Transpose", q, perm=[1, 0, 2])
        split = self.integers(heads, width // heads, -1)
        k, v = (
            self.node(
                "Reshape",
                self.node(
                    "Add",
                    self.node("MatMul", self.constant(weight), memory),
                    self.constant(bias[:, None]),
                ),
                split,
            )
            for weight, bias in of_known
        )
        v = self.node("Transpose", v, perm=[0, 2, 1])
        zero = self.constant(0)
        inside = self.node("Greater", mask, zero)
        largest = self.node("ReduceMax", mask, axes=[1], keepdims=1)
        empty = self.node("LessOrEqual", largest, zero)
        allowed = self.node("Or", inside, empty)
        # Half of float32's range instead of -inf: nothing can turn into NaN.
        outside = self.node("Where", allowed, zero, self.constant(-1e30))
        scores = self.node("Add", self.node("MatMul", q, k), outside)
        # A weight of e^-60 counts for nothing in float32; one below 1e-38 costs as much as thirty.
        most = self.node("ReduceMax", scores, axes=[2], keepdims=1)
        scores = self.node("Max", scores, self.node("Sub", most, self.constant(60)))
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), v)
        joined = self.node("Transpose", mixed, perm=[1, 0, 2])
        return self.dense(layer.out_proj, self.node("Reshape", joined, self.integers(-1, width)))

    def sequence(self, layers: Iterable[nn.Module], x: str) -> str:
        """Linear layers, LayerNorm and ReLU, one after the other."""
        for layer in layers:
            if isinstance(layer, nn.Linear):
                x = self.dense(layer, x)
            elif isinstance(layer, nn.LayerNorm):
                x = self.norm(layer, x)
            else:
                assert isinstance(layer, nn.ReLU)
                x = self.node("Relu", x)
        return x
