"""Transformers as ONNX graphs of standard operators: values are names, each method adds nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from afov.errors import InputError

FLOAT = TensorProto.FLOAT


class Graph:
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

    def model(
        self,
        name: str,
        inputs: dict[str, tuple[int, list[str | int]]],
        outputs: dict[str, list[str | int]],
    ) -> onnx.ModelProto:
        """The graph, checked.

        Args:
            inputs: element type (`TensorProto`) and size by name. outputs: sizes of float32 by
                name; a name in place of a number is a dynamic size.
        """
        into = [helper.make_tensor_value_info(n, *about) for n, about in inputs.items()]
        out = [helper.make_tensor_value_info(n, FLOAT, size) for n, size in outputs.items()]
        stored = [numpy_helper.from_array(v, n) for n, v in self.constants.items()]
        body = helper.make_graph(self.nodes, name, into, out, stored)
        model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model

    def output(self, value: str, name: str) -> None:
        """Gives a value the name of an output."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))

    def attention(self, layer: nn.MultiheadAttention, x: str, mask: str | None) -> str:
        """Multi-head self-attention (1706.03762, section 3.2)."""
        q, k, v = self.heads(layer, x)
        q = self.node("Mul", q, self.constant((layer.embed_dim // layer.num_heads) ** -0.5))
        scores = self.node("MatMul", q, self.node("Transpose", k, perm=[0, 1, 3, 2]))
        if mask is not None:
            scores = self.node("Add", scores, mask)
        return self.joined(layer, self.node("MatMul", self.node("Softmax", scores, axis=-1), v))

    def heads(self, layer: nn.MultiheadAttention, x: str) -> tuple[str, str, str]:
        """(B, T, D) to queries, keys and values, (B, heads, T, D / heads) each."""
        heads, width = layer.num_heads, layer.embed_dim
        qkv = self.affine(x, layer.in_proj_weight, layer.in_proj_bias)
        split = self.node("Reshape", qkv, self.integers(0, 0, 3, heads, width // heads))
        split = self.node("Transpose", split, perm=[2, 0, 3, 1, 4])
        q, k, v = (self.node("Gather", split, self.constant(i, np.int32), axis=0) for i in range(3))
        return q, k, v

    def joined(self, layer: nn.MultiheadAttention, x: str) -> str:
        """The heads side by side again, through the last projection."""
        joined = self.node("Transpose", x, perm=[0, 2, 1, 3])
        return self.dense(
            layer.out_proj, self.node("Reshape", joined, self.integers(0, 0, layer.embed_dim))
        )

    def perceptron(self, mlp: Any, x: str) -> str:
        """Two layers with GELU between them, or OpenAI's quick form of it."""
        x = self.dense(mlp.c_fc, x)
        if isinstance(mlp.gelu, nn.GELU):
            # In these steps: ONNX Runtime knows them and makes one of them.
            error = self.node("Erf", self.node("Div", x, self.constant(2**0.5)))
            x = self.node("Mul", x, self.node("Add", error, self.constant(1)))
            x = self.node("Mul", x, self.constant(0.5))
        elif type(mlp.gelu).__name__ == "QuickGELU":
            x = self.node("Mul", x, self.node("Sigmoid", self.node("Mul", x, self.constant(1.702))))
        else:
            raise InputError(f"the teacher's transformer has {type(mlp.gelu).__name__}, not GELU")
        return self.dense(mlp.c_proj, x)

    def norm(self, layer: nn.LayerNorm, x: str) -> str:
        scale, bias = self.constant(layer.weight), self.constant(layer.bias)
        return self.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=layer.eps)

    def dense(self, layer: nn.Linear, x: str) -> str:
        return self.affine(x, layer.weight, layer.bias)

    def affine(self, x: str, weight: torch.Tensor, bias: torch.Tensor | None) -> str:
        x = self.node("MatMul", x, self.constant(weight.T))
        return x if bias is None else self.node("Add", x, self.constant(bias))

    def add_scaled(self, x: str, branch: str, scale: nn.Module) -> str:
        if not isinstance(scale, nn.Identity):
            branch = self.node("Mul", branch, self.constant(scale.gamma))
        return self.node("Add", x, branch)
