"""The model folder: all that a vehicle needs, described, hashed and checked."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afov.errors import InputError
from afov.inputs import SCALE
from afov.kernel_maps import LEVELS
from afov.model_files import FORMAT, checked, description_in, sha256
from afov.model_parts import PanopticFiles, TowerFiles, write_panoptic, write_text_tower
from afov.text_bank import TextBank
from afov.unet import Shape, check_weights
from afov.vocabulary import Vocabulary
from afov.voxels import VoxelGrid

FILES = ("student.onnx", "student.safetensors", "text_bank.safetensors")
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
    if model.sample is not None:
        arrays = {k: np.ascontiguousarray(v) for k, v in vars(model.sample).items()}
        save_file(arrays, partial / SAMPLE)
    description: dict[str, Any] = {
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
        "text_tower": None if tower is None else write_text_tower(tower, partial),
        "panoptic": None if panoptic is None else write_panoptic(panoptic, partial),
        "provenance": model.provenance,
        "voxels": [list(level) for level in model.voxels],
    }
    description["sha256"] = {f.name: sha256(f.read_bytes()) for f in sorted(partial.iterdir())}
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
    data = description_in(where)
    try:
        files = (*FILES, *(n for n in (SAMPLE,) if n in data["sha256"]))
        content = {name: checked(folder / name, data["sha256"][name]) for name in files}
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
