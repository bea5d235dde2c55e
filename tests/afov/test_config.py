from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml

from afov.config import from_dict, load_yaml, to_dict
from afov.errors import InputError
from afov.voxels import VoxelGrid


@dataclass(frozen=True)
class Wheel:
    radius: float = 0.3
    name: str = "left"


@dataclass(frozen=True)
class Car:
    doors: int = 4
    electric: bool = False
    front: Wheel = field(default_factory=Wheel)
    log: Path | None = None
    colors: tuple[str, ...] = ()
    size: tuple[float, float, float] = (4.0, 1.8, 1.5)
    drive: Literal["front", "rear"] = "front"
    grid: VoxelGrid = field(default_factory=VoxelGrid)


def test_a_file_overrides_only_what_it_names(tmp_path: Path) -> None:
    file = tmp_path / "car.yaml"
    file.write_text(
        "doors: 2\nelectric: true\nfront: {radius: 1e-1}\nlog: a/b\ncolors: [red]\n"
        "size: [4, 2, 1]\ndrive: rear\n"
    )
    expected = Car(2, True, Wheel(0.1), Path("a/b"), ("red",), (4.0, 2.0, 1.0), "rear")
    assert load_yaml(Car, file) == expected


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert load_yaml(Car, tmp_path / "empty.yaml") == Car()


def test_what_is_written_reads_back_equal() -> None:
    car = Car(3, True, Wheel(0.5, "right"), Path("x"), ("red", "blue"), grid=VoxelGrid("cartesian"))
    text = yaml.safe_dump(to_dict(car))
    assert from_dict(Car, yaml.safe_load(text), "car.yaml") == car


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"door": 2}, "car.yaml: unknown key 'door'; did you mean 'doors'?"),
        ({"front": {"radus": 1}}, "car.yaml: unknown key 'front.radus'; did you mean 'radius'?"),
        ({3: 4}, "car.yaml: unknown key '3'"),
        ({"doors": "two"}, "car.yaml: doors: expected a whole number, got 'two'"),
        ({"doors": True}, "car.yaml: doors: expected a whole number, got True"),
        ({"doors": 2.0}, "car.yaml: doors: expected a whole number, got 2.0"),
        ({"electric": 1}, "car.yaml: electric: expected true or false, got 1"),
        ({"front": {"radius": "nan"}}, "car.yaml: front.radius: expected a number, got 'nan'"),
        ({"front": {"radius": True}}, "car.yaml: front.radius: expected a number, got True"),
        ({"front": 3}, "car.yaml: front: expected keys with values, got 3"),
        ({"log": 3}, "car.yaml: log: expected a path, got 3"),
        ({"colors": "red"}, "car.yaml: colors: expected a list, each text, got 'red'"),
        ({"colors": ["red", 1]}, "car.yaml: colors[1]: expected text, got 1"),
        ({"size": [1, 2]}, "car.yaml: size: expected a list of 3: a number, a number, a number"),
        ({"drive": "both"}, "car.yaml: drive: expected one of front, rear, got 'both'"),
        ({"grid": {"size": [0, 1, 1]}}, "car.yaml: grid: voxel grid: size"),
        ([1, 2], "car.yaml: the file: expected keys with values, got [1, 2]"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(data: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        from_dict(Car, data, "car.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_missing_required_key_is_named() -> None:
    @dataclass(frozen=True)
    class Needs:
        speed: float

    with pytest.raises(InputError, match="'speed' is missing"):
        # A class inside a function: its annotations are text that only its module resolves.
        from_dict(Needs, {}, "x.yaml")


@pytest.mark.parametrize("content", [b"a: [1", b"\xff\xfe\x00"])
def test_a_file_that_is_no_yaml_is_one_line_of_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_yaml(Car, tmp_path / "bad.yaml")
    assert "bad.yaml" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"none\.yaml"):
        load_yaml(Car, tmp_path / "none.yaml")
