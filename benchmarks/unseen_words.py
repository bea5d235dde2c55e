"""Words that a student never met: half of each class's phrases teach it, the others ask for it.

    python benchmarks/unseen_words.py --drive demo/drive.mcap --bag demo/test.mcap [--out words]

Teacher and student know every second phrase of a class alone ("car", "hatchback", "SUV"); the test
then calls the class by what is left ("sedan", "station wagon", "van"). A point is found when such a
phrase is nearer to its embedding than those of all other classes. Each class is called by all words
of either half, then by each word that was never used alone. 225 steps, voxels of 0.2 m.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from zero_shot import CONFIG, trained

from afov.metrics import confusion, iou, mean_iou
from afov.sources.bags import BagSource
from afov.student import Student, at_points
from afov.text_bank import TextBank
from afov.vocabulary import Vocabulary
from afov_train.config import TeachConfig
from afov_train.teach import teach
from afov_train.teachers import build_teacher


def halves(vocabulary: Vocabulary) -> tuple[Vocabulary, Vocabulary]:
    """Every second phrase of each class, with the absorbers; the others, without."""
    taught = tuple(
        c if c.absorber else replace(c, phrases=c.phrases[::2]) for c in vocabulary.classes
    )
    asked = tuple(replace(c, phrases=c.phrases[1::2]) for c in vocabulary.labelled)
    return replace(vocabulary, classes=taught), replace(vocabulary, classes=asked)


def embeddings_and_truth(student: Student, bags: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """(N, E) float32 unit rows and (N,) class ids of all points that are in a voxel."""
    rows, truth = [], []
    for bag in bags:
        for frame in BagSource(bag, truth=True):
            assert frame.truth is not None
            labels = student.label(frame.sweep)
            known = labels.inverse >= 0
            rows.append(at_points(labels.voxel_embedding, labels.inverse)[known])
            truth.append(frame.truth.class_id[known])
    return np.concatenate(rows), np.concatenate(truth)


def table(rows: np.ndarray, truth: np.ndarray, taught: TextBank, asked: TextBank) -> str:
    """Markdown: classes called by the words of training, by all that were never used, by each."""
    names = asked.vocabulary.names[1:]
    best = asked.class_scores(rows)
    matrices = [
        confusion(truth, scores.argmax(1) + 1, len(names))
        for scores in (taught.class_scores(rows), best)
    ]
    before, after = (100 * iou(matrix) for matrix in matrices)
    lines = [
        "| | IoU, words of training | IoU, unseen words | the unseen word with the least recall "
        "| its precision | its recall |",
        "|---|---|---|---|---|---|",
        "| mean | {:.1f} | {:.1f} | | | |".format(*(100 * mean_iou(m) for m in matrices)),
    ]
    for i, name in enumerate(names):
        if (truth == i + 1).any():
            others = np.delete(best, i, axis=1).max(1)
            recall, precision, word = min(by_word(rows, truth == i + 1, others, asked, i + 1))
            cells = f"{before[i]:.1f} | {after[i]:.1f} | {word} | {precision:.1%} | {recall:.1%}"
            lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def by_word(
    rows: np.ndarray, true: np.ndarray, others: np.ndarray, asked: TextBank, class_id: int
) -> list[tuple[float, float, str]]:
    """Recall and precision of each word of a class against the best word of all others."""
    figures = []
    for row in np.flatnonzero(asked.vocabulary.phrase_class_id == class_id):
        found = rows @ asked.embeddings[row] > others
        hit = (found & true).sum()
        word = asked.vocabulary.phrases[row]
        figures.append((hit / true.sum(), hit / max(found.sum(), 1), word))
    return figures


def main() -> None:
    """Teaches, trains, asks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drive", type=Path, required=True)
    parser.add_argument("--bag", type=Path, action="append", required=True)
    parser.add_argument("--steps", type=int, default=225)
    parser.add_argument("--out", type=Path, default=Path("words"))
    options = parser.parse_args()
    known, unseen = halves(Vocabulary.load("nuscenes16"))
    teacher = build_teacher(CONFIG.teacher, known, options.out / "teacher")
    files = teach(BagSource(options.drive), teacher, TeachConfig(), options.out / "teach")
    student = trained("default", files, teacher.text_bank, options.steps, options.out)
    asked = build_teacher(CONFIG.teacher, unseen, options.out / "teacher").text_bank
    rows, truth = embeddings_and_truth(student, options.bag)
    print(table(rows, truth, teacher.text_bank, asked))


if __name__ == "__main__":
    main()
