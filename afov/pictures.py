"""Pictures of labelled sweeps: on the camera images, and from above."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from afov.frames import CameraImage, Frame
from afov.pairing import pair
from afov.vocabulary import Vocabulary

BACKGROUND = (18, 20, 24)
TEXT = (235, 235, 235)


def overlay(
    image: CameraImage, xyz: np.ndarray, colors: np.ndarray, radius: int = 2
) -> Image.Image:
    """The image, dimmed, with every visible point as a coloured square.

    Args:
        xyz: (N, 3) float32, metres, LiDAR frame.
        colors: (N, 3) uint8.
        radius: half the side of a square, pixels.
    """
    canvas = (image.image * 0.55).astype(np.uint8)
    pairs = pair(xyz, image, occlusion=True)
    far_first = np.argsort(-pairs.depth)
    rows, cols = pairs.row[far_first], pairs.col[far_first]
    chosen = colors[pairs.point[far_first]]
    height, width = canvas.shape[:2]
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            y, x = np.clip(rows + dy, 0, height - 1), np.clip(cols + dx, 0, width - 1)
            canvas[y, x] = chosen
    picture = Image.fromarray(canvas)
    ImageDraw.Draw(picture).text((8, 6), image.name, fill=TEXT, font=_font(18))
    return picture


def cameras(frame: Frame, colors: np.ndarray, columns: int = 3, width: int = 640) -> Image.Image:
    """All images of a frame with the coloured points, in rows of `columns`."""
    tiles = []
    for image in frame.images:
        tile = overlay(image, frame.sweep.xyz, colors)
        tiles.append(tile.resize((width, round(width * tile.height / tile.width))))
    return grid(tiles, columns)


def birds_eye(
    xyz: np.ndarray, colors: np.ndarray, title: str = "", reach: float = 40.0, size: int = 900
) -> Image.Image:
    """The sweep from above, high points over low ones.

    Args:
        reach: metres from the sensor to the picture's edge.
        size: side of the picture, pixels.
    """
    canvas = np.full((size, size, 3), BACKGROUND, np.uint8)
    # NaN compares false, so points that are not finite fall out here too.
    inside = (np.abs(xyz[:, 0]) < reach) & (np.abs(xyz[:, 1]) < reach) & np.isfinite(xyz[:, 2])
    kept, tint = xyz[inside], colors[inside]
    order = np.argsort(kept[:, 2])
    scale = size / (2 * reach)
    x = ((kept[order, 0] + reach) * scale).astype(int)
    y = ((reach - kept[order, 1]) * scale).astype(int)
    for dy in (0, 1):
        for dx in (0, 1):
            canvas[np.clip(y + dy, 0, size - 1), np.clip(x + dx, 0, size - 1)] = tint[order]
    picture = Image.fromarray(canvas)
    if title:
        ImageDraw.Draw(picture).text((12, 8), title, fill=TEXT, font=_font(22))
    return picture


def legend(vocabulary: Vocabulary, height: int, width: int = 230) -> Image.Image:
    """Class names beside their colours."""
    picture = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    step = min(34, (height - 20) // len(vocabulary.names))
    for class_id, name in enumerate(vocabulary.names):
        top = 12 + class_id * step
        color = tuple(int(v) for v in vocabulary.palette[class_id])
        draw.rectangle((12, top, 12 + step * 2 // 3, top + step * 2 // 3), fill=color)
        draw.text((20 + step * 2 // 3, top - 1), name, fill=TEXT, font=_font(max(10, step // 2)))
    return picture


def beside(pictures: Sequence[Image.Image], gap: int = 6) -> Image.Image:
    """Pictures in one row, aligned at the top."""
    width = sum(p.width for p in pictures) + gap * (len(pictures) - 1)
    row = Image.new("RGB", (width, max(p.height for p in pictures)), BACKGROUND)
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + gap
    return row


def grid(tiles: Sequence[Image.Image], columns: int, gap: int = 6) -> Image.Image:
    """Pictures in rows of `columns`."""
    rows = [beside(tiles[i : i + columns], gap) for i in range(0, len(tiles), columns)]
    height = sum(r.height for r in rows) + gap * (len(rows) - 1)
    picture = Image.new("RGB", (max(r.width for r in rows), height), BACKGROUND)
    top = 0
    for row in rows:
        picture.paste(row, (0, top))
        top += row.height + gap
    return picture


def by_depth(xyz: np.ndarray, near: float = 2.0, far: float = 50.0) -> np.ndarray:
    """(N, 3) uint8: warm near the sensor, cold far away; shows a calibration without labels."""
    distance = np.nan_to_num(np.linalg.norm(xyz, axis=1), nan=far, posinf=far)
    share = np.clip(np.log(np.maximum(distance, near) / near) / np.log(far / near), 0, 1)[:, None]
    stops = np.array([[255, 60, 30], [255, 220, 40], [60, 220, 120], [40, 120, 255]], float)
    place = share * (len(stops) - 1)
    low = np.minimum(place.astype(int), len(stops) - 2)[:, 0]
    blend = place - low[:, None]
    return ((1 - blend) * stops[low] + blend * stops[low + 1]).astype(np.uint8)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
