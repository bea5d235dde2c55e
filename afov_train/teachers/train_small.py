"""Trains the embedded open_clip model on simulated images and captions.

    python -m afov_train.teachers.train_small --minutes 60 --out afov_train/teachers/small

The model sees 64-pixel windows. Its lesson: token-aligned rectangles of a window against captions
of what fills them ("a photo of a lorry."), as CLIP learns from images and texts; a rectangle's
captions are any phrases of its class, in any template. No masks, no pixel labels at its output.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import log_softmax, normalize

from afov.sources.nuscenes_classes import RAW_TO_16
from afov.vocabulary import Vocabulary
from afov_train.teachers.bpe import learn_merges, write_merges
from afov_train.teachers.templates import TEMPLATES

PATCH, WINDOW = 8, 64
SKY = 255
# Raw classes outside the sixteen, by the absorber that names them.
ABSORBED = {
    1: "animal", 5: "personal_mobility", 7: "stroller", 8: "wheelchair", 10: "debris",
    11: "pushable", 13: "bicycle_rack", 19: "ambulance", 20: "police_car", SKY: "sky",
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 96,
        "vision_cfg": {
            "image_size": WINDOW, "layers": 4, "width": 128, "head_width": 32,
            "patch_size": PATCH, "pool_type": "avg",
        },
        "text_cfg": {
            "context_length": 20, "vocab_size": 0, "width": 64, "heads": 2, "layers": 2,
        },
    },
    "preprocess_cfg": {
        "mean": [0.45, 0.45, 0.45], "std": [0.25, 0.25, 0.25],
        "interpolation": "bicubic", "resize_mode": "squash",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Views:
    """Simulated images (I, H, W, 3) uint8 and, per pixel, the vocabulary's category (I, H, W)."""

    rgb: np.ndarray
    category: np.ndarray


def raw_to_category(vocabulary: Vocabulary) -> np.ndarray:
    """(256,) uint8: index into `vocabulary.classes`; 255 where nothing is said."""
    names = [c.name for c in vocabulary.classes]
    table = np.full(256, 255, np.uint8)
    for raw, official in enumerate(RAW_TO_16):
        if official:
            table[raw] = names.index(vocabulary.labelled[official - 1].name)
    for raw, name in ABSORBED.items():
        table[raw] = names.index(name)
    return table


def render(streets: int, views: int, table: np.ndarray, seed: int = 77) -> Views:
    """Images of many streets, two processes at work."""
    jobs = [(seed, street, views) for street in range(streets)]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        pairs = [p for batch in pool.map(_render_street, jobs) for p in batch]
    rgb = np.stack([p[0] for p in pairs])
    return Views(rgb, table[np.stack([p[1] for p in pairs])])


