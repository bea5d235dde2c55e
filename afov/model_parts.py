"""What a model folder may hold besides the student: a text tower, and the panoptic part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from afov.errors import InputError
from afov.model_files import checked, description_in

Head = Literal["voxels", "single", "ensemble"]
TOWER_FILES = ("text_tower.onnx", "bpe_merges.txt")
PANOPTIC_FILES = ("panoptic.onnx", "image_tower.onnx")


@dataclass(frozen=True)
class TowerFiles:
    """A text tower as it lies in the model folder.

    Attributes:
        onnx: tokens (T, L) int32 (int64 in older folders) to embeddings (T, E) float32, serialised.
        merges: of the tokenizer, one pair a line.
        context_length: tokens of a text at most.
        templates: prompts with {} for the phrase; an embedding is the mean over them.
    """

    onnx: bytes
    merges: str
    context_length: int
    templates: tuple[str, ...]


@dataclass(frozen=True)
class ImageTowerFiles:
    """An image tower as it lies in the model folder.

    Attributes:
        onnx: image (height, width, 3) uint8 RGB to features (h, w, E) float32, serialised.
        height, width: pixels, to which every image is resized.
        embedding: E, width of the CLIP space.
    """

    onnx: bytes
    height: int
    width: int
    embedding: int


@dataclass(frozen=True)
class PanopticFiles:
    """The panoptic part of a model folder.

    Attributes:
        onnx: the mask decoder, serialised: embedding (V, E), image (V, E) and xyz (V, 3), float32,
            to class_embedding (Q, E) and mask (Q, V), logits.
        image_tower: where image features come from.
        scale, bias: the probability of a class is sigmoid(scale * cosine + bias).
        head: what names a mask (`afov.panoptic_head.PanopticHead.probability`).
        base: names of the classes that had labels in training.
    """

    onnx: bytes
    image_tower: ImageTowerFiles
    scale: float
    bias: float
    head: Head
    base: tuple[str, ...]


def write_text_tower(tower: TowerFiles, folder: Path) -> dict[str, Any]:
    """Its files; what model.json says of them."""
    (folder / "text_tower.onnx").write_bytes(tower.onnx)
    (folder / "bpe_merges.txt").write_bytes(tower.merges.encode())
    return {"context_length": tower.context_length, "templates": list(tower.templates)}


def write_panoptic(panoptic: PanopticFiles, folder: Path) -> dict[str, Any]:
    """Its files; what model.json says of them."""
    tower = panoptic.image_tower
    (folder / "panoptic.onnx").write_bytes(panoptic.onnx)
    (folder / "image_tower.onnx").write_bytes(tower.onnx)
    return {
        "scale": panoptic.scale,
        "bias": panoptic.bias,
        "head": panoptic.head,
        "base": list(panoptic.base),
        "image": {"height": tower.height, "width": tower.width},
    }


def read_text_tower(folder: Path | str) -> TowerFiles:
    """The text tower of a model folder, checked; `read_model_folder` leaves it alone.

    Raises:
        InputError: the folder has none, or a file is missing or was changed.
    """
    where = Path(folder) / "model.json"
    data = description_in(where)
    about = data.get("text_tower")
    if about is None:
        raise InputError(
            f"{folder}: the model has no text tower, so its vocabulary cannot change; afov-train "
            "exports one with an open_clip teacher and an open head"
        )
    try:
        onnx, merges = (checked(Path(folder) / f, data["sha256"][f]) for f in TOWER_FILES)
        context, templates = int(about["context_length"]), tuple(map(str, about["templates"]))
        if context < 2 or not templates or not all("{}" in t for t in templates):
            raise ValueError(f"context {context}, templates {templates}, expected {{}} in each")
        return TowerFiles(onnx, merges.decode(), context, templates)
    except InputError:
        raise
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{where}: no text tower ({line}); export the model again") from None


def read_panoptic(folder: Path | str) -> PanopticFiles | None:
    """The panoptic part of a model folder, checked; None where the model knows no instances.

    Raises:
        InputError: a file is missing, was changed, or does not fit the description.
    """
    where = Path(folder) / "model.json"
    data = description_in(where)
    about = data.get("panoptic")
    if about is None:
        return None
    try:
        onnx, tower = (checked(Path(folder) / f, data["sha256"][f]) for f in PANOPTIC_FILES)
        height, width = int(about["image"]["height"]), int(about["image"]["width"])
        if min(height, width) < 1:
            raise ValueError(f"images of {width} x {height}")
        scale, bias = float(about["scale"]), float(about["bias"])
        if not (0 < scale < float("inf") and abs(bias) < float("inf")):
            raise ValueError(f"scale {scale}, bias {bias}, expected finite numbers, scale > 0")
        head, base = about["head"], about["base"]
        if head not in get_args(Head):
            raise ValueError(f"head {head!r}, expected one of {', '.join(get_args(Head))}")
        if not isinstance(base, list) or not all(isinstance(name, str) for name in base):
            raise ValueError(f"base {base!r}, expected a list of class names")
        return PanopticFiles(
            onnx,
            ImageTowerFiles(tower, height, width, int(data["embedding"])),
            scale,
            bias,
            head,
            tuple(base),
        )
    except InputError:
        raise
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{where}: no panoptic part ({line}); export the model again") from None
