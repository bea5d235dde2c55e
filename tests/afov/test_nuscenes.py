"""The real nuScenes sample through the devkit."""

from __future__ import annotations

import numpy as np
import pytest

from afov.errors import InputError
from afov.pairing import pair
from afov.sources.nuscenes import NuScenesSource


def test_the_first_keyframe_pairs_as_the_official_code_pairs_it(shared):
    source = NuScenesSource(shared / "data/nuscenes-one-sample", "v1.0-mini")
    (frame,) = source
    golden = np.load(shared / "golden/pairing_scene0061.npz")
    assert len(source) == 1 and np.array_equal(frame.sweep.xyz, golden["points"])
    assert frame.truth is None and len(frame.images) == 6
    for image in frame.images:
        name = image.name.upper()
        pairs = pair(frame.sweep.xyz, image)
        assert set(pairs.point) == set(golden[f"{name}_point_idx"])


def test_a_split_that_does_not_exist_is_named(shared):
    with pytest.raises(InputError, match="split 'tran': expected one of train, val"):
        NuScenesSource(shared / "data/nuscenes-one-sample", "v1.0-mini", "tran")


def test_a_folder_without_tables_is_named(tmp_path):
    with pytest.raises(InputError, match=r"v1\.0-mini: no such folder"):
        NuScenesSource(tmp_path, "v1.0-mini")
