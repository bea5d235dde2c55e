"""Settings: frozen dataclasses from plain YAML data, with errors that name the key."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from afov.errors import InputError

C = TypeVar("C")


def load_yaml(cls: type[C], path: Path | str) -> C:
    """Settings of the dataclass `cls` from a YAML file; what the file leaves out has its default.

    Raises:
        InputError: no readable YAML, an unknown key, or a value of another type.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"{path}: expected a readable YAML file ({reason})") from None
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise InputError(f"{path}: not valid YAML: {line}") from None
    return from_dict(cls, {} if data is None else data, str(path))


def from_dict(cls: type[C], data: Any, where: str, prefix: str = "") -> C:
    """An instance of the dataclass `cls` from plain data; `where` names its file in errors."""
    if not isinstance(data, Mapping):
        name = prefix.rstrip(".") or "the file"
        raise InputError(f"{where}: {name}: expected keys with values, got {data!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1, 0.0)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{where}: unknown key {prefix + str(key)!r}{hint}")
    for field in fields.values():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and field.name not in data:
            raise InputError(f"{where}: key {prefix + field.name!r} is missing")
    values = {
        key: _value(hints[key], value, where, f"{prefix}{key}") for key, value in data.items()
    }
    try:
        return cls(**values)
    except ValueError as error:  # a check in __post_init__
        raise InputError(f"{where}: {prefix.rstrip('.') or cls.__name__}: {error}") from None


def to_dict(instance: Any) -> Any:
    """Plain data that YAML holds and `from_dict` reads back: paths as text, tuples as lists."""
    if dataclasses.is_dataclass(instance):
        return {f.name: to_dict(getattr(instance, f.name)) for f in dataclasses.fields(instance)}
    if isinstance(instance, tuple | list):
        return [to_dict(value) for value in instance]
    return str(instance) if isinstance(instance, Path) else instance


def _value(hint: Any, value: Any, where: str, key: str) -> Any:
    """`value` as the type `hint`, or an InputError that names the key."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where, f"{key}.")
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        others = [a for a in args if a is not type(None)]
        if len(others) == 1:
            return _value(others[0], value, where, key)
        for other in others:
            try:
                return _value(other, value, where, key)
            except InputError:
                continue
    elif origin is tuple and isinstance(value, list | tuple):
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        if len(kinds) == len(value):
            pairs = enumerate(zip(kinds, value, strict=True))
            return tuple(_value(kind, v, where, f"{key}[{i}]") for i, (kind, v) in pairs)
    elif origin is Literal:
        if any(value == a and type(value) is type(a) for a in args):
            return value
    elif hint is float:
        # YAML 1.1 reads 1e-4 (no dot) as text.
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            try:
                number = float(value)
            except (ValueError, OverflowError):
                number = math.nan
            if math.isfinite(number):
                return number
    elif hint is Path:
        if isinstance(value, str | Path) and str(value):
            return Path(value)
    elif origin is None and isinstance(value, hint) and (hint is bool) == isinstance(value, bool):
        return value  # True is an int, but no number of doors
    raise InputError(f"{where}: {key}: expected {_described(hint)}, got {value!r}")


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_WORDS |= {Path: "a path", type(None): "null"}


def _described(hint: Any) -> str:
    """A type in words, for errors."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (Union, types.UnionType):
        return " or ".join(_described(a) for a in args)
    if origin is tuple and args[-1] is Ellipsis:
        return f"a list, each {_described(args[0])}"
    if origin is tuple:
        return f"a list of {len(args)}: " + ", ".join(_described(a) for a in args)
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))
