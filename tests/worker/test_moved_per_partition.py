"""`per_partition`, whose partitions move: each message has its effect exactly once.

They move as workers are stopped for long, or join, or are killed while others join. The positions
are stored with the effects: in a transaction of the sink, or in a commit record of a journal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("asyncpg", reason="needs the package asyncpg")
pytest.importorskip("aiokafka", reason="needs the package aiokafka")

from killed_runs import Runs, kill_while_partitions_move, stop_at_points
from tansu import within

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("mode", ["sink", "postgres"])
def test_two_workers_that_wake_up_when_a_third_one_has_done_their_work_do_no_harm(
    tmp_path: Path, postgres_dsn: str, mode: str
) -> None:
    within(stop_at_points(Runs(tmp_path, postgres_dsn, mode, apart=True), zombies=2), 120)


@pytest.mark.parametrize("mode", ["sink", "postgres"])
def test_workers_that_are_killed_while_partitions_move_neither_lose_nor_double_an_effect(
    tmp_path: Path, postgres_dsn: str, mode: str
) -> None:
    runs = Runs(tmp_path, postgres_dsn, mode, apart=True, count=24, pace=0.03)
    within(kill_while_partitions_move(runs, *[f"before ack() {n}" for n in (3, 4, 5, 7)]), 120)
