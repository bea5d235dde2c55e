"""The head, shortened: what a linear layer says of C channels, in C + 1 numbers instead of E.

e = H (x, 1) with H (E, C + 1), and H = Q R with orthonormal columns Q. So |e| = |R (x, 1)|, and a
text's cosine is (Q^T t) . R (x, 1) / |e|: labels need R alone, and Q R (x, 1) is the embedding.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from afov.model_folder import ModelFolder


def shortened(model: ModelFolder) -> tuple[ModelFolder, np.ndarray | None]:
    """The model with weights whose head gives short rows, and (E, C + 1) float32, what makes
    embeddings of them; its graph stays as it is. Itself and None where nothing is gained.
    """
    head = np.vstack((model.weights["head.weight"], model.weights["head.bias"])).T
    if len(head) <= head.shape[1]:
        return model, None
    basis, short = np.linalg.qr(head.astype(np.float64))
    weight, bias = short[:, :-1].T.astype(np.float32), short[:, -1].astype(np.float32)
    weights = model.weights | {
        "head.weight": np.ascontiguousarray(weight),
        "head.bias": np.ascontiguousarray(bias),
    }
    return replace(model, weights=weights), basis.astype(np.float32)
