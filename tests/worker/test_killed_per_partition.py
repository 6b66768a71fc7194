"""`per_partition`, killed at each point: each message has its effect exactly once.

Each partition has a pipeline, a context and windows of its own. The positions are stored with the
effects: in a transaction of the sink, or in a commit record of a journal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("asyncpg", reason="needs the package asyncpg")
pytest.importorskip("aiokafka", reason="needs the package aiokafka")

from killed_runs import Runs, kill_at_each_point
from tansu import within

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("mode", ["sink", "sqlite", "postgres"])
def test_a_worker_that_is_killed_at_any_point_neither_loses_nor_doubles_an_effect(
    tmp_path: Path, postgres_dsn: str, mode: str
) -> None:
    within(kill_at_each_point(Runs(tmp_path, postgres_dsn, mode, apart=True)), 120)
