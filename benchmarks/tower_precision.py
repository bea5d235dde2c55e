"""What half floats do to CLIP's towers, without a GPU: their typed graphs, rounded as written.

    python benchmarks/tower_precision.py [--clip ViT-B-16] [--weights FILE]

ONNX Runtime's processor has no half floats and leaves out most of the rounding, so onnx's reference
evaluator runs the graphs here; its products alone are replaced, by float32 ones that are rounded,
which is what a tensor core does. Without --weights they are fresh.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import open_clip
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from afov.runtimes.tower_plans import TowerPlan
from afov.towers import Run
from afov_train.teachers.config import TeacherConfig
from afov_train.teachers.image_onnx import image_tower
from afov_train.teachers.text_onnx import text_tower


class MatMul(OpRun):
    """Half floats in and out, float32 within."""

    op_domain = ""

    def _run(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray]:
        one, other = (torch.from_numpy(np.asarray(t, np.float32)) for t in (a, b))
        return ((one @ other).numpy().astype(a.dtype),)


class Conv(OpRun):
    """The same."""

    op_domain = ""

    def _run(self, x: np.ndarray, w: np.ndarray, *bias: np.ndarray, **about: object) -> tuple:
        given = (torch.from_numpy(np.asarray(t, np.float32)) for t in (x, w, *bias))
        found = torch.nn.functional.conv2d(*given, stride=about["strides"])
        return (found.numpy().astype(x.dtype),)


def main() -> None:
    """One line per tower."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", default="ViT-B-16")
    parser.add_argument("--weights", type=Path)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        weights = options.weights or fresh(options.clip, Path(folder))
        for plan in plans(TeacherConfig(options.clip, weights=weights)):
            worst = plan.difference(rounding(plan.graph("fp16"), plan.reference().kind), "fp16")
            print(f"{options.clip}, {plan.what}: at most {worst:.1e} of an embedding's length")


def fresh(clip: str, folder: Path) -> Path:
    """Weights as they are before training."""
    torch.manual_seed(0)
    torch.save(open_clip.create_model(clip).state_dict(), folder / "fresh.pt")
    return folder / "fresh.pt"


def plans(config: TeacherConfig) -> list[TowerPlan]:
    """Two windows of noise, and a phrase in all its prompts."""
    text = text_tower(config)
    assert text is not None
    of_text = TowerPlan.of(text)
    image = TowerPlan.of(image_tower(config, (1, 2)))
    return [image, replace(of_text, samples=of_text.samples[:1])]


def rounding(graph: bytes, kind: np.dtype) -> Run:
    """The graph as a function that rounds after every operation."""
    model = onnx.load_model_from_string(graph)
    evaluator, name = ReferenceEvaluator(model, new_ops=[MatMul, Conv]), model.graph.input[0].name
    return lambda given: evaluator.run(None, {name: given.astype(kind)})[0]


if __name__ == "__main__":
    main()
