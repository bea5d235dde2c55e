"""The split of nuScenes' 700 training scenes that pre-training papers tune on.

SLidR (arXiv 2203.16258) set 100 of them apart to choose hyper-parameters by; Seal, AFOV and others
keep to its choice: they pre-train on the other 600.
"""

from __future__ import annotations

from collections.abc import Mapping

SET_APART = (
    8, 9, 19, 29, 32, 42, 45, 49, 52, 54, 56, 66, 67, 73, 131, 152, 166, 168, 183, 190, 194, 208,
    210, 211, 241, 243, 248, 259, 260, 261, 287, 292, 297, 305, 306, 350, 352, 358, 361, 365, 368,
    377, 388, 391, 395, 413, 427, 428, 438, 444, 452, 453, 459, 463, 464, 475, 513, 533, 544, 575,
    587, 589, 642, 652, 658, 669, 678, 687, 701, 703, 706, 710, 715, 726, 735, 740, 758, 786, 790,
    804, 806, 847, 856, 868, 882, 897, 899, 976, 996, 1012, 1015, 1016, 1018, 1020, 1024, 1044,
    1058, 1094, 1098, 1107,
)  # fmt: skip


def with_papers_splits(official: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The devkit's splits by name, and beside them train600 and train100."""
    apart = [f"scene-{number:04d}" for number in SET_APART]
    others = [name for name in official["train"] if name not in set(apart)]
    return {**official, "train600": others, "train100": apart}
