"""Statistics of journals: what waits, what was answered, and how long that took."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from returns_pipeline.compensation import CompensationRegistry, CompensationScope
from returns_pipeline.errors import JournalError
from returns_pipeline.journal import JournalStatistics, PostgresJournal, SqliteJournal

if TYPE_CHECKING:
    from pathlib import Path

registry = CompensationRegistry()


@registry.compensation("undo")
async def undo(name: str) -> None: ...


Journal = SqliteJournal | PostgresJournal


@pytest.fixture(params=["sqlite", "postgres"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    if request.param == "sqlite":
        return SqliteJournal(tmp_path / "journal.db")
    dsn, schema = request.getfixturevalue("journal_schema")
    return PostgresJournal(dsn, schema=schema)


def test_requests_wait_until_they_are_answered(journal: Journal) -> None:
    async def main() -> None:
        assert journal.statistics() == JournalStatistics()
        async with journal:
            opened = journal.statistics().answered
            scopes = [CompensationScope(f"{n}", journal=journal) for n in range(5)]
            asked = [asyncio.ensure_future(scope.register(undo, "x")) for scope in scopes]
            seen = 0
            while not asked[-1].done():
                await asyncio.sleep(0)
                seen = max(seen, journal.statistics().waiting)
            assert seen == 5
            await asyncio.wait(asked)
            found = journal.statistics()
            assert (found.waiting, found.answered) == (0, opened + 5)
            assert 0 < found.transactions <= opened + 5
            assert found.last_transaction > 0
            for scope in scopes:
                await scope.commit()
        assert journal.statistics().waiting == journal.statistics().deferred == 0

    asyncio.run(main())


def test_several_requests_of_one_turn_are_one_transaction(journal: Journal) -> None:
    async def main() -> None:
        async with journal:
            first = CompensationScope("first", journal=journal)
            await first.register(undo, "x")
            before = journal.statistics()
            scopes = [CompensationScope(f"{n}", journal=journal) for n in range(20)]
            await asyncio.gather(*[scope.register(undo, "x") for scope in scopes])
            found = journal.statistics()
            assert found.answered - before.answered == 20
            assert found.transactions - before.transactions < 20
            for scope in [first, *scopes]:
                await scope.commit()

    asyncio.run(main())


def test_a_request_that_fails_is_answered_too(tmp_path: Path) -> None:
    async def main() -> None:
        broken = SqliteJournal(tmp_path / "no such folder" / "journal.db")
        scope = CompensationScope("a", journal=broken)
        with pytest.raises(JournalError):
            await scope.register(undo, "x")
        found = broken.statistics()
        assert (found.waiting, found.answered, found.transactions) == (0, 1, 1)
        await broken.close()

    asyncio.run(main())
