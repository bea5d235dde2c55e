"""CLIP's image tower as an ONNX graph: an image of one size to a map of features in CLIP space."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto

from afov.errors import InputError
from afov.image_tower import windows
from afov.model_parts import ImageTowerFiles
from afov_train.onnx_graph import Graph
from afov_train.teachers.config import TeacherConfig
from afov_train.teachers.dense import WINDOW, dense_features

TOLERANCE = 1e-4


def image_tower(config: TeacherConfig, size: tuple[int, int]) -> ImageTowerFiles:
    """The teacher's image tower for the vehicle.

    Args:
        size: rows and columns of windows that an image is cut into, each as large as the tower's
            own input.

    Raises:
        InputError: no open_clip vision transformer, or the graph disagrees with torch.
    """
    from afov_train.teachers.open_clip_teacher import load_open_clip

    if config.imported is not None:
        raise InputError(
            "--teacher.imported: an imported teacher brings no image tower, which the panoptic "
            "model needs on the vehicle; name the CLIP model behind it with --teacher.model"
        )
    model, preprocess, _ = load_open_clip(config)
    visual = model.visual
    if not hasattr(visual, "conv1") or getattr(visual, "attn_pool", None) is not None:
        raise InputError(
            f"teacher {config.model}: its image tower is no plain vision transformer, the only "
            "kind that can be exported; take a ViT"
        )
    normalise = next(t for t in preprocess.transforms if hasattr(t, "mean"))
    window = int(np.ravel(visual.image_size)[0])
    onnx = _Graph().build(visual, normalise.mean, normalise.std, window, size)
    files = ImageTowerFiles(
        onnx.SerializeToString(), size[0] * window, size[1] * window, int(model.visual.output_dim)
    )
    check_image_tower(files, visual, normalise, window)
    return files


def check_image_tower(files: ImageTowerFiles, visual: Any, normalise: Any, window: int) -> float:
    """The largest difference between the graph and torch on an image of noise.

    Raises:
        InputError: it is above 1e-4.
    """
    image = np.random.default_rng(0).integers(0, 256, (files.height, files.width, 3), np.uint8)
    cut = torch.from_numpy(windows(image, window)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (normalise.mean, normalise.std))
    with torch.inference_mode():
        dense = dense_features(visual.cpu(), (cut - mean) / std)
    rows, cols = files.height // window, files.width // window
    expected = dense.unflatten(0, (rows, cols)).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    session = onnxruntime.InferenceSession(files.onnx, providers=["CPUExecutionProvider"])
    got = session.run(None, {"image": image})[0]
    difference = float(np.abs(got - expected.numpy()).max())
    if not difference <= TOLERANCE:
        raise InputError(
            f"export: ONNX Runtime and torch see an image {difference:.1e} apart, at most "
            f"{TOLERANCE:.0e} is allowed; nothing was written"
        )
    return difference


class _Graph(Graph):
    """`dense_features` of a vision transformer, window by window."""

    def build(self, visual: Any, mean: Any, std: Any, window: int, size: tuple[int, int]) -> Any:
        """image (H, W, 3) uint8 RGB to (h, w, E) float32, unit vectors."""
        rows, cols = size
        x = self.node("Cast", "image", to=TensorProto.FLOAT)
        x = self.node("Reshape", x, self.integers(rows, window, cols, window, 3))
        x = self.node("Transpose", x, perm=[0, 2, 4, 1, 3])
        x = self.node("Reshape", x, self.integers(rows * cols, 3, window, window))
        scale = 1 / (255 * np.array(std))
        x = self.node("Mul", x, self.constant(scale.reshape(3, 1, 1)))
        x = self.node("Sub", x, self.constant((np.array(mean) / np.array(std)).reshape(3, 1, 1)))
        x = self.tokens(visual, x, rows * cols)
        average = getattr(visual, "pool_type", "tok") == "avg"
        places, whole = (self.mean_of_tokens if average else self.value_path)(visual, x)
        # Every place pulled a little towards its window's own answer, as the teacher does.
        whole = self.node("Mul", self.unit(whole), self.constant(WINDOW))
        x = self.unit(self.node("Add", self.unit(places), whole))
        side, width = window // visual.conv1.kernel_size[0], int(visual.output_dim)
        x = self.node("Reshape", x, self.integers(rows, cols, side, side, width))
        x = self.node("Transpose", x, perm=[0, 2, 1, 3, 4])
        x = self.node("Reshape", x, self.integers(rows * side, cols * side, width))
        self.output(x, "features")
        return self.model(
            "image_tower",
            {"image": (TensorProto.UINT8, [rows * window, cols * window, 3])},
            {"features": [rows * side, cols * side, width]},
        )

    def tokens(self, visual: Any, x: str, batch: int) -> str:
        """(B, 3, S, S) to (B, T + 1, D): the class token, then a token per patch."""
        weight = self.constant(visual.conv1.weight)
        stride = list(visual.conv1.stride)
        bias = () if visual.conv1.bias is None else (self.constant(visual.conv1.bias),)
        x = self.node("Conv", x, weight, *bias, strides=stride)
        x = self.node("Reshape", x, self.integers(batch, visual.conv1.out_channels, -1))
        x = self.node("Transpose", x, perm=[0, 2, 1])
        first = visual.class_embedding.expand(batch, 1, -1)
        x = self.node("Concat", self.constant(first), x, axis=1)
        x = self.node("Add", x, self.constant(visual.positional_embedding))
        return x if isinstance(visual.ln_pre, torch.nn.Identity) else self.norm(visual.ln_pre, x)

    def block(self, block: Any, x: str) -> str:
        x = self.add_scaled(
            x, self.attention(block.attn, self.norm(block.ln_1, x), None), block.ls_1
        )
        return self.add_scaled(x, self.perceptron(block.mlp, self.norm(block.ln_2, x)), block.ls_2)

    def projected(self, visual: Any, x: str) -> str:
        return self.node("MatMul", self.norm(visual.ln_post, x), self.constant(visual.proj))

    def patches(self, x: str) -> str:
        """All tokens but the first."""
        last = np.iinfo(np.int32).max
        return self.node("Slice", x, self.integers(1), self.integers(last), self.integers(1))

    def mean_of_tokens(self, visual: Any, x: str) -> tuple[str, str]:
        """As `dense._mean_of_tokens`."""
        for block in visual.transformer.resblocks:
            x = self.block(block, x)
        places = self.patches(self.projected(visual, x))
        return places, self.node("ReduceMean", places, axes=[1], keepdims=1)

    def value_path(self, visual: Any, x: str) -> tuple[str, str]:
        """As `dense._value_path`."""
        *early, last = visual.transformer.resblocks
        for block in early:
            x = self.block(block, x)
        own = self.self_correlation(last.attn, self.norm(last.ln_1, x))
        places = self.patches(self.projected(visual, own))
        first = self.node(
            "Slice", self.block(last, x), self.integers(0), self.integers(1), self.integers(1)
        )
        return places, self.projected(visual, first)

    def self_correlation(self, layer: Any, x: str) -> str:
        """Tokens attend to tokens like themselves: (q q' + k k') v / 2."""
        q, k, v = self.heads(layer, x)
        scale = self.constant((layer.embed_dim // layer.num_heads) ** -0.5)
        mixed = []
        for rows in (q, k):
            scores = self.node("MatMul", rows, self.node("Transpose", rows, perm=[0, 1, 3, 2]))
            weights = self.node("Softmax", self.node("Mul", scores, scale), axis=-1)
            mixed.append(self.node("MatMul", weights, v))
        half = self.node("Mul", self.node("Add", *mixed), self.constant(0.5))
        return self.joined(layer, half)

    def unit(self, x: str) -> str:
        """Rows of length 1; torch's normalize."""
        length = self.node("ReduceL2", x, axes=[-1], keepdims=1)
        return self.node("Div", x, self.node("Max", length, self.constant(1e-12)))
