"""`per_partition` on Kafka, whose partitions move: each message has its effect exactly once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("asyncpg", reason="needs the package asyncpg")
pytest.importorskip("aiokafka", reason="needs the package aiokafka")

from killed_runs import Runs, kill_while_partitions_move
from tansu import server, within

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["server"]

pytestmark = pytest.mark.slow


def test_workers_that_are_killed_while_partitions_move_neither_lose_nor_double_an_effect(
    server: str, tmp_path: Path, postgres_dsn: str
) -> None:
    runs = Runs(tmp_path, postgres_dsn, "kafka", server, apart=True, count=60, pace=0.1)
    within(kill_while_partitions_move(runs, *[f"before ack() {n}" for n in (9, 12, 15, 18)]), 120)
