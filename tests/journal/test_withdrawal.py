"""A cancellation during a commit: it withdraws the commit if the journal has not begun it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from returns.result import Result, Success
from undoing import note, undone

from returns_pipeline.compensation import CompensationScope
from returns_pipeline.context import StepContext
from returns_pipeline.journal import SqliteJournal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.journal.conftest import Place


@pytest.fixture(autouse=True)
def _nothing_is_undone() -> None:
    undone.clear()


def test_sqlite_withdraws_a_commit_that_waits_for_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            ctx = StepContext("job", journal=journal)
            with closing(sqlite3.connect(path, isolation_level=None)) as other:

                async def step() -> Result[int, str]:
                    await ctx.register(note, "1")
                    other.execute("BEGIN IMMEDIATE")
                    loop = asyncio.get_running_loop()
                    loop.call_later(0.1, running.cancel)
                    loop.call_later(0.3, other.execute, "ROLLBACK")
                    return Success(1)

                running = asyncio.ensure_future(ctx.run(step()).awaitable())
                await check_withdrawn(running, ctx)
            assert [a.state for s in await journal.sagas() for a in s.actions] == ["done"]

    asyncio.run(main())
    assert undone == ["1"]


def test_postgres_withdraws_a_commit_that_waits_for_the_batch_before(make: Place) -> None:
    async def main() -> None:
        async with make() as journal, make.database() as other:
            busy = CompensationScope("busy", journal=journal)
            await busy.register(note, "2")
            ctx = StepContext("job", journal=journal)
            tasks: list[asyncio.Task[None]] = []

            async def step() -> Result[int, str]:
                await ctx.register(note, "1")
                lock = other.transaction()
                await lock.start()
                await other.execute(f"LOCK TABLE {make.schema}.action IN SHARE MODE")
                loop = asyncio.get_running_loop()
                tasks.append(loop.create_task(busy.register(note, "3")))
                await asyncio.sleep(0.1)  # it is on its way, and held up
                loop.call_later(0.1, running.cancel)
                loop.call_later(0.3, lambda: tasks.append(loop.create_task(lock.rollback())))
                return Success(1)

            running = asyncio.ensure_future(ctx.run(step()).awaitable())
            await check_withdrawn(running, ctx)
            await asyncio.gather(*tasks)
            await busy.register(note, "4")
            await busy.commit()

    asyncio.run(main())
    assert undone == ["1"]


async def check_withdrawn(running: asyncio.Task[object], ctx: StepContext) -> None:
    """Await a step that is cancelled: it is undone, and no note says otherwise."""
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await running
    assert ctx.outcome == "rolled back"
    assert getattr(cancelled.value, "__notes__", []) == []


def test_a_commit_that_is_on_its_way_is_told_and_stands(make: Place) -> None:
    async def main() -> None:
        async with make() as journal, make.database() as other:
            ctx = StepContext("job", journal=journal)
            tasks: list[asyncio.Task[None]] = []

            async def step() -> Result[int, str]:
                await ctx.register(note, "1")
                lock = other.transaction()
                await lock.start()
                await other.execute(f"LOCK TABLE {make.schema}.action IN SHARE MODE")
                loop = asyncio.get_running_loop()
                loop.call_later(0.2, running.cancel)
                loop.call_later(0.4, lambda: tasks.append(loop.create_task(lock.rollback())))
                return Success(1)

            running = asyncio.ensure_future(ctx.run(step()).awaitable())
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await running
            assert ctx.outcome == "committed"
            assert cancelled.value.__notes__ == ["scope 'job' was committed before this was raised"]
            assert await journal.sagas() == []
            await asyncio.gather(*tasks)

    asyncio.run(main())
    assert undone == []
