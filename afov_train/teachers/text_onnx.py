"""CLIP's text tower as an ONNX graph of standard operators, with its tokenizer and prompts."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from afov.errors import InputError
from afov.model_folder import TowerFiles
from afov.tokenizer import write_merges
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


class _Graph:
    """Values are names; each method adds the nodes of one layer."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def node(self, kind: str, *into: str, **attributes: Any) -> str:
        out = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, into, [out], **attributes))
        return out

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        if isinstance(value, torch.Tensor):
            value = value.detach().float().cpu().numpy()
        name = f"c{len(self.constants)}"
        self.constants[name] = np.array(value, dtype, order="C")
        return name

    def integers(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def build(self, tower: Any) -> onnx.ModelProto:
        """tokens (T, L) int64 to embeddings (T, E) float32, not normalised."""
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
        # The row of the last token, which has the highest id.
        last = self.node("ArgMax", "tokens", axis=1, keepdims=0)
        on_off = self.constant((0, 1))
        scalar = self.node("Squeeze", length)
        row = self.node("OneHot", last, scalar, on_off, axis=-1)
        x = self.node("MatMul", self.node("Unsqueeze", row, self.integers(1)), x)
        x = self.node("Squeeze", x, self.integers(1))
        projection = tower.text_projection
        if isinstance(projection, nn.Linear):
            x = self.linear(projection, x)
        elif projection is not None:
            x = self.node("MatMul", x, self.constant(projection))
        self.nodes.append(helper.make_node("Identity", [x], ["embedding"]))
        return self.model()

    def model(self) -> onnx.ModelProto:
        tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["texts", "length"])
        out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["texts", "width"])
        stored = [numpy_helper.from_array(v, name) for name, v in self.constants.items()]
        body = helper.make_graph(self.nodes, "text_tower", [tokens], [out], stored)
        model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model

    def attention(self, layer: nn.MultiheadAttention, x: str, mask: str | None) -> str:
        """Multi-head self-attention (1706.03762, section 3.2)."""
        heads, width = layer.num_heads, layer.embed_dim
        qkv = self.affine(x, layer.in_proj_weight, layer.in_proj_bias)
        split = self.node("Reshape", qkv, self.integers(0, 0, 3, heads, width // heads))
        split = self.node("Transpose", split, perm=[2, 0, 3, 1, 4])
        q, k, v = (self.node("Gather", split, self.constant(i, np.int64), axis=0) for i in range(3))
        q = self.node("Mul", q, self.constant((width // heads) ** -0.5))
        scores = self.node("MatMul", q, self.node("Transpose", k, perm=[0, 1, 3, 2]))
        if mask is not None:
            scores = self.node("Add", scores, mask)
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), v)
        joined = self.node("Transpose", mixed, perm=[0, 2, 1, 3])
        return self.linear(layer.out_proj, self.node("Reshape", joined, self.integers(0, 0, width)))

    def perceptron(self, mlp: Any, x: str) -> str:
        """Two layers with GELU between them, or OpenAI's quick form of it."""
        x = self.linear(mlp.c_fc, x)
        if isinstance(mlp.gelu, nn.GELU):
            half = self.node("Mul", x, self.constant(0.5))
            error = self.node("Erf", self.node("Mul", x, self.constant(0.5**0.5)))
            x = self.node("Mul", half, self.node("Add", error, self.constant(1)))
        elif type(mlp.gelu).__name__ == "QuickGELU":
            x = self.node("Mul", x, self.node("Sigmoid", self.node("Mul", x, self.constant(1.702))))
        else:
            raise InputError(f"the teacher's text tower has {type(mlp.gelu).__name__}, not GELU")
        return self.linear(mlp.c_proj, x)

    def norm(self, layer: nn.LayerNorm, x: str) -> str:
        scale, bias = self.constant(layer.weight), self.constant(layer.bias)
        return self.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=layer.eps)

    def linear(self, layer: nn.Linear, x: str) -> str:
        return self.affine(x, layer.weight, layer.bias)

    def affine(self, x: str, weight: torch.Tensor, bias: torch.Tensor | None) -> str:
        x = self.node("MatMul", x, self.constant(weight.T))
        return x if bias is None else self.node("Add", x, self.constant(bias))

    def add_scaled(self, x: str, branch: str, scale: nn.Module) -> str:
        if not isinstance(scale, nn.Identity):
            branch = self.node("Mul", branch, self.constant(scale.gamma))
        return self.node("Add", x, branch)
