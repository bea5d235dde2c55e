"""What a student finds that it was never taught: the simulator's objects outside the 16 classes.

    python benchmarks/zero_shot.py --bag demo/test.mcap --model demo/model [--model OTHER ...]

The phrases come from the vocabulary's absorbers (an animal, a stroller, a police car, ...): they
take pixels from the teacher's answers and label nothing, so no point was ever trained towards them.
A point is found when such a phrase is nearer to its embedding than every other phrase. Beside
precision and recall against the simulator's truth stand the average precision of the margin by
which the phrase wins, and chance: the share of such points.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score

from afov.sources.bags import BagSource
from afov.student import Student, at_points

# Absorber: the raw classes of nuScenes lidarseg that it names.
UNSEEN = {
    "animal": 1, "stroller": 7, "wheelchair": 8, "debris": 10, "pushable": 11, "bicycle_rack": 13,
    "ambulance": 19, "police_car": 20,
}  # fmt: skip


def margins(student: Student, embeddings: np.ndarray) -> dict[str, np.ndarray]:
    """Per unseen class (N,): its best phrase's cosine less the best of all other classes."""
    bank = student.text_bank
    cosine = embeddings @ bank.embeddings.T
    names = np.array([c.name for c in bank.vocabulary.classes for _ in c.phrases])
    return {
        name: cosine[:, names == name].max(1) - cosine[:, names != name].max(1) for name in UNSEEN
    }


def table(student: Student, bags: list[Path]) -> str:
    """Markdown, a row per unseen class."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in UNSEEN}
    raw = []
    for bag in bags:
        for frame in BagSource(bag, truth=True):
            labels = student.label(frame.sweep)
            known = labels.inverse >= 0
            for name, margin in margins(student, labels.voxel_embedding).items():
                found[name].append(at_points(margin, labels.inverse)[known])
            assert frame.truth is not None
            raw.append(frame.truth.raw[known])
    truth = np.concatenate(raw)
    lines = [
        "| | points | precision | recall | average precision | chance |",
        "|---|---|---|---|---|---|",
    ]
    for name, number in UNSEEN.items():
        margin, true = np.concatenate(found[name]), truth == number
        if not true.any():
            continue
        hit = (margin > 0) & true
        precision = hit.sum() / max((margin > 0).sum(), 1)
        figures = (precision, hit.sum() / true.sum(), average_precision_score(true, margin))
        cells = " | ".join(f"{100 * f:.1f}%" for f in figures)
        lines.append(f"| {name} | {true.sum()} | {cells} | {100 * true.mean():.2f}% |")
    return "\n".join(lines)


def main() -> None:
    """A table per model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bag", type=Path, action="append", required=True)
    parser.add_argument("--model", type=Path, action="append", required=True)
    options = parser.parse_args()
    for model in options.model:
        print(f"{model}\n\n{table(Student.open(model), options.bag)}\n")


if __name__ == "__main__":
    main()
