"""Answers of a `PostgresJournal` that are lost, come late, or are refused between others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")

from returns_pipeline.compensation import (  # noqa: E402
    CompensationRegistry,
    CompensationScope,
    Intent,
)
from returns_pipeline.errors import JournalUnavailable, LeaseLost  # noqa: E402
from returns_pipeline.journal import recover  # noqa: E402
from returns_pipeline.retry import RetryPolicy  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from returns_pipeline.journal import PostgresJournal
    from tests.journal.conftest import Place, Wire

registry = CompensationRegistry()
undone: list[str] = []


@registry.compensation("undo")
async def undo(name: str) -> None:
    """Take note."""
    undone.append(name)


@pytest.fixture(autouse=True)
def _clean() -> None:
    undone.clear()


def intent_of(scope: CompensationScope, name: str) -> Intent:
    """Give what `scope` would record."""
    return Intent(f"id of {name}", scope.saga, scope.path, "9", "", scope.key, undo, (name,), {})


def refuses(error: Exception) -> Callable[..., Awaitable[Any]]:
    """Give what raises instead of asking the server."""

    async def refuse(*_: object) -> Any:
        raise error

    return refuse


async def names_in(place: Place, state: str = "pending") -> list[str]:
    """Give what is on record, whoever has it."""
    async with place.database() as database:
        rows = await database.fetch(
            f"SELECT arguments::jsonb ->> 'name' FROM {place.schema}.action "
            f"WHERE state = '{state}' ORDER BY 1"
        )
    return [row[0] for row in rows]


async def rob(place: Place, journal: PostgresJournal) -> None:
    """Let go of all that a journal has, as when its connection has ended."""
    await place.execute(
        f"UPDATE {{schema}}.saga SET owner = '', epoch = epoch + 1 WHERE owner = '{journal._owner}'"
    )


def forget_quietly(*scopes: CompensationScope) -> None:
    for scope in scopes:
        scope._records = []  # or it says so when it is dropped


def test_a_record_before_a_move_into_its_saga_is_not_refused(make: Place) -> None:
    """Both go in one batch, and the saga is made by the record."""

    async def main() -> None:
        async with make() as journal:
            outer = CompensationScope("outer", journal=journal)
            inner = outer.detached("inner")
            await inner.register(undo, "1")
            registering = asyncio.create_task(outer.register(undo, "2"))
            for _ in range(9):
                if not journal._requests:
                    await asyncio.sleep(0)
            outer.absorb(inner)
            await registering
            assert {name: len(it) for name, it in (await make.states(journal)).items()} == {
                "outer": 2
            }
            await outer.commit()
            assert await journal.sagas() == []
            assert not journal._sagas
            assert not journal._actions

    asyncio.run(main())


def test_a_commit_that_fails_leaves_its_actions_to_be_undone(make: Place) -> None:
    """Another part of the saga has been settled meanwhile."""

    async def main() -> None:
        async with make() as journal:
            scope = CompensationScope("a", journal=journal)
            first, second = scope.child("first"), scope.child("second")
            await first.register(undo, "x")
            await second.register(undo, "y")
            session: Any = journal._session
            apply = session.apply

            async def apply_(*args: Any) -> Any:
                if any(step["do"] == "forget" for step in args[3]):
                    raise asyncpg.LockNotAvailableError("no")
                if any(row.get("state") for step in args[3] for row in step.get("rows", [])):
                    committing.append(asyncio.create_task(first.commit()))
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                return await apply(*args)

            committing: list[asyncio.Task[None]] = []
            session.apply = apply_
            await second.compensate()
            with pytest.raises(JournalUnavailable):
                await committing[0]
            session.apply = apply
            report = await first.compensate()
            assert report.failures == ()
            assert undone == ["y", "x"]
            assert not journal._sagas
            assert not journal._actions

    asyncio.run(main())
