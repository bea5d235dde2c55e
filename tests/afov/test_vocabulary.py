from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from afov.errors import InputError
from afov.text_bank import TextBank
from afov.vocabulary import PRESETS, Vocabulary

# Written here as their publishers list them, not read from the presets.
NUSCENES = [
    "barrier",
    "bicycle",
    "bus",
    "car",
    "construction_vehicle",
    "motorcycle",
    "pedestrian",
    "traffic_cone",
    "trailer",
    "truck",
    "driveable_surface",
    "other_flat",
    "sidewalk",
    "terrain",
    "manmade",
    "vegetation",
]
KITTI = [
    "car",
    "bicycle",
    "motorcycle",
    "truck",
    "other-vehicle",
    "person",
    "bicyclist",
    "motorcyclist",
    "road",
    "parking",
    "sidewalk",
    "other-ground",
    "building",
    "fence",
    "vegetation",
    "trunk",
    "terrain",
    "pole",
    "traffic-sign",
]


@pytest.mark.parametrize(
    ("preset", "names", "things"), [("nuscenes16", NUSCENES, 10), ("semantickitti19", KITTI, 8)]
)
def test_presets_hold_the_official_classes_in_order(
    preset: str, names: list[str], things: int
) -> None:
    vocabulary = Vocabulary.load(preset)
    assert list(vocabulary.names[1:]) == names
    # Both data sets number their things first.
    assert [c.thing for c in vocabulary.labelled] == [i < things for i in range(len(names))]


@pytest.mark.parametrize("preset", PRESETS)
def test_widened_absorbed_things_are_classes_and_every_phrase_keeps_its_place(preset: str) -> None:
    vocabulary = Vocabulary.load(preset)
    wide = vocabulary.widened
    assert wide.phrases == vocabulary.phrases
    assert wide.names[: len(vocabulary.names)] == vocabulary.names
    more = {c.name for c in wide.labelled} - {c.name for c in vocabulary.labelled}
    assert "animal" in more and all(c.thing for c in wide.labelled if c.name in more)
    assert {c.name for c in wide.classes if c.absorber} >= {"sky", "ego_vehicle"}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_rich_and_unambiguous(preset: str) -> None:
    vocabulary = Vocabulary.load(preset)
    assert len(vocabulary.phrases) >= 120
    assert len(set(vocabulary.phrases)) == len(vocabulary.phrases)
    assert all(len(c.phrases) >= 3 for c in vocabulary.labelled)
    assert len({c.color for c in vocabulary.classes}) == len(vocabulary.classes)
    assert "sky" in {c.name for c in vocabulary.classes if c.absorber}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_vocabulary_reads_back_from_what_it_writes(preset: str, tmp_path: Path) -> None:
    vocabulary = Vocabulary.load(preset)
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(vocabulary.to_dict()))
    assert Vocabulary.load(file) == vocabulary


def small() -> Vocabulary:
    return Vocabulary.from_dict(
        {
            "name": "small",
            "classes": [
                {"name": "car", "phrases": ["car", "van"], "color": [9, 8, 7], "thing": True},
                {"name": "sky", "phrases": ["sky", "sun"], "absorber": True},
                {"name": "lamp_post"},
            ],
        }
    )


def test_absorbers_take_no_id_and_a_name_is_a_phrase() -> None:
    vocabulary = small()
    assert vocabulary.names == ("unlabelled", "car", "lamp_post")
    assert vocabulary.phrases == ("car", "van", "sky", "sun", "lamp post")
    assert vocabulary.phrase_class_id.tolist() == [1, 1, 0, 0, 2]
    assert vocabulary.palette[1].tolist() == [9, 8, 7]
    assert vocabulary.palette[[0, 255]].tolist() == [[128] * 3] * 2


def test_a_class_scores_as_its_best_phrase() -> None:
    rng = np.random.default_rng(1)
    text = rng.normal(size=(5, 8)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    points = rng.normal(size=(20, 8)).astype(np.float32)
    scores = TextBank(small(), text).class_scores(points)
    for point, (car, lamp) in zip(points, scores, strict=True):
        assert car == pytest.approx(max(point @ text[0], point @ text[1]), abs=1e-5)
        assert lamp == pytest.approx(point @ text[4], abs=1e-5)


def test_an_embedding_for_every_phrase() -> None:
    with pytest.raises(ValueError, match="5 phrases"):
        TextBank(small(), np.zeros((4, 8), np.float32))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "a list 'classes'"),
        ({"classes": {}}, "a list 'classes'"),
        ({"classes": []}, "0 labelled classes"),
        ({"classes": [{"name": "sky", "absorber": True}]}, "0 labelled classes"),
        ({"classes": [{"name": f"c{i}"} for i in range(255)]}, "255 labelled classes"),
        ({"classes": ["car"]}, "class 0: expected a mapping with a 'name'"),
        ({"classes": [{"name": "car"}, {"name": "car"}]}, "'car' stands twice"),
        ({"classes": [{"name": "car", "colour": [0, 0, 0]}]}, "did you mean 'color'?"),
        ({"classes": [{"name": "car", "phrases": "car"}]}, "'phrases' must be a list"),
        ({"classes": [{"name": "car", "phrases": []}]}, "'phrases' must be a list"),
        ({"classes": [{"name": "car", "phrases": [" "]}]}, "'phrases' must be a list"),
        ({"classes": [{"name": "car", "color": [0, 0, 256]}]}, "from 0 to 255"),
        ({"classes": [{"name": "car", "thing": "yes"}]}, "'thing' must be true or false"),
    ],
)
def test_a_wrong_vocabulary_names_its_fault(data: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Vocabulary.from_dict(data, "own.yaml")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_vocabulary_that_is_no_file_lists_the_presets(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nuscenes16, semantickitti19"):
        Vocabulary.load("nuscenes")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(InputError, match="not valid YAML"):
        Vocabulary.load(tmp_path / "bad.yaml")


def test_bare_phrases_are_things_unless_a_known_vocabulary_says_stuff():
    known = Vocabulary.load("nuscenes16")
    asked = ["fork lift", "car", "road", "grass"]
    assert [c.thing for c in Vocabulary.of_phrases(asked, known=known).classes] == [1, 1, 0, 0]
    assert all(c.thing for c in Vocabulary.of_phrases(asked).classes)
