"""nuScenes' own judgement: predictions in its submission format, its devkit's evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from afov.errors import InputError
from afov.sources.nuscenes import NuScenesSource

META = {
    "use_camera": False,
    "use_lidar": True,
    "use_radar": False,
    "use_map": False,
    "use_external": True,  # the 2D teacher has seen images of elsewhere
}


def predictions_folder(submission: Path, split: str) -> Path:
    """Where a submission keeps `<lidar token>_lidarseg.bin`, (N,) uint8, classes 1..16."""
    return submission / "lidarseg" / split


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
    if not hasattr(source.nusc, "lidarseg"):
        raise InputError(f"{source.name}: the tree has no lidarseg labels")
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
