"""CLIP's text tower as an ONNX graph of standard operators, with its tokenizer and prompts."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto
from torch import nn

from afov.errors import InputError
from afov.model_parts import TowerFiles
from afov.tokenizer import write_merges
from afov_train.onnx_graph import Graph
from afov_train.teachers.config import TeacherConfig


def text_tower(config: TeacherConfig) -> TowerFiles | None:
    """The teacher's text tower for the vehicle; None, and a line that says why, without one."""
    from afov_train.teachers.open_clip_teacher import load_open_clip

    if config.imported is not None:
        print("no text tower: an imported teacher brings none", file=sys.stderr)
        return None
    model, _, tokenizer = load_open_clip(config)
    try:
        return tower_files(model, tokenizer, config.templates)
    except InputError as error:
        print(f"no text tower: {error}", file=sys.stderr)
        return None


def tower_files(model: Any, tokenizer: Any, templates: tuple[str, ...]) -> TowerFiles:
    """What the model folder holds of an open_clip model.

    Raises:
        InputError: a text tower that is no CLIP transformer, or another kind of tokenizer.
    """
    tower = getattr(model, "text", model)
    pooling = getattr(tower, "pool_type", getattr(tower, "text_pool_type", None))
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", ())
    supported = (
        pooling == "argmax"
        and getattr(tower, "cls_emb", None) is None
        and all(isinstance(getattr(b, "attn", None), nn.MultiheadAttention) for b in blocks)
        and isinstance(getattr(tower, "positional_embedding", None), torch.Tensor)
    )
    if not blocks or not supported:
        raise InputError("the teacher's text tower is not CLIP's transformer")
    if not hasattr(tokenizer, "bpe_ranks") or tokenizer.clean_fn.__name__ != "_clean_lower":
        raise InputError("the teacher's tokenizer is not CLIP's byte-pair encoding")
    return TowerFiles(
        _Graph().build(tower).SerializeToString(),
        write_merges(tokenizer.bpe_ranks),
        int(tower.positional_embedding.shape[0]),
        templates,
    )


class _Graph(Graph):
    """CLIP's text transformer."""

    def build(self, tower: Any) -> onnx.ModelProto:
        """tokens (T, L) int32 to embeddings (T, E) float32, not normalised."""
        position, mask = tower.positional_embedding, tower.attn_mask
        # No token sees a later one, so texts may be cut where the longest of them ends.
        length = self.node("Shape", "tokens", start=1, end=2)
        zero = self.integers(0)
        x = self.node("Gather", self.constant(tower.token_embedding.weight), "tokens", axis=0)
        place = self.node("Slice", self.constant(position), zero, length, zero)
        x = self.node("Add", x, place)
        if mask is not None:
            both = self.node("Concat", length, length, axis=0)
            # Half of float32's range instead of -inf: nothing can turn into NaN.
            finite = self.constant(torch.nan_to_num(mask.float(), neginf=-1e30))
            mask = self.node("Slice", finite, self.integers(0, 0), both, self.integers(0, 1))
        for block in tower.transformer.resblocks:
            branch = self.attention(block.attn, self.norm(block.ln_1, x), mask)
            x = self.add_scaled(x, branch, block.ls_1)
            branch = self.perceptron(block.mlp, self.norm(block.ln_2, x))
            x = self.add_scaled(x, branch, block.ls_2)
        x = self.norm(tower.ln_final, x)
        # The row of the last token, which has the highest id; as floats, for TensorRT's sake.
        highest = self.node("Cast", "tokens", to=TensorProto.FLOAT)
        last = self.node("ArgMax", highest, axis=1, keepdims=1)
        places = self.constant(np.arange(len(position)), np.int32)
        places = self.node("Slice", places, zero, length, zero)
        row = self.node("Equal", places, self.node("Cast", last, to=TensorProto.INT32))
        row = self.node("Cast", row, to=TensorProto.FLOAT)
        x = self.node("MatMul", self.node("Unsqueeze", row, self.integers(1)), x)
        x = self.node("Squeeze", x, self.integers(1))
        projection = tower.text_projection
        if isinstance(projection, nn.Linear):
            x = self.dense(projection, x)
        elif projection is not None:
            x = self.node("MatMul", x, self.constant(projection))
        self.output(x, "embedding")
        tokens: dict[str, tuple[int, list[str | int]]]
        tokens = {"tokens": (TensorProto.INT32, ["texts", "length"])}
        return self.model("text_tower", tokens, {"embedding": ["texts", "width"]})
