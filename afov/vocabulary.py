"""A vocabulary: classes in words. Names, colours and phrases stand here and nowhere else."""

from __future__ import annotations

import colorsys
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from afov.errors import InputError

PRESETS = ("nuscenes16", "semantickitti19")
UNLABELLED = 0


@dataclass(frozen=True)
class Category:
    """One class.

    Attributes:
        name: identifier, as published beside the data.
        phrases: noun phrases that mean this class; the best of them counts.
        color: red, green, blue, 0..255.
        thing: countable (True) or stuff (False).
        absorber: takes pixels away from the others (sky, the ego bonnet) and labels nothing.
    """

    name: str
    phrases: tuple[str, ...]
    color: tuple[int, int, int]
    thing: bool = False
    absorber: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """Labelled classes get ids 1, 2, ... in order; absorbers share id 0, unlabelled."""

    name: str
    classes: tuple[Category, ...]

    def __post_init__(self) -> None:
        names = [c.name for c in self.classes]
        repeated = {n for n in names if names.count(n) > 1}
        if repeated:
            raise InputError(f"vocabulary {self.name}: class {sorted(repeated)[0]!r} stands twice")
        if not 1 <= len(self.labelled) <= 254:
            raise InputError(
                f"vocabulary {self.name}: {len(self.labelled)} labelled classes, expected 1 to 254"
            )

    @cached_property
    def labelled(self) -> tuple[Category, ...]:
        """The classes that label points; the one with id i is `labelled[i - 1]`."""
        return tuple(c for c in self.classes if not c.absorber)

    @cached_property
    def widened(self) -> Vocabulary:
        """The same phrases, where absorbers that are things (a stroller, debris) are classes, too.

        No beam ever meets the sky; it does meet a stroller, though that is none of the classes.
        """
        return replace(
            self,
            classes=tuple(replace(c, absorber=c.absorber and not c.thing) for c in self.classes),
        )

    @cached_property
    def phrases(self) -> tuple[str, ...]:
        """All phrases, class after class, absorbers included."""
        return tuple(p for c in self.classes for p in c.phrases)

    @cached_property
    def phrase_class_id(self) -> np.ndarray:
        """(P,) uint8: the class id of each phrase, 0 for an absorber's."""
        ids = {c.name: i for i, c in enumerate(self.labelled, start=1)}
        return np.array([ids.get(c.name, 0) for c in self.classes for _ in c.phrases], np.uint8)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names by id: `names[0]` is "unlabelled"."""
        return ("unlabelled", *(c.name for c in self.labelled))

    @cached_property
    def palette(self) -> np.ndarray:
        """(256, 3) uint8 colours by class id; unlabelled and unknown are grey."""
        colors = np.full((256, 3), 128, np.uint8)
        colors[1 : len(self.labelled) + 1] = [c.color for c in self.labelled]
        return colors

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as `from_dict` reads it and YAML or JSON holds it."""
        return {
            "name": self.name,
            "classes": [
                {
                    "name": c.name,
                    "phrases": list(c.phrases),
                    "color": list(c.color),
                    "thing": c.thing,
                    "absorber": c.absorber,
                }
                for c in self.classes
            ],
        }

    @classmethod
    def of_phrases(
        cls, phrases: Sequence[str], name: str = "phrases", known: Vocabulary | None = None
    ) -> Vocabulary:
        """A class for each phrase, named by it, in a colour of its own.

        A phrase of a `known` stuff class is stuff; every other one can be counted, as far as
        anybody knows.
        """
        stuff = {p for c in known.classes if not c.thing for p in c.phrases} if known else set()
        classes = [
            {"name": phrase, "color": list(distinct_color(i)), "thing": phrase not in stuff}
            for i, phrase in enumerate(phrases)
        ]
        return cls.from_dict({"name": name, "classes": classes}, f"vocabulary {name}")

    @classmethod
    def from_dict(cls, data: Any, where: str = "vocabulary") -> Vocabulary:
        """Checks plain data from outside; `where` names its file in errors."""
        if not isinstance(data, Mapping) or not isinstance(data.get("classes"), list):
            raise InputError(f"{where}: expected a mapping with a list 'classes'")
        classes = [
            _category(entry, f"{where}, class {i}") for i, entry in enumerate(data["classes"])
        ]
        return cls(str(data.get("name", "custom")), tuple(classes))

    @classmethod
    def load(cls, name_or_file: str | Path) -> Vocabulary:
        """A preset by name (`nuscenes16`, `semantickitti19`) or a YAML file."""
        if str(name_or_file) in PRESETS:
            text = resources.files("afov").joinpath(f"vocabularies/{name_or_file}.yaml").read_text()
        else:
            try:
                text = Path(name_or_file).read_text()
            except (OSError, UnicodeDecodeError):
                raise InputError(
                    f"vocabulary {str(name_or_file)!r}: neither a preset ({', '.join(PRESETS)}) "
                    "nor a readable YAML file"
                ) from None
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            line = str(error).replace("\n", " ")
            raise InputError(f"{name_or_file}: not valid YAML: {line}") from None
        return cls.from_dict(data, str(name_or_file))


def distinct_color(index: int) -> tuple[int, int, int]:
    """Red, green, blue, 0..255: hues a golden angle apart, so that neighbours differ."""
    r, g, b = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.85, 1 - 0.3 * (index % 2))
    return round(255 * r), round(255 * g), round(255 * b)


_KEYS = ("name", "phrases", "color", "thing", "absorber")


def _category(entry: Any, where: str) -> Category:
    if (
        not isinstance(entry, Mapping)
        or not isinstance(entry.get("name"), str)
        or not entry["name"]
    ):
        raise InputError(f"{where}: expected a mapping with a 'name'")
    where = f"{where} ({entry['name']})"
    for key in entry:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, 1, 0.0)[0]
            raise InputError(f"{where}: unknown key {key!r}; did you mean {near!r}?")
    phrases = entry.get("phrases", [entry["name"].replace("_", " ")])
    if (
        not isinstance(phrases, list)
        or not phrases
        or not all(isinstance(p, str) and p.strip() for p in phrases)
    ):
        raise InputError(f"{where}: 'phrases' must be a list of one or more non-empty strings")
    color = entry.get("color", [128, 128, 128])
    if (
        not isinstance(color, list)
        or len(color) != 3
        or not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 255 for v in color)
    ):
        raise InputError(f"{where}: 'color' must be three integers from 0 to 255")
    for key in ("thing", "absorber"):
        if not isinstance(entry.get(key, False), bool):
            raise InputError(f"{where}: {key!r} must be true or false")
    return Category(
        entry["name"],
        tuple(p.strip() for p in phrases),
        (color[0], color[1], color[2]),
        entry.get("thing", False),
        entry.get("absorber", False),
    )
