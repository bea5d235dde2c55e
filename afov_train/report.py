"""One HTML file that says how a run went: no network needed to read it."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from afov import pictures
from afov.metrics import iou
from afov_train.evaluation import Evaluation, Judged

STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:1100px;margin:2em auto;color:#222}"
    "table{border-collapse:collapse}td,th{padding:2px 10px;text-align:right;"
    "border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}"
    "img{max-width:100%}pre{background:#f5f5f5;padding:1em;overflow:auto}"
)


def write_report(run: Path, evaluation: Evaluation | None = None) -> Path:
    """Curves, table, per-class bars, confusion matrix, worst sweeps and settings of a run.

    Args:
        run: the run folder; what it lacks is left out.
        evaluation: of the run's student, for pictures of its worst sweeps.

    Returns:
        `report.html` in the run folder.
    """
    parts = [f"<h1>{html.escape(run.resolve().name)}</h1>"]
    earlier = sorted(f.name for f in run.glob("distill-*"))  # rounds before the last
    for stage in ("pretrain", *earlier, "distill", "finetune"):
        losses = read_losses(run / stage)
        if losses:
            parts += [f"<h2>{stage}</h2>", _figure(_curves(losses), f"losses of {stage}")]
    metrics = run / "metrics.json"
    if metrics.exists():
        found = json.loads(metrics.read_text())
        parts += ["<h2>evaluation</h2>", _table(run / "metrics.csv")]
        if (run / "panoptic.csv").exists():
            parts += ["<h3>segments</h3>", _table(run / "panoptic.csv")]
        names, matrix = found["names"][1:], np.array(found["student, all"]["confusion"])
        parts += [
            _figure(_bars(names, matrix), "IoU per class"),
            _figure(_confusion(names, matrix), "confusion matrix"),
        ]
    for judged in evaluation.worst if evaluation else ():
        caption = f"sweep {judged.token}: {100 * judged.accuracy:.1f}% right"
        picture = beside_truth(judged, evaluation.vocabulary.palette)  # type: ignore[union-attr]
        stream = io.BytesIO()
        picture.convert("RGB").save(stream, "JPEG", quality=80)
        parts += [f"<h3>{html.escape(caption)}</h3>", _image(stream.getvalue(), "jpeg", caption)]
    for name in ("config.yaml", "versions.json"):
        if (run / name).exists():
            text = html.escape((run / name).read_text())
            parts += [f"<details><summary>{name}</summary><pre>{text}</pre></details>"]
    file = run / "report.html"
    body = "\n".join(parts)
    head = f"<meta charset='utf-8'><title>{html.escape(run.name)}</title><style>{STYLE}</style>"
    file.write_text(f"<!doctype html><html><head>{head}</head><body>{body}</body></html>")
    return file


def beside_truth(judged: Judged, palette: np.ndarray) -> Any:
    """A sweep from above: truth, prediction, and where they differ."""
    differs = (judged.truth > 0) & (judged.truth != judged.predicted)
    errors = np.array([[70, 74, 80], [255, 60, 60]], np.uint8)[differs.astype(int)]
    seen = {"truth": palette[judged.truth], "student": palette[judged.predicted], "errors": errors}
    return pictures.beside([pictures.birds_eye(judged.xyz, c, t) for t, c in seen.items()])


def read_losses(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by name, over all parts of an interrupted training, in order."""
    found: dict[str, list[tuple[int, float]]] = {}
    parts = sorted(folder.glob("from-*/metrics.csv"), key=lambda f: int(f.parent.name[5:]))
    for part in parts:
        start = int(part.parent.name[5:])
        for row in csv.DictReader(part.open()):
            for name, value in row.items():
                if name not in ("epoch", "step") and value:
                    found.setdefault(name, []).append((start + int(row["step"]), float(value)))
    return found


def _curves(losses: dict[str, list[tuple[int, float]]]) -> Any:
    figure, axes = _axes(9, 3)
    for name, points in losses.items():
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, label=name, linewidth=1)
    axes.set_xlabel("step")
    axes.legend()
    return figure


def _bars(names: list[str], matrix: np.ndarray) -> Any:
    figure, axes = _axes(9, 0.28 * len(names) + 0.6)
    axes.barh(names, 100 * np.nan_to_num(iou(matrix)), color="#1f77b4")
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("IoU, %")
    return figure


def _confusion(names: list[str], matrix: np.ndarray) -> Any:
    figure, axes = _axes(8, 7)
    counted = matrix[1:, 1:] / np.maximum(matrix[1:].sum(1, keepdims=True), 1)
    axes.imshow(counted, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    return figure


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _figure(figure: Any, caption: str) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=90)
    return _image(stream.getvalue(), "png", caption)


def _image(data: bytes, kind: str, caption: str) -> str:
    text = base64.b64encode(data).decode()
    return f"<img alt='{html.escape(caption)}' src='data:image/{kind};base64,{text}'>"


def _table(file: Path) -> str:
    rows = list(csv.reader(file.open(newline="")))
    cells = [[f"<td>{html.escape(cell)}</td>" for cell in row] for row in rows]
    return "<table>" + "".join(f"<tr>{''.join(row)}</tr>" for row in cells) + "</table>"
