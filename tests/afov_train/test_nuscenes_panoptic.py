"""nuScenes panoptic: truth as annotated, submissions, and the devkit's verdict beside ours."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest

from afov.errors import InputError
from afov.panoptic_quality import no_sweeps, panoptic_quality, panoptic_summary
from afov.sources.nuscenes import NuScenesSource
from afov.splits import Split
from afov.vocabulary import Vocabulary
from afov_train.evaluate import evaluate
from afov_train.nuscenes_eval import Submission, evaluate_panoptic_officially
from afov_train.simulation.write_nuscenes import write_nuscenes
from tests.afov_train.conftest import bank, labels_of, open_tree


def as_annotated(root, rng):
    """Some points of things fall out of their boxes: the real labels say 0 of them."""
    for file in (root / "panoptic/v1.0-mini").iterdir():
        with np.load(file) as data:
            both = data["data"]
        outside = (both % 1000 > 0) & (rng.random(len(both)) < 0.1)
        np.savez_compressed(file, data=np.where(outside, 0, both).astype(np.uint16))


def segmented(truth, rng):
    """Instances with every kind of fault: cut, joined, shifted to others, left out."""
    number = truth.instance_id % 1000
    cut = (rng.random(number.max() + 1) < 0.3)[number] & (np.arange(len(number)) % 2 > 0)
    joined = (rng.random(number.max() + 1) < 0.2)[number]
    number = np.where(joined, number // 2, number + 200 * cut)
    return np.where(rng.random(len(number)) < 0.05, 0, number).astype(np.uint16)


@pytest.mark.parametrize("boxes", [True, False])
def test_the_devkits_panoptic_evaluation_agrees_with_ours(frames, tmp_path, boxes):
    write_nuscenes(frames, tmp_path / "t", per_scene=2, rate=1.0)
    rng = np.random.default_rng(3)
    if boxes:
        as_annotated(tmp_path / "t", rng)
    source, submission = open_tree(tmp_path / "t"), Submission(tmp_path, "mini_val")
    vocabulary, quality = Vocabulary.load("nuscenes16"), no_sweeps(16)
    for frame in source:
        truth = frame.truth
        left_out = (truth.class_id > 0) & (truth.panoptic_class_id == 0)
        assert left_out.any() == boxes and not truth.instance_id[left_out].any()
        predicted = np.where(rng.random(len(truth.raw)) < 0.1, 15, truth.class_id).astype(np.uint8)
        predicted[predicted == 0] = 4
        number = np.where(predicted <= 10, segmented(truth, rng), 0).astype(np.uint16)
        submission.write(frame.token, labels_of(predicted, number), bank())
        quality += panoptic_quality(
            truth.panoptic_class_id, truth.instance_id, predicted, number, 16, 15
        )
    theirs = evaluate_panoptic_officially(source, tmp_path)
    for i, name in enumerate(vocabulary.names[1:]):
        figures = [quality.pq[i], quality.sq[i], quality.rq[i], quality.iou[i]]
        official = [theirs[name][figure] for figure in ("PQ", "SQ", "RQ", "IoU")]
        assert np.nan_to_num(figures) == pytest.approx(official, abs=1e-6)
    ours = panoptic_summary(quality, vocabulary)
    names = {"PQ": "PQ", "SQ": "SQ", "RQ": "RQ", "mIoU": "mIoU", "PQ-dagger": "PQ_dagger"}
    assert not np.isnan(quality.pq).any()  # every class occurs, so the means agree as well
    for mine, official in names.items():
        assert ours["all"][mine] == pytest.approx(theirs["all"][official], abs=1e-6)
    assert 0.3 < ours["things"]["PQ"] < 0.9


def test_a_submission_numbers_instances_with_three_digits(tmp_path):
    submission = Submission(tmp_path, "mini_val")
    class_id, instance_id = np.array([4, 16, 4], np.uint8), np.array([999, 0, 1], np.uint16)
    submission.write("a", labels_of(class_id, instance_id), bank())
    with np.load(tmp_path / "panoptic/mini_val/a_panoptic.npz") as data:
        assert data["data"].dtype == np.uint16 and data["data"].tolist() == [4999, 16000, 4001]
    with pytest.raises(InputError, match="instance 1000; nuScenes' format ends at 999"):
        submission.write("b", labels_of(class_id, instance_id + np.uint16(1)), bank())


def test_lidarseg_takes_every_point_and_panoptic_leaves_some_out(tmp_path):
    """A point that no mask holds is named by its own embedding, in the lidarseg file."""
    text = bank()
    vocabulary = text.vocabulary
    third = text.embeddings[vocabulary.phrase_class_id == 3][:1]
    labels = replace(
        labels_of(np.array([5, 0, 0], np.uint8), np.zeros(3, np.uint16)),
        rows=np.concatenate((-third, third)), inverse=np.array([0, 1, 1]),
    )  # fmt: skip
    Submission(tmp_path, "mini_val").write("a", labels, text)
    file = tmp_path / "lidarseg/mini_val/a_lidarseg.bin"
    assert np.fromfile(file, np.uint8).tolist() == [5, 3, 3]
    with np.load(tmp_path / "panoptic/mini_val/a_panoptic.npz") as data:
        assert data["data"].tolist() == [5000, 0, 0]


@dataclass(frozen=True)
class Witness:
    """A student that says what it is told, sweep by sweep."""

    vocabulary: Vocabulary
    said: dict

    def label(self, sweep, images=()):
        return self.said[sweep.stamp]

    def corrected(self, labels, sweep, afi):
        return labels


def test_evaluation_counts_segments_where_truth_and_student_know_instances(frames, tree, tmp_path):
    vocabulary = Vocabulary.load("nuscenes16")
    answers = {
        f.sweep.stamp: labels_of(f.truth.class_id, f.truth.instance_id) for f in frames
    }  # fmt: skip
    split = Split.named(vocabulary, "nuscenes-b12n4")
    result = evaluate([open_tree(tree)], Witness(vocabulary, answers), split=split)
    assert set(result.panoptic.pq[~np.isnan(result.panoptic.pq)]) == {1.0}
    rows = {row[0]: row[1:] for row in result.panoptic_rows()}
    assert rows["vegetation (novel)"] == ["100.0"] * 4 + [""]
    assert rows["mean of novel things"] == ["100.0"] * 5
    result.save(tmp_path)
    assert (tmp_path / "panoptic.csv").read_text().count("\n") == len(rows)
    assert json.loads((tmp_path / "metrics.json").read_text())["panoptic"]["all"]["PQ"] == 1
    assert "mean of novel stuff" in str(result)

    semantic = {stamp: replace(a, instance_id=None) for stamp, a in answers.items()}
    plain = evaluate([open_tree(tree)], Witness(vocabulary, semantic))
    assert plain.panoptic is None and plain.panoptic_rows() == []
    assert np.array_equal(plain.matrices["student, all"], result.matrices["student, all"])
    shutil.copytree(tree, tmp_path / "t")
    (tmp_path / "t/v1.0-mini/panoptic.json").unlink()
    without = evaluate([open_tree(tmp_path / "t")], Witness(vocabulary, answers))
    assert without.panoptic is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"PK\x03\x04 and no more", "expected an .npz with one array 'data'"),
        ({"labels": np.zeros(5, np.uint16)}, "expected an .npz with one array 'data'"),
        ({"data": np.zeros(5, np.uint16)}, r"uint16 of shape \(5,\), expected \d+ numbers"),
        ({"data": np.full(9, 4.5)}, "float64 of shape"),
        ({"data": np.array([object()])}, "expected an .npz with one array 'data'"),
    ],
)
def test_panoptic_labels_that_are_none_name_the_file(frames, tmp_path, data, said):
    write_nuscenes(frames[:2], tmp_path / "t", per_scene=2, rate=1.0)
    file = next((tmp_path / "t/panoptic/v1.0-mini").iterdir())
    if isinstance(data, bytes):
        file.write_bytes(data)
    else:
        np.savez(file, **data)
    with pytest.raises(InputError, match=r"_panoptic\.npz: .*" + said):
        list(open_tree(tmp_path / "t"))


def test_what_the_devkit_refuses_is_said_in_one_line(tree, tmp_path):
    with pytest.raises(InputError, match=r"panoptic/mini_val\) does not exist"):
        evaluate_panoptic_officially(open_tree(tree), tmp_path)
    with pytest.raises(InputError, match="the official evaluation needs a split"):
        evaluate_panoptic_officially(NuScenesSource(tree, "v1.0-mini"), tmp_path)
