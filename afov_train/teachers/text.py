"""The text bank: every phrase in every template, averaged and normalised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from afov.text_bank import TextBank
from afov.vocabulary import Vocabulary


@torch.inference_mode()
def embed_phrases(
    model: Any, tokenizer: Callable[..., Any], phrases: Sequence[str], templates: Sequence[str]
) -> np.ndarray:
    """(P, E) float32, unit rows."""
    device = next(model.parameters()).device
    rows = []
    for phrase in phrases:
        tokens = tokenizer([t.replace("{}", phrase) for t in templates]).to(device)
        each = normalize(model.encode_text(tokens), dim=1)
        rows.append(normalize(each.mean(0), dim=0))
    return torch.stack(rows).float().cpu().numpy()


def text_bank(
    model: Any, tokenizer: Callable[..., Any], vocabulary: Vocabulary, templates: Sequence[str]
) -> TextBank:
    """The vocabulary in the model's CLIP space."""
    return TextBank(vocabulary, embed_phrases(model, tokenizer, vocabulary.phrases, templates))