def _render_street(job: tuple[int, int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    from afov_train.simulation.drive import views

    seed, street, count = job
    return list(views(seed, street, count, 800, 448))


def windows(views: Views, size: int, rng: np.random.Generator) -> tuple[torch.Tensor, np.ndarray]:
    """Random windows, more of them about rare classes.

    Returns:
        images (B, 3, 64, 64) float32 in 0..1; categories (B, 64, 64) uint8.
    """
    images: list[torch.Tensor] = []
    labels: list[np.ndarray] = []
    count, height, width = views.category.shape
    while len(images) < size:
        i = int(rng.integers(count))
        side = int(WINDOW * rng.choice([0.75, 1, 1.5, 2, 3]))
        if rng.random() < 0.7:
            category = views.category[i, ::4, ::4]
            wanted = rng.choice(np.unique(category))
            row, col = np.argwhere(category == wanted)[rng.integers((category == wanted).sum())] * 4
            top = int(row - rng.integers(side))
            left = int(col - rng.integers(side))
        else:
            top, left = int(rng.integers(height)), int(rng.integers(width))
        top, left = min(max(top, 0), height - side), min(max(left, 0), width - side)
        cut = np.s_[i, top : top + side, left : left + side]
        place = (np.arange(WINDOW) + 0.5) * side / WINDOW
        nearest = np.ix_(place.astype(int), place.astype(int))
        image = torch.from_numpy(views.rgb[cut]).permute(2, 0, 1)[None].float() / 255
        if side != WINDOW:
            image = torch.nn.functional.interpolate(
                image, (WINDOW, WINDOW), mode="bilinear", antialias=True
            )
        label = views.category[cut][nearest]
        if rng.random() < 0.5:
            image, label = image.flip(-1), label[:, ::-1]
        images.append(image * float(rng.uniform(0.8, 1.2)))
        labels.append(label)
    return torch.cat(images).clamp(0, 1), np.stack(labels)


def rectangles(
    labels: np.ndarray, per_window: int, rng: np.random.Generator, purity: float = 0.6
) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Token-aligned rectangles with a majority: window, top, bottom, left, right, category."""
    side = WINDOW // PATCH
    for window, label in enumerate(labels):
        for _ in range(per_window):
            h, w = np.minimum(rng.geometric(0.45, 2), side)
            top, left = int(rng.integers(side - h + 1)), int(rng.integers(side - w + 1))
            inside = label[top * PATCH : (top + h) * PATCH, left * PATCH : (left + w) * PATCH]
            counts = np.bincount(inside.ravel(), minlength=256)
            best = int(counts.argmax())
            if best != 255 and counts[best] >= purity * inside.size:
                yield window, top, top + int(h), left, left + int(w), best


def lesson(
    model: Any, tokenizer: Any, vocabulary: Vocabulary, views: Views, size: int,
    rng: np.random.Generator, mean: torch.Tensor, std: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """The contrastive loss of one batch, both ways; texts of one category are all right answers."""
    images, labels = windows(views, size, rng)
    model.visual.output_tokens = True
    _, tokens = model.visual((images - mean) / std)
    side = WINDOW // PATCH
    dense = (tokens @ model.visual.proj).unflatten(1, (side, side))
    # Summed-area table: any rectangle's mean costs four look-ups.
    table = torch.nn.functional.pad(dense, (0, 0, 1, 0, 1, 0)).cumsum(1).cumsum(2)
    found = np.array(list(rectangles(labels, 14, rng)))
    w, top, bottom, left, right, category = torch.from_numpy(found).T
    total = table[w, bottom, right] - table[w, top, right]
    total = total - table[w, bottom, left] + table[w, top, left]
    regions = normalize(total, dim=1)

    texts, owners = [], []
    for c in np.unique(found[:, 5]):
        phrases = vocabulary.classes[c].phrases
        for _ in range(4):
            phrase = phrases[rng.integers(len(phrases))]
            texts.append(TEMPLATES[rng.integers(len(TEMPLATES))].format(phrase))
            owners.append(c)
    encoded = normalize(model.encode_text(tokenizer(texts)), dim=1)
    logits = model.logit_scale.exp() * regions @ encoded.T
    right_answer = (category[:, None] == torch.tensor(np.array(owners))[None]).float()
    to_text = right_answer / right_answer.sum(1, keepdim=True)
    to_region = right_answer / right_answer.sum(0, keepdim=True)
    by_text = -(to_text * log_softmax(logits, 1)).sum(1)
    by_region = -(to_region * log_softmax(logits, 0)).sum(0)
    return (by_text.mean() + by_region.mean()) / 2


def corpus(vocabulary: Vocabulary) -> list[str]:
    """Every phrase in every template."""
    return [t.format(p) for p in vocabulary.phrases for t in TEMPLATES]


def prepare(folder: Path, vocabulary: Vocabulary, merges: int = 1500) -> None:
    """Writes the tokenizer's merges and the model's configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    learned = learn_merges(corpus(vocabulary), merges)
    write_merges(learned, folder / "bpe_merges.txt.gz")
    CONFIG["model_cfg"]["text_cfg"]["vocab_size"] = 512 + len(learned) + 2
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")


def train(views: Views, vocabulary: Vocabulary, folder: Path, minutes: float, size: int) -> None:
    """Trains for `minutes`, learning rate falling with the clock; saves every five."""
    import open_clip
    from safetensors.torch import save_file

    prepare(folder, vocabulary)
    config = CONFIG["model_cfg"]
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model: Any = open_clip.CLIP(
        config["embed_dim"], {**config["vision_cfg"]}, {**config["text_cfg"]}
    )
    tokenizer = open_clip.SimpleTokenizer(
        str(folder / "bpe_merges.txt.gz"), context_length=config["text_cfg"]["context_length"]
    )
    mean, std = (
        torch.tensor(CONFIG["preprocess_cfg"][k]).view(1, 3, 1, 1) for k in ("mean", "std")
    )
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    began = saved = time.monotonic()
    step, smooth = 0, 0.0
    while (spent := (time.monotonic() - began) / 60) < minutes:
        rate = (
            1e-3
            * min(1, (step + 1) / 100)
            * (0.02 + 0.98 * (1 + np.cos(np.pi * spent / minutes)) / 2)
        )
        optimizer.param_groups[0]["lr"] = rate
        loss = lesson(model, tokenizer, vocabulary, views, size, rng, mean, std)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.logit_scale.data.clamp_(0, 4.6)
        now = float(loss.detach())
        smooth = now if not step else 0.99 * smooth + 0.01 * now
        step += 1
        if step % 100 == 0:
            print(f"{spent:5.1f} min  step {step}  loss {smooth:.3f}", flush=True)
        if time.monotonic() - saved > 300 or (time.monotonic() - began) / 60 >= minutes:
            saved = time.monotonic()
            half = {k: v.half().contiguous() for k, v in model.state_dict().items()}
            save_file(half, folder / "open_clip_model.safetensors")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="training time")
    parser.add_argument("--streets", type=int, default=360, help="streets to render")
    parser.add_argument("--views", type=int, default=4, help="images of each")
    parser.add_argument("--batch", type=int, default=48, help="windows a step")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "small")
    args = parser.parse_args()
    vocabulary = Vocabulary.load("nuscenes16")
    views = render(args.streets, args.views, raw_to_category(vocabulary))
    train(views, vocabulary, args.out, args.minutes, args.batch)


if __name__ == "__main__":
    main()
