"""What FC-CLIP, CAT-Seg and SAN write when detectron2 evaluates them.

`panoptic.json` with PNGs in COCO's panoptic form (FC-CLIP), or `sem_seg_predictions.json` with
run-length masks (CAT-Seg, SAN). Both name images `<camera>/<token>` at the end of `file_name`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from afov.errors import InputError

PANOPTIC, SEMANTIC, CATEGORIES = "panoptic.json", "sem_seg_predictions.json", "categories.json"


class Predictions:
    """The predictions in a folder, by image.

    Args:
        index: place of each phrase of the vocabulary.

    Raises:
        InputError: a file cannot be read or lacks what it should hold.
    """

    def __init__(self, folder: Path, index: dict[str, int]) -> None:
        self.folder = folder
        self.by_image: dict[tuple[str, str], Any] = defaultdict(list)
        self.panoptic = (folder / PANOPTIC).exists()
        file = folder / (PANOPTIC if self.panoptic else SEMANTIC)
        content = _read(file)
        try:
            rows = content["annotations"] if self.panoptic else content
            named = content["categories"] if self.panoptic else _read(folder / CATEGORIES)
            self.phrase = {int(c["id"]): _phrase(str(c["name"]), index) for c in named}
            for row in rows:
                path = PurePath(row["file_name"])
                key = path.parent.name, path.stem
                if self.panoptic:
                    self.by_image[key] = row
                else:
                    self.by_image[key].append(row)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file}: not of the form detectron2 writes ({error!r})") from None

    def segments(
        self, camera: str, token: str, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Segments of an image of (height, width).

        Returns:
            ids (H, W) int64, 0 = none; phrase (S,) int64; score (S,) float32, 1 where none is
            given. Segments of categories that are no phrase of the vocabulary are left out.

        Raises:
            InputError: no prediction for the image, or one that does not fit it.
        """
        found = self.by_image.get((camera, token))
        if found is None:
            raise InputError(f"{self.folder}: no prediction for {camera}/{token}")
        try:
            masks = self._panoptic(found, size) if self.panoptic else self._semantic(found, size)
        except (
            KeyError, TypeError, ValueError, OSError, SyntaxError, Image.DecompressionBombError,
        ) as error:  # fmt: skip
            raise InputError(f"{self.folder}: {camera}/{token}: {error!r}") from None
        ids, phrases, scores = np.zeros(size, np.int64), [], []
        for mask, category, score in masks:
            phrase = self.phrase.get(int(category))
            if phrase is not None:
                phrases.append(phrase)
                scores.append(score)
                ids[mask] = len(phrases)
        return ids, np.array(phrases, np.int64), np.array(scores, np.float32)

    def _panoptic(self, row: Any, size: tuple[int, int]) -> list[tuple[np.ndarray, int, float]]:
        with Image.open(self.folder / row["file_name"], formats=("PNG",)) as picture:
            colour = np.asarray(picture.convert("RGB")).astype(np.int64)
        if colour.shape[:2] != size:
            raise ValueError(f"{colour.shape[:2]}, the image has {size}")
        number = colour @ (1, 256, 65536)
        return [
            (number == int(s["id"]), s["category_id"], float(s.get("score", 1.0)))
            for s in row["segments_info"]
        ]

    def _semantic(self, rows: Any, size: tuple[int, int]) -> list[tuple[np.ndarray, int, float]]:
        from pycocotools import mask

        masks = []
        for row in rows:
            coded = row["segmentation"]
            if tuple(coded["size"]) != size:
                raise ValueError(f"{tuple(coded['size'])}, the image has {size}")
            masks.append((mask.decode(coded).astype(bool), row["category_id"], 1.0))
        return masks


def _phrase(name: str, index: dict[str, int]) -> int | None:
    """FC-CLIP writes a category as its words, parted by commas; the first known one counts."""
    return next((index[word] for word in map(str.strip, name.split(",")) if word in index), None)


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise InputError(f"{file}: no readable JSON") from None
