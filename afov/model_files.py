"""The files of a model folder: model.json describes them, and has a hash of each."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from afov.errors import InputError

FORMAT = 1


def description_in(where: Path) -> dict[str, Any]:
    """The content of model.json, of a format that this version reads.

    Raises:
        InputError: no such file, another format, or no description at all.
    """
    try:
        data = json.loads(where.read_text())
        if data["format"] != FORMAT:
            raise InputError(f"{where}: format {data['format']}, this version reads {FORMAT}")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{where}: not found; expected a model folder of afov-train") from None
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{where}: does not describe a model ({line}); export it again") from None
    return dict(data)


def checked(file: Path, expected: str) -> bytes:
    """A file's content.

    Args:
        expected: its SHA-256, of model.json.

    Raises:
        InputError: it is missing, or was changed.
    """
    try:
        content = file.read_bytes()
    except OSError:
        raise InputError(
            f"{file}: missing from the model folder; copy or export it again"
        ) from None
    if sha256(content) != expected:
        raise InputError(
            f"{file}: its SHA-256 is not the one in model.json; the file was changed or cut off: "
            "copy or export the folder again"
        )
    return content


def sha256(content: bytes) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
