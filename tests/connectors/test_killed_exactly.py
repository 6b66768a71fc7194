"""Each message has its effect exactly once, whichever point a reader of a log is killed at.

The positions are stored with the effects: in a transaction of the sink, or in a commit record of a
journal, whose undo actions take back what has no such record.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("asyncpg", reason="needs the package asyncpg")
pytest.importorskip("aiokafka", reason="needs the package aiokafka")

from killed_runs import Runs, kill_at_each_point, stop_at_points

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("mode", ["sink", "sqlite", "postgres"])
def test_a_reader_that_is_killed_at_any_point_neither_loses_nor_doubles_an_effect(
    tmp_path: Path, postgres_dsn: str, mode: str
) -> None:
    asyncio.run(kill_at_each_point(Runs(tmp_path, postgres_dsn, mode)))


@pytest.mark.parametrize("mode", ["sink", "postgres"])
def test_a_reader_that_wakes_up_in_a_window_that_others_have_written_does_no_harm(
    tmp_path: Path, postgres_dsn: str, mode: str
) -> None:
    asyncio.run(stop_at_points(Runs(tmp_path, postgres_dsn, mode)))
