"""A place for a journal, nothing undone yet, and no thread left behind."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from undoing import poison, undone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    undone.clear()
    poison.clear()
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("journal")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"
