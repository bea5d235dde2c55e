"""Precision written into the graph: half floats, with islands of float32 at both ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from afov.errors import InputError
from afov.runtimes.engine import Precision

LARGEST = float(np.finfo(np.float16).max)


def typed(graph: bytes, precision: Precision) -> bytes:
    """The exported graph in a precision, as a strongly typed network runs it.

    Args:
        graph: `student.onnx`, in float32.

    Returns:
        ONNX, opset and inputs unchanged, the embedding in float32.

    Raises:
        InputError: onnx is not installed, or a weight is too large for a half float.
    """
    return graph if precision == "fp32" else _rewritten(graph, _halve)


def typed_tower(graph: bytes, precision: Precision) -> bytes:
    """A text or image tower's graph in a precision: its products and convolutions in half floats.

    What is between them stays in float32: norms, softmax, GELU, and the sums that run through all
    blocks, which in a trained transformer have single entries in the hundreds.

    Args, returns and errors as of `typed`.
    """
    return graph if precision == "fp32" else _rewritten(graph, _halve_products)


def _rewritten(graph: bytes, rewrite: Callable[[Any], None]) -> bytes:
    try:
        import onnx
    except ImportError:
        raise InputError(
            "TensorRT: half floats are written with onnx, which is not installed; "
            "pip install 'afov[tensorrt]', or build with --precision fp32"
        ) from None
    model = onnx.load_model_from_string(graph)
    rewrite(model.graph)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _halve_products(graph: Any) -> None:
    from onnx import TensorProto, numpy_helper

    stored = {t.name: t for t in graph.initializer}
    halves: dict[str, Any] = {}  # what makes a half float of a value, or is one
    nodes = []
    for node in graph.node:
        if node.op_type not in ("MatMul", "Conv"):
            nodes.append(node)
            continue
        for name in node.input:
            if name in halves:
                continue
            if name in stored:
                half = _half(name, numpy_helper.to_array(stored[name]))
                halves[name] = numpy_helper.from_array(half, f"{name}:half")
            else:
                halves[name] = _cast(name, f"{name}:half", TensorProto.FLOAT16)
                nodes.append(halves[name])
        (out,) = node.output
        names = [f"{n}:half" for n in node.input]
        del node.input[:], node.output[:]
        node.input.extend(names)
        node.output.append(f"{out}:half")
        nodes += [node, _cast(f"{out}:half", out, TensorProto.FLOAT)]
    used = {name for node in nodes for name in node.input}
    kept = [t for t in graph.initializer if t.name in used]
    kept += [half for name, half in halves.items() if name in stored]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)


def _halve(graph: Any) -> None:
    """All between the stem and the head in half floats.

    The stem stays in float32 for the inputs' sake (faults of up to 1000, `afov.inputs`), the head
    for the embedding's. Nodes lie in the order of `afov.unet`: the first Relu ends the stem, and
    the head begins with the first use of its weights.
    """
    from onnx import TensorProto, numpy_helper

    nodes = list(graph.node)
    stem = next(i for i, n in enumerate(nodes) if n.op_type == "Relu") + 1
    head = next(i for i, n in enumerate(nodes) if "head.weight" in n.input)
    body, border = nodes[stem:head], nodes[stem - 1].output[0]
    floats = {
        t.name: numpy_helper.to_array(t)
        for t in graph.initializer
        if t.data_type == TensorProto.FLOAT
    }
    halves = {name for node in body for name in node.input if name in floats}
    for node in body:
        names = [f"{n}:half" if n in halves or n == border else n for n in node.input]
        del node.input[:]
        node.input.extend(names)
    last = nodes[head].input[0]
    down = _cast(border, f"{border}:half", TensorProto.FLOAT16)
    up = _cast(last, f"{last}:float", TensorProto.FLOAT)
    nodes[head].input[0] = f"{last}:float"
    kept = {n for node in nodes[:stem] + nodes[head:] for n in node.input}
    stored = [t for t in graph.initializer if t.name in kept or t.name not in floats]
    stored += [numpy_helper.from_array(_half(n, floats[n]), f"{n}:half") for n in sorted(halves)]
    del graph.node[:], graph.initializer[:]
    graph.node.extend([*nodes[:stem], down, *body, up, *nodes[head:]])
    graph.initializer.extend(stored)


def _cast(value: str, name: str, kind: int) -> Any:
    from onnx import helper

    return helper.make_node("Cast", [value], [name], to=kind)


def _half(name: str, value: np.ndarray) -> np.ndarray:
    if not np.abs(value).max(initial=0) <= LARGEST:
        raise InputError(
            f"TensorRT: weight {name} is too large for a half float; build with --precision fp32"
        )
    return value.astype(np.float16)
