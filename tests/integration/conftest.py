"""Databases for the tests of the example."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return the path of a database that is not there yet."""
    return str(tmp_path / "flights.db")


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, path: str) -> str:
    """Return a database of each kind."""
    if request.param == "sqlite":
        return path
    address = request.getfixturevalue("postgres_dsn")
    assert isinstance(address, str)
    return address
