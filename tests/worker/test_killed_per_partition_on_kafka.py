"""`per_partition` on Kafka, killed or stopped: each message has its effect exactly once.

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


def test_a_worker_that_is_killed_at_any_statement_neither_loses_nor_doubles_an_effect(
    server: str, tmp_path: Path, postgres_dsn: str
) -> None:
    within(kill_at_each_point(Runs(tmp_path, postgres_dsn, "kafka", server, apart=True)), 120)


def test_two_workers_that_are_stopped_for_longer_than_their_sessions_do_no_harm(
    server: str, tmp_path: Path, postgres_dsn: str
) -> None:
    runs = Runs(tmp_path, postgres_dsn, "kafka", server, apart=True)
    within(stop_at_points(runs, zombies=2), 120)
