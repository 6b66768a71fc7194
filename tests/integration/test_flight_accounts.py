"""What the example with workers writes, undoes and counts, window by window."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")
pytest.importorskip("msgspec", reason="the examples group is not installed")

from flight_program import flight, lines_of

from flight_accounts import TABLES, accounts, delete, progress, write
from flight_records import Rejected, parse_json
from returns_pipeline.connectors import Message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flight_accounts import Accounts, Connection, Item


def item(line: int, deliveries: int = 1) -> Item:
    """Return a message with a flight; in line 3, with one that was cancelled."""
    if line == 3:
        rejected = Rejected(line, "cancelled", "no departure time", "{}")
        return Message(rejected, "flights", (line,), deliveries)
    record = parse_json((line, lines_of(flight()))).unwrap()
    return Message(record, "flights", (line,), deliveries)


async def written(connection: Connection, key: str, *items: Item) -> None:
    async with connection.transaction():
        await write(connection, key, 1, items)


async def undone(connection: Connection, key: str) -> None:
    async with connection.transaction():
        await delete(connection, key)


def on_tables(database: str, steps: Callable[[Connection], Awaitable[object]]) -> Accounts:
    """Run something on new tables; return the accounts of the lines 2 to 4."""

    async def main() -> Accounts:
        connection = await asyncpg.connect(database)
        try:
            await connection.execute(TABLES)
            await steps(connection)
            return await accounts(connection, 2, 4)
        finally:
            await connection.close()

    return asyncio.run(main())


EXPECTED = Counter[str | None]({None: 2, "cancelled": 1})


def test_a_window_that_is_written_adds_up(postgres_dsn: str) -> None:
    async def steps(connection: Connection) -> None:
        await written(connection, "a", item(2), item(3), item(4))
        assert await progress(connection) == {1: 3}

    found = on_tables(postgres_dsn, steps)
    assert found.problems(EXPECTED) == []
    assert (found.flights, found.reasons) == (2, {"cancelled": 1})
    assert (found.windows, found.undone, found.repeated) == (1, 0, 0)


def test_a_later_window_takes_rows_over_and_the_undo_of_the_earlier_leaves_them(
    postgres_dsn: str,
) -> None:
    async def steps(connection: Connection) -> None:
        await written(connection, "killed", item(2), item(3))
        await written(connection, "later", item(2, 2), item(3, 2), item(4))
        assert (await accounts(connection, 2, 4)).repeated == 2
        await undone(connection, "killed")

    found = on_tables(postgres_dsn, steps)
    assert found.problems(EXPECTED) == []
    assert (found.windows, found.undone, found.repeated) == (1, 1, 0)


def test_an_undo_that_comes_first_deletes_and_the_lines_are_written_again(
    postgres_dsn: str,
) -> None:
    async def steps(connection: Connection) -> None:
        await written(connection, "killed", item(2), item(3), item(4))
        await undone(connection, "killed")
        assert (await accounts(connection, 2, 4)).lost == 3
        await undone(connection, "killed")
        await written(connection, "later", item(4, 2), item(3, 2), item(2, 2))

    assert on_tables(postgres_dsn, steps).problems(EXPECTED) == []


def test_a_late_request_of_a_window_is_refused(postgres_dsn: str) -> None:
    """After its undo by the tombstone; after a later delivery by the count."""

    async def steps(connection: Connection) -> None:
        await undone(connection, "late")
        with pytest.raises(asyncpg.UniqueViolationError):
            await written(connection, "late", item(2), item(3))
        await written(connection, "second", item(2, 2), item(3, 2), item(4, 2))
        await written(connection, "first", item(2), item(3), item(4))
        await undone(connection, "first")

    assert on_tables(postgres_dsn, steps).problems(EXPECTED) == []


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DELETE FROM flights WHERE line = 4", "lost: 1"),
        ("DELETE FROM dead_letters", "lost: 1"),
        ("INSERT INTO dead_letters VALUES (4, 'a', 1, 'late', '', '')", "doubled: 1"),
        ("UPDATE windows SET items = 0", "orphans: 3"),
        ("DELETE FROM windows", "orphans: 3"),
        (
            "UPDATE dead_letters SET reason = 'late'",
            "stored are {'late': 1, None: 2}, not {None: 2, 'cancelled': 1}",
        ),
    ],
)
def test_what_does_not_add_up_is_told(statement: str, problem: str, postgres_dsn: str) -> None:
    async def steps(connection: Connection) -> None:
        await written(connection, "a", item(2), item(3), item(4))
        await connection.execute(statement)

    assert on_tables(postgres_dsn, steps).problems(EXPECTED) == [problem]
