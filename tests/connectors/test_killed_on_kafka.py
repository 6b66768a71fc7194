"""Each message of a topic has its effect once, whichever point its reader is killed or stopped at.

The effects are rows in PostgreSQL: `TransactionalSink` stores the offsets with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("asyncpg", reason="needs the package asyncpg")
pytest.importorskip("aiokafka", reason="needs the package aiokafka")

from killed_runs import Runs, kill_at_each_point, stop_at_points
from tansu import server, within

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["server"]

pytestmark = pytest.mark.slow


def test_a_reader_that_is_killed_at_any_statement_neither_loses_nor_doubles_an_effect(
    server: str, tmp_path: Path, postgres_dsn: str
) -> None:
    within(kill_at_each_point(Runs(tmp_path, postgres_dsn, "kafka", server)))


def test_a_reader_that_is_stopped_for_longer_than_its_session_does_no_harm(
    server: str, tmp_path: Path, postgres_dsn: str
) -> None:
    within(stop_at_points(Runs(tmp_path, postgres_dsn, "kafka", server)))
