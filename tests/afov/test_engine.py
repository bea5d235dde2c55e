"""An engine is taken only where it is what it should be; else it is built again or refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afov.errors import InputError
from afov.runtimes import engine
from afov.runtimes.engine import Choice, Identity, load_engine, store_engine
from afov.runtimes.profile import TYPICAL, Fixed, Profile, Texts, profile_of, too_large

SEEN = ((9000, 16000, 20000), (6000, 10000, 13000), (3000, 6000, 8000), (1500, 3000, 4000),
        (700, 1500, 2000))  # fmt: skip
COUNTS = st.lists(st.integers(1, 10**6), min_size=5, max_size=5).map(tuple)
IDENTITIES = st.builds(
    Identity,
    st.text(max_size=70),
    st.text(max_size=20),
    st.text(max_size=8),
    st.sampled_from(["fp16", "fp32"]),
    st.builds(Profile, COUNTS, COUNTS)
    | st.builds(Texts, st.integers(1, 100), st.integers(1, 100))
    | st.just(Fixed()),
)
IDENTITY = Identity("00" * 32, "10.13.0", "8.7", "fp16", profile_of(SEEN))


@given(IDENTITIES, IDENTITIES)
def test_another_identity_is_another_plain_file_name(a, b):
    assert (a.file == b.file) == (a == b)
    assert "/" not in a.file and a.file.isascii() and len(a.file) < 140


@pytest.mark.parametrize(
    "change",
    [
        {"onnx": "11" * 32},
        {"tensorrt": "11.3.0"},
        {"capability": "9.0"},
        {"precision": "fp32"},
        {"ranges": profile_of(SEEN, 9999)},
        {"ranges": Fixed()},
        {"ranges": Texts(80, 77)},
    ],
)
def test_an_engine_of_another_identity_is_not_taken(tmp_path, change):
    store_engine(tmp_path, IDENTITY, b"engine", 0.0)
    other = replace(IDENTITY, **change)
    assert load_engine(tmp_path, IDENTITY) == b"engine"
    assert load_engine(tmp_path, other) is None
    # Nor where somebody gave it the name of the one that is looked for.
    for suffix in (".engine", ".json"):
        file = (tmp_path / IDENTITY.file).with_suffix(suffix)
        (tmp_path / other.file).with_suffix(suffix).write_bytes(file.read_bytes())
    assert load_engine(tmp_path, other) is None


@settings(max_examples=50)
@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_changed_or_cut_engine_is_not_taken(tmp_path_factory, content, data):
    folder = tmp_path_factory.mktemp("engines")
    file = store_engine(folder, IDENTITY, content, 0.0)
    place = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[place] ^= data.draw(st.integers(1, 255))
    for wrong in (bytes(damaged), content[:place], content + b"x"):
        file.write_bytes(wrong)
        assert load_engine(folder, IDENTITY) is None


@settings(max_examples=50)
@given(st.one_of(st.binary(), st.text().map(str.encode), st.just(b"[" * 10**5)))
def test_a_damaged_description_is_no_error_but_no_engine(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("engines")
    file = store_engine(folder, IDENTITY, b"engine", 0.0)
    file.with_suffix(".json").write_bytes(content)
    assert load_engine(folder, IDENTITY) is None
    file.with_suffix(".json").unlink()
    assert load_engine(folder, IDENTITY) is None


def test_a_write_that_fails_leaves_the_older_file(tmp_path, monkeypatch):
    store_engine(tmp_path, IDENTITY, b"older", 0.0)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine.os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot be written .No space left"):
        store_engine(tmp_path, IDENTITY, b"newer", 0.0)
    assert load_engine(tmp_path, IDENTITY) == b"older"
    assert not list(tmp_path.glob("*.part"))


class Built:
    """Counts what is built; bytes that begin with "good" can be started."""

    def __init__(self, content=b"good"):
        self.content, self.times = content, 0

    def build(self):
        self.times += 1
        return self.content

    def trusted(self, folder, compare=lambda engine: 0.0):
        def start(content):
            return content if content.startswith(b"good") else None

        return engine.trusted_engine(folder, IDENTITY, self.build, start, compare)


def test_an_engine_is_built_once(tmp_path):
    built = Built()
    assert built.trusted(tmp_path) == built.trusted(tmp_path) == b"good"
    assert built.times == 1
    said = json.loads((tmp_path / IDENTITY.file).with_suffix(".json").read_text())
    assert said["identity"]["tensorrt"] == "10.13.0"


def test_what_cannot_be_started_is_built_again(tmp_path):
    store_engine(tmp_path, IDENTITY, b"whole, but of another driver", 0.0)
    built = Built()
    assert built.trusted(tmp_path) == b"good" and built.times == 1
    with pytest.raises(InputError, match="does not start"):
        Built(b"bad").trusted(tmp_path / "else")


def test_an_engine_that_disagrees_is_not_stored(tmp_path):
    expected = np.ones((4, 3), np.float32)

    def compare(content):
        return engine.difference(expected * 1.1, expected, "fp16")

    with pytest.raises(InputError, match=r"differ by 1.0e-01.*--precision fp32"):
        Built().trusted(tmp_path, compare)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("precision", "off", "agrees"),
    [("fp32", 1e-4, True), ("fp32", 1e-2, False), ("fp16", 1e-2, True), ("fp16", 0.1, False),
     ("fp16", np.nan, False), ("fp32", np.inf, False)],
)  # fmt: skip
def test_one_wrong_voxel_is_enough(precision, off, agrees):
    expected = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
    got = expected.copy()
    got[57] += np.float32(off) * expected[57]
    if agrees:
        assert engine.difference(got, expected, precision) == pytest.approx(off, rel=0.01)
    else:
        with pytest.raises(InputError, match="was not stored"):
            engine.difference(got, expected, precision)


def test_the_profile_comes_from_the_training_data():
    profile = profile_of(SEEN)
    assert profile.typical == (16000, 10000, 6000, 3000, 1500)
    assert profile.most[0] == 30720 and profile.most[4] == 3072
    assert profile.rows("features") == profile.rows("stem") == (1, 16000, 30720)
    assert profile.rows("subm3") == profile.rows("up3") == profile.rows("down2")
    assert profile.rows("down3") == (1, 1500, 3072)


def test_ranges_are_in_order_and_of_the_inputs_rank():
    for ranges, name, size in (
        (profile_of(SEEN), "subm2", (-1, 27)),
        (profile_of(SEEN), "up3", (-1,)),
        (Texts(80, 77), "tokens", (-1, -1)),
        (Texts(3, 5), "tokens", (-1, -1)),
        (Fixed(), "image", (64, 128, 3)),
    ):
        least, typical, most = ranges.of(name, size)
        assert len(least) == len(typical) == len(most) == len(size)
        for given_, *sizes in zip(size, least, typical, most, strict=True):
            assert sizes == sorted(sizes) and (given_ == -1 or set(sizes) == {given_})


def test_older_folders_get_the_default_profile():
    profile = profile_of(())
    assert profile.typical == TYPICAL
    assert profile.most == tuple(4 * t for t in TYPICAL)


@given(
    st.lists(
        st.tuples(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 10**6)),
        min_size=5,
        max_size=5,
    ).map(lambda rows: tuple(tuple(sorted(row)) for row in rows)),
    st.none() | st.integers(1, 10**6),
)
def test_a_profile_is_in_order(seen, finest):
    profile = profile_of(seen, finest)
    assert finest is None or profile.most[0] == finest
    assert list(profile.most) == sorted(profile.most, reverse=True)
    assert all(1 <= t <= m for t, m in zip(profile.typical, profile.most, strict=True))


def test_too_many_voxels_name_the_setting():
    profile = profile_of(SEEN, 10000)
    profile.check((10000, 6000, 3000, 1000, 500))
    with pytest.raises(InputError, match=r"12000 voxels at level 0.*--max-voxels 12000"):
        profile.check((12000, 6000, 3000, 1000, 500))
    with pytest.raises(InputError, match=r"memory for 10000 voxels .*--max-voxels 5000"):
        raise too_large(profile, "OutOfMemory")
    with pytest.raises(InputError, match="--max-voxels 0: expected a positive"):
        profile_of(SEEN, 0)


def test_the_choice_is_kept(tmp_path):
    assert Choice.load(tmp_path) == Choice("fp16", None)
    Choice("fp32", 9000).save(tmp_path / "engines")
    assert Choice.load(tmp_path / "engines") == Choice("fp32", 9000)


@settings(max_examples=30)
@given(
    st.binary()
    | st.sampled_from([b'{"precision": "int8", "max_voxels": 1}', b'{"precision": [], "max_voxels'])
)
def test_a_damaged_choice_is_one_clear_line(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("engines")
    (folder / "choice.json").write_bytes(content)
    with pytest.raises(InputError, match="damaged; delete it"):
        Choice.load(folder)
