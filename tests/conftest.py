"""What tests of every package share."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden vectors and real sample data beside the project."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared (golden vectors, sample data) beside the project")
    return SHARED
