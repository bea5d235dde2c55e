"""A frozen open_clip model as teacher: a segment per phrase, or what it sees in given masks."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate, normalize

from afov.errors import InputError
from afov.vocabulary import Vocabulary
from afov_train.teachers.config import EMBEDDED, TeacherConfig
from afov_train.teachers.dense import dense_features
from afov_train.teachers.masks import MaskGenerator, layered, pool
from afov_train.teachers.segments import Segments, class_scores
from afov_train.teachers.text import text_bank

SMALL = Path(__file__).parent / "small"


def load_open_clip(config: TeacherConfig) -> tuple[Any, Any, Any]:
    """Model, preprocessing and tokenizer; the embedded model goes the same way as any other.

    Raises:
        InputError: an unknown model, or weights that are not there or do not fit.
    """
    import open_clip

    embedded = config.model == EMBEDDED
    name = f"local-dir:{SMALL}" if embedded else config.model
    weights = str(config.weights) if config.weights is not None else config.pretrained
    if config.weights is not None and not config.weights.is_file():
        raise InputError(f"--teacher.weights {config.weights}: no such file")
    if weights is None and not name.startswith(("local-dir:", "hf-hub:")):
        raise InputError(
            f"--teacher.model {name}: name weights with --teacher.pretrained TAG (downloaded) or "
            "--teacher.weights FILE (local)"
        )
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(
            name, pretrained=weights, weights_only=True
        )
        options = {}
        folder = Path(name.removeprefix("local-dir:"))
        if (folder / "bpe_merges.txt.gz").is_file():
            options["bpe_path"] = str(folder / "bpe_merges.txt.gz")
        tokenizer = open_clip.get_tokenizer(name, **options)
    except Exception as error:  # downloads, files and shapes fail in many ways
        line = " ".join(str(error).split())[:300]
        raise InputError(
            f"teacher {config.model}: cannot be loaded ({line}); where weights cannot be "
            "downloaded, fetch them elsewhere and pass --teacher.weights FILE"
        ) from None
    return model.eval().requires_grad_(False), preprocess, tokenizer


class OpenClipTeacher:
    """Looks at an image through overlapping windows, at several scales.

    Args:
        config: which model and how.
        vocabulary: the phrases it answers with.
    """

    def __init__(self, config: TeacherConfig, vocabulary: Vocabulary) -> None:
        self.config = config
        self.model, self.preprocess, tokenizer = load_open_clip(config)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device)
        self.text_bank = text_bank(self.model, tokenizer, vocabulary, config.templates)
        self.text = torch.from_numpy(self.text_bank.embeddings).to(self.device)
        self.scale = float(self.model.logit_scale.exp())
        size = self.model.visual.image_size
        self.window = size[0] if isinstance(size, tuple) else size
        self.masks = MaskGenerator(config.masks, self.device) if config.masks else None
        normalise = next(t for t in self.preprocess.transforms if hasattr(t, "mean"))
        self.mean = torch.tensor(normalise.mean, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(normalise.std, device=self.device).view(1, 3, 1, 1)

    @cached_property
    def key(self) -> str:
        """Hash of the settings, the weights and the vocabulary."""
        digest = hashlib.sha256(json.dumps(asdict(self.config), default=str).encode())
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        digest.update("\n".join(self.text_bank.vocabulary.phrases).encode())
        return digest.hexdigest()[:16]

    def segments(self, image: np.ndarray, *, token: str, camera: str) -> Segments:
        """One segment per phrase that wins anywhere, or one per mask."""
        features = self.features(image)
        if self.masks:
            return self._in_masks(features, self.masks(image))
        height, width = image.shape[:2]
        cosine = torch.einsum("ehw,pe->phw", features, self.text)
        logits = interpolate(self.scale * cosine[None], (height // 4, width // 4), mode="bilinear")[
            0
        ]
        share = logits.softmax(0)
        best = logits.argmax(0)
        return self._collect(best, share, features, (height, width))

    def _collect(
        self, best: torch.Tensor, share: torch.Tensor, features: torch.Tensor, size: tuple[int, int]
    ) -> Segments:
        """Segments with their mean score and feature; those too small are dropped."""
        owner = torch.from_numpy(self.owner).to(best.device)
        # A class's probability is the sum over its phrases: synonyms do not compete.
        by_class = torch.zeros(int(owner.max()) + 1, *best.shape, device=best.device)
        by_class.index_add_(0, owner, share)
        sure = by_class.gather(0, owner[best][None])[0]
        coarse = interpolate(features[None], best.shape, mode="nearest")[0].flatten(1)
        flat = best.flatten()
        ids = torch.zeros_like(flat)
        phrases, scores, rows = [], [], []
        for phrase in flat.unique().tolist():
            inside = flat == phrase
            if int(inside.sum()) * 16 < self.config.min_pixels:
                continue
            phrases.append(phrase)
            scores.append(float(sure.flatten()[inside].mean()))
            rows.append(normalize(coarse[:, inside].mean(1), dim=0))
            ids[inside] = len(phrases)
        full = (
            interpolate(ids.view(1, 1, *best.shape).float(), size, mode="nearest")[0, 0]
            .cpu()
            .numpy()
        )
        feature = torch.stack(rows).cpu().numpy() if rows else np.zeros((0, self.text.shape[1]))
        return Segments(
            full.astype(np.uint16),
            np.array(phrases, np.int64),
            np.array(scores, np.float32),
            feature.astype(np.float32),
        )

    def _in_masks(self, features: torch.Tensor, masks: np.ndarray) -> Segments:
        """Each mask as a segment, by the phrase nearest to its pooled feature."""
        masks = masks[masks.sum((1, 2)) >= self.config.min_pixels]
        rows = pool(features, masks)
        share = (self.scale * rows @ self.text.T).softmax(1).cpu().numpy()
        phrase = share.argmax(1)
        return Segments(
            layered(masks),
            phrase,
            class_scores(share, phrase, self.owner).astype(np.float32),
            rows.cpu().numpy().astype(np.float32),
        )

    @cached_property
    def owner(self) -> np.ndarray:
        """(P,) int64: index of each phrase's class, absorbers told apart."""
        classes = self.text_bank.vocabulary.classes
        return np.array([i for i, c in enumerate(classes) for _ in c.phrases], np.int64)

    @torch.inference_mode()
    def features(self, image: np.ndarray) -> torch.Tensor:
        """(E, h, w) unit vectors: the mean over scales and flips, at the first scale's grid."""
        whole = torch.from_numpy(image.copy()).to(self.device).permute(2, 0, 1)[None].float() / 255
        whole = (whole - self.mean) / self.std
        maps = [self._at_scale(whole, scale) for scale in self.config.scales]
        if self.config.flip:
            mirrored = whole.flip(3)
            maps += [self._at_scale(mirrored, scale).flip(2) for scale in self.config.scales]
        size = maps[0].shape[1:]
        aligned = [interpolate(m[None], size, mode="bilinear")[0] for m in maps]
        return normalize(torch.stack(aligned).mean(0), dim=0)

    def _at_scale(self, whole: torch.Tensor, scale: float) -> torch.Tensor:
        """Windows over the image resized by `scale`; where they overlap, the mean."""
        window = self.window
        height, width = (max(window, round(s * scale)) for s in whole.shape[2:])
        sized = interpolate(whole, (height, width), mode="bilinear", antialias=True)
        step = max(1, round(window * (1 - self.config.overlap)))
        tops, lefts = _starts(height, window, step), _starts(width, window, step)
        crops = torch.cat(
            [sized[:, :, t : t + window, x : x + window] for t in tops for x in lefts]
        )
        dense = torch.cat(
            [dense_features(self.model.visual, c) for c in crops.split(self.config.batch)]
        )
        patch = window // dense.shape[2]
        total = torch.zeros(dense.shape[1], height // patch, width // patch, device=dense.device)
        count = torch.zeros(height // patch, width // patch, device=dense.device)
        side = dense.shape[2]
        for one, (t, x) in zip(dense, [(t, x) for t in tops for x in lefts], strict=True):
            place = np.s_[t // patch : t // patch + side, x // patch : x // patch + side]
            target = total[(slice(None), *place)]
            total[(slice(None), *place)] += one[:, : target.shape[1], : target.shape[2]]
            count[place] += 1
        return total / count.clamp(min=1)


def _starts(length: int, window: int, step: int) -> list[int]:
    """Where windows begin; the last one ends at the edge."""
    return [*range(0, length - window, step), length - window]
