"""The model folder: all that a vehicle needs, described, hashed and checked."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afov.errors import InputError
from afov.inputs import SCALE
from afov.kernel_maps import LEVELS
from afov.text_bank import TextBank
from afov.unet import Shape, check_weights
from afov.vocabulary import Vocabulary
from afov.voxels import VoxelGrid

FORMAT = 1
FILES = ("student.onnx", "student.safetensors", "text_bank.safetensors")
TOWER_FILES = ("text_tower.onnx", "bpe_merges.txt")
PANOPTIC_FILES = ("panoptic.onnx", "image_tower.onnx")
SAMPLE = "sample.safetensors"


@dataclass(frozen=True)
class Sample:
    """A real sweep of the training data, on which an engine must agree with ONNX Runtime.

    Attributes:
        features: (V, C) float32, what the network is told of each voxel.
        coords: (V, 3) int32, as `VoxelGrid` gives them.
    """

    features: np.ndarray
    coords: np.ndarray


@dataclass(frozen=True)
class ModelFolder:
    """What a folder holds, checked.

    Attributes:
        onnx: the graph, serialised.
        weights: the same weights by name, float32, BatchNorm folded.
        shape: of the U-Net.
        grid: voxels; inputs: names of a voxel's features.
        text_bank: trained vocabulary with its embeddings.
        temperature: divides cosines before the softmax.
        provenance: what it was trained on and with.
        voxels: least, median and most voxels per level in the training data; () in older folders.
        sample: a sweep to compare engines on; None in older folders.
    """

    folder: Path
    onnx: bytes
    weights: dict[str, np.ndarray]
    shape: Shape
    grid: VoxelGrid
    inputs: tuple[str, ...]
    text_bank: TextBank
    temperature: float
    provenance: dict[str, Any]
    voxels: tuple[tuple[int, int, int], ...] = ()
    sample: Sample | None = None


@dataclass(frozen=True)
class TowerFiles:
    """A text tower as it lies in the model folder.

    Attributes:
        onnx: tokens (T, L) int64 to embeddings (T, E) float32, serialised.
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
        head: "single", or "ensemble": with mask-pooled image features (FC-CLIP).
        base: names of the classes that had labels in training.
    """

    onnx: bytes
    image_tower: ImageTowerFiles
    scale: float
    bias: float
    head: str
    base: tuple[str, ...]


def write_model_folder(
    model: ModelFolder, tower: TowerFiles | None = None, panoptic: PanopticFiles | None = None
) -> Path:
    """Writes the folder whole or not at all; an older one stays until the new one is ready.

    Without a text tower the vocabulary of the folder is the only one that it will ever know.
    """
    from safetensors.numpy import save_file

    partial = model.folder.with_name(model.folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / "student.onnx").write_bytes(model.onnx)
    contiguous = {k: np.ascontiguousarray(v) for k, v in model.weights.items()}
    save_file(contiguous, partial / "student.safetensors")
    # safetensors writes the memory as it lies, so a view would come back scrambled.
    bank = np.ascontiguousarray(model.text_bank.embeddings, np.float32)
    save_file({"embeddings": bank}, partial / "text_bank.safetensors")
    files: tuple[str, ...] = FILES
    about = None
    if tower is not None:
        (partial / "text_tower.onnx").write_bytes(tower.onnx)
        (partial / "bpe_merges.txt").write_bytes(tower.merges.encode())
        files += TOWER_FILES
        about = {"context_length": tower.context_length, "templates": list(tower.templates)}
    if model.sample is not None:
        arrays = {k: np.ascontiguousarray(v) for k, v in vars(model.sample).items()}
        save_file(arrays, partial / SAMPLE)
        files += (SAMPLE,)
    decoder = None
    if panoptic is not None:
        seeing = panoptic.image_tower
        (partial / "panoptic.onnx").write_bytes(panoptic.onnx)
        (partial / "image_tower.onnx").write_bytes(seeing.onnx)
        files += PANOPTIC_FILES
        decoder = {
            "scale": panoptic.scale,
            "bias": panoptic.bias,
            "head": panoptic.head,
            "base": list(panoptic.base),
            "image": {"height": seeing.height, "width": seeing.width},
        }
    description = {
        "format": FORMAT,
        "grid": {"kind": model.grid.kind, "size": list(model.grid.size)},
        "inputs": list(model.inputs),
        "shape": {
            "stem": model.shape.stem,
            "stem_planes": model.shape.stem_planes,
            "planes": list(model.shape.planes),
            "layers": list(model.shape.layers),
        },
        "embedding": model.text_bank.embeddings.shape[1],
        "temperature": model.temperature,
        "vocabulary": model.text_bank.vocabulary.to_dict(),
        "text_tower": about,
        "panoptic": decoder,
        "provenance": model.provenance,
        "voxels": [list(level) for level in model.voxels],
        "sha256": {name: _sha256((partial / name).read_bytes()) for name in files},
    }
    (partial / "model.json").write_text(json.dumps(description, indent=1) + "\n")
    older = model.folder.with_name(model.folder.name + ".old")
    shutil.rmtree(older, ignore_errors=True)
    if model.folder.exists():
        model.folder.rename(older)
    partial.rename(model.folder)
    shutil.rmtree(older, ignore_errors=True)
    return model.folder


def read_model_folder(folder: Path | str) -> ModelFolder:
    """Reads and checks a model folder; nothing in it is executed.

    Raises:
        InputError: a file is missing, was changed, or does not fit the description.
    """
    from safetensors.numpy import load

    folder = Path(folder)
    where = folder / "model.json"
    data = _description(where)
    try:
        files = (*FILES, *(n for n in (SAMPLE,) if n in data["sha256"]))
        content = {name: _checked(folder / name, data["sha256"][name]) for name in files}
        size = data["grid"]["size"]
        shape = data["shape"]
        vocabulary = Vocabulary.from_dict(data["vocabulary"], f"{where}: vocabulary")
        bank = load(content["text_bank.safetensors"])["embeddings"]
        if bank.shape[1] != data["embedding"]:
            raise ValueError(f"text bank {bank.shape[1]} wide, embedding {data['embedding']}")
        model = ModelFolder(
            folder,
            content["student.onnx"],
            load(content["student.safetensors"]),
            Shape(
                int(shape["stem"]),
                int(shape["stem_planes"]),
                tuple(map(int, shape["planes"])),
                tuple(map(int, shape["layers"])),
            ),
            VoxelGrid(data["grid"]["kind"], tuple(map(float, size))),  # type: ignore[arg-type]
            tuple(map(str, data["inputs"])),
            TextBank(vocabulary, np.asarray(bank, np.float32)),
            float(data["temperature"]),
            dict(data["provenance"]),
            tuple(tuple(map(int, level)) for level in data.get("voxels", [])),  # type: ignore[misc]
            Sample(**load(content[SAMPLE])) if SAMPLE in content else None,
        )
        _check(model)
        return model
    except InputError:
        raise
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{where}: does not describe a model ({line}); export it again") from None


def read_text_tower(folder: Path | str) -> TowerFiles:
    """The text tower of a model folder, checked; `read_model_folder` leaves it alone.

    Raises:
        InputError: the folder has none, or a file is missing or was changed.
    """
    where = Path(folder) / "model.json"
    data = _description(where)
    about = data.get("text_tower")
    if about is None:
        raise InputError(
            f"{folder}: the model has no text tower, so its vocabulary cannot change; afov-train "
            "exports one with an open_clip teacher and an open head"
        )
    try:
        onnx, merges = (_checked(Path(folder) / f, data["sha256"][f]) for f in TOWER_FILES)
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
    data = _description(where)
    about = data.get("panoptic")
    if about is None:
        return None
    try:
        onnx, tower = (_checked(Path(folder) / f, data["sha256"][f]) for f in PANOPTIC_FILES)
        size = about["image"]
        scale, bias = float(about["scale"]), float(about["bias"])
        if not (0 < scale < float("inf") and abs(bias) < float("inf")):
            raise ValueError(f"scale {scale}, bias {bias}, expected finite numbers, scale > 0")
        if about["head"] not in ("single", "ensemble"):
            raise ValueError(f"head {about['head']!r}, expected single or ensemble")
        return PanopticFiles(
            onnx,
            ImageTowerFiles(tower, int(size["height"]), int(size["width"]), data["embedding"]),
            scale,
            bias,
            str(about["head"]),
            tuple(map(str, about["base"])),
        )
    except InputError:
        raise
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{where}: no panoptic part ({line}); export the model again") from None


def _description(where: Path) -> dict[str, Any]:
    """The content of model.json, of a format that this version reads."""
    try:
        data = json.loads(where.read_text())
        if data["format"] != FORMAT:
            raise InputError(f"{where}: format {data['format']}, this version reads {FORMAT}")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{where}: not found; expected a model folder of afov-train") from None
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{where}: does not describe a model ({line}); export it again") from None
    return dict(data)


def _check(model: ModelFolder) -> None:
    """Whether the parts fit each other; a ValueError says which do not."""
    unknown = [name for name in model.inputs if name not in SCALE]
    if unknown or not model.inputs:
        raise ValueError(f"inputs {list(model.inputs)}, expected some of {', '.join(SCALE)}")
    if not 0 < model.temperature < float("inf"):
        raise ValueError(f"temperature {model.temperature}, expected a positive number")
    width = model.text_bank.embeddings.shape[1]
    check_weights(model.shape, model.weights, len(model.inputs), width)
    counts = model.voxels
    if counts and (len(counts) != LEVELS or any(sorted(c) != list(c) or c[0] < 1 for c in counts)):
        raise ValueError(f"voxels {counts}, expected least, median and most of {LEVELS} levels")
    if model.sample is not None:
        features, coords = model.sample.features, model.sample.coords
        if features.shape != (len(coords), len(model.inputs)) or coords.shape[1:] != (3,):
            raise ValueError(f"sample of {features.shape} features and {coords.shape} coordinates")


def _checked(file: Path, expected: str) -> bytes:
    try:
        content = file.read_bytes()
    except OSError:
        raise InputError(
            f"{file}: missing from the model folder; copy or export it again"
        ) from None
    if _sha256(content) != expected:
        raise InputError(
            f"{file}: its SHA-256 is not the one in model.json; the file was changed or cut off: "
            "copy or export the folder again"
        )
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
