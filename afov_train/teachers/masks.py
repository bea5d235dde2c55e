"""Class-agnostic masks from a Hugging Face model, and what CLIP sees inside of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate, normalize

from afov.errors import InputError


class MaskGenerator:
    """Any segmentation model of transformers: the SAM family, or one with classes of its own.

    Classes that the model may know are not looked at; CLIP says what a mask shows.

    Args:
        model: a name on the Hugging Face hub, or a folder.

    Raises:
        InputError: transformers is not installed, or the model cannot be opened.
    """

    def __init__(self, model: str, device: torch.device) -> None:
        try:
            from transformers import AutoConfig, pipeline
            from transformers.models.auto.modeling_auto import (
                MODEL_FOR_MASK_GENERATION_MAPPING_NAMES as SAM_FAMILY,
            )
        except ImportError:
            raise InputError("--teacher.masks: needs transformers; pip install it") from None
        try:
            kind = AutoConfig.from_pretrained(model).model_type
            self.task = "mask-generation" if kind in SAM_FAMILY else "image-segmentation"
            # safetensors alone: a pickle could run anything.
            options = {"use_safetensors": True}
            build: Any = pipeline  # typed task by task, and the task is known at run time
            self.pipeline = build(self.task, model=model, device=device, model_kwargs=options)
        except Exception as error:  # downloads, files and unknown kinds fail in many ways
            line = " ".join(str(error).split())[:300]
            raise InputError(
                f"--teacher.masks {model}: cannot be opened ({line}); expected a segmentation "
                "model with safetensors weights"
            ) from None

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(M, H, W) bool, of an image (H, W, 3) uint8, largest first; masks may overlap."""
        from PIL import Image

        found: Any = self.pipeline(Image.fromarray(image))
        if self.task == "mask-generation":
            masks = [np.asarray(mask) for mask in found["masks"]]
        else:
            masks = [np.asarray(segment["mask"]) for segment in found]
        every = np.stack([m > 0 for m in masks]) if masks else np.zeros((0, *image.shape[:2]), bool)
        area = every.sum((1, 2))
        order = np.argsort(-area, kind="stable")
        return every[order[area[order] > 0]]


def pool(features: torch.Tensor, masks: np.ndarray) -> torch.Tensor:
    """The mean feature inside each mask.

    Args:
        features: (E, h, w) unit vectors. masks: (M, H, W) bool.

    Returns:
        (M, E) unit rows. A place that a mask covers in part counts for that part, so that a mask
        smaller than a place still has a feature.
    """
    covered = torch.from_numpy(masks[:, None].astype(np.float32)).to(features.device)
    share = interpolate(covered, features.shape[1:], mode="area")[:, 0]
    return normalize(torch.einsum("mhw,ehw->me", share, features), dim=1)


def layered(masks: np.ndarray) -> np.ndarray:
    """(H, W) uint16 segment ids, k for the k-th mask from 1: later, smaller masks lie on top."""
    ids = np.zeros(masks.shape[1:], np.uint16)
    for number, mask in enumerate(masks, 1):
        ids[mask] = number
    return ids
