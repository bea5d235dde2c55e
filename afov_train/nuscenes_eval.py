"""nuScenes' own judgement: predictions in its submission format, its devkit's evaluation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afov.errors import InputError
from afov.sources.nuscenes import NuScenesSource
from afov.student import Labels, at_points
from afov.text_bank import TextBank

META = {
    "use_camera": False,
    "use_lidar": True,
    "use_radar": False,
    "use_map": False,
    "use_external": True,  # the 2D teacher has seen images of elsewhere
}


@dataclass(frozen=True)
class Submission:
    """Predictions for a split's keyframes, in a folder as nuScenes' servers take them."""

    folder: Path
    split: str

    @property
    def lidarseg(self) -> Path:
        """Where `<lidar token>_lidarseg.bin` lie: (N,) uint8, classes 1..16."""
        return self.folder / "lidarseg" / self.split

    @property
    def panoptic(self) -> Path:
        """Where `<lidar token>_panoptic.npz` lie: (N,) uint16, 1000 x class + instance."""
        return self.folder / "panoptic" / self.split

    def write(self, token: str, labels: Labels, text_bank: TextBank) -> None:
        """One keyframe's files; a panoptic one where the labels have instances.

        Lidarseg knows no "none": a point that no mask holds goes in under the class that its own
        embedding is nearest to, in the lidarseg file alone.

        Args:
            token: of the keyframe's LiDAR record. text_bank: that the labels were made with.

        Raises:
            InputError: more instances than three digits can number.
        """
        self.lidarseg.mkdir(parents=True, exist_ok=True)
        class_id = labels.class_id.astype(np.uint8)
        if not class_id.all():
            own = (text_bank.class_scores(labels.voxel_embedding).argmax(1) + 1).astype(np.uint8)
            class_id = np.where(class_id > 0, class_id, at_points(own, labels.inverse))
        class_id.tofile(self.lidarseg / f"{token}_lidarseg.bin")
        if labels.instance_id is None:
            return
        most = int(labels.instance_id.max(initial=0))
        if most > 999:
            raise InputError(f"sweep {token}: instance {most}; nuScenes' format ends at 999")
        both = labels.class_id.astype(np.uint16) * np.uint16(1000) + labels.instance_id
        self.panoptic.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(self.panoptic / f"{token}_panoptic.npz", data=both.astype(np.uint16))


def evaluate_officially(source: NuScenesSource, submission: Path) -> dict[str, Any]:
    """Checks and evaluates a submission with nuscenes-devkit's lidarseg code.

    Args:
        source: a tree opened with an official split.
        submission: folder with the predictions of every keyframe of that split.

    Returns:
        The devkit's own result: "miou", "iou_per_class", "freq_weighted_iou".

    Raises:
        InputError: no split, scenes of it that the tree lacks, no truth, or predictions that the
            devkit refuses.
    """
    from nuscenes.eval.lidarseg.evaluate import LidarSegEval
    from nuscenes.eval.lidarseg.validate_submission import validate_submission

    split = _official_split(source, "lidarseg")
    meta = submission / split / "submission.json"
    meta.parent.mkdir(parents=True, exist_ok=True)
    meta.write_text(json.dumps({"meta": META}, indent=1))
    try:
        validate_submission(source.nusc, str(submission), split)
    except AssertionError as error:
        raise InputError(f"{submission}: {error}") from None
    result: dict[str, Any] = LidarSegEval(source.nusc, str(submission), split).evaluate()
    (submission / f"{split}.json").write_text(json.dumps(result, indent=1))
    return result


def evaluate_panoptic_officially(source: NuScenesSource, submission: Path) -> dict[str, Any]:
    """Evaluates a submission's panoptic files with nuscenes-devkit's panoptic code.

    Returns:
        The devkit's own result: "all" (PQ, SQ, RQ, mIoU, PQ_dagger), and per class; it also lies
        in `panoptic-<split>/segmentation-result.json`.

    Raises:
        InputError: no split, scenes of it that the tree lacks, no truth, or a sweep's predictions
            that are not there.
    """
    from nuscenes.eval.panoptic.evaluate import NuScenesPanopticEval

    from afov.panoptic_quality import NUSCENES_MIN_POINTS

    split, out = _official_split(source, "panoptic"), f"panoptic-{source.split}"
    try:
        judge = NuScenesPanopticEval(
            source.nusc, str(submission), split, "segmentation", NUSCENES_MIN_POINTS,
            str(submission / out),
        )  # fmt: skip
        judge.evaluate()
    except AssertionError as error:
        raise InputError(f"{submission}: {error}") from None
    result = json.loads((submission / out / "segmentation-result.json").read_text())
    found: dict[str, Any] = result["segmentation"]
    return found


def _official_split(source: NuScenesSource, table: str) -> str:
    """The split, if the tree holds all of it and these labels."""
    from nuscenes.utils.splits import create_splits_scenes

    split = source.split
    if split is None:
        raise InputError(f"{source.name}: the official evaluation needs a split")
    missing = set(create_splits_scenes()[split]) - {s["name"] for s in source.scenes}
    if missing:
        raise InputError(
            f"{source.name}: the official evaluation needs every scene of {split}; not in this "
            f"tree: {', '.join(sorted(missing)[:3])}" + (", ..." if len(missing) > 3 else "")
        )
    if not hasattr(source.nusc, table):
        raise InputError(f"{source.name}: the tree has no {table} labels")
    return split
