"""Where windows of flights are kept: in a file of SQLite's, or on a PostgreSQL server.

Both write a `Batch` whole or not at all, and can delete it again. In ``batches`` there is a row for
each window, and for each line that was read there is one in ``flights`` or in ``dead_letters``. In
``departures`` there is a row for each window of event time: how many flights it holds.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import NamedTuple, Protocol, TypeAlias

import aiosqlite
import asyncpg

from flight_records import Flight, Rejected
from returns_pipeline.compensation import Journal
from returns_pipeline.journal import PostgresJournal, RecoverableJournal, SqliteJournal, StoredSaga

Row: TypeAlias = tuple[object, ...]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
    batch_id TEXT PRIMARY KEY, run_id TEXT NOT NULL, number INTEGER NOT NULL,
    closed_by TEXT NOT NULL, error TEXT
);
CREATE TABLE IF NOT EXISTS flights (
    batch_id TEXT NOT NULL, line BIGINT NOT NULL,
    year INTEGER NOT NULL, month INTEGER NOT NULL, day INTEGER NOT NULL,
    carrier TEXT NOT NULL, flight INTEGER NOT NULL, origin TEXT NOT NULL, dest TEXT NOT NULL,
    sched_dep_time INTEGER NOT NULL, sched_arr_time INTEGER NOT NULL,
    hour INTEGER NOT NULL, minute INTEGER NOT NULL, time_hour TIMESTAMPTZ NOT NULL,
    distance INTEGER NOT NULL, tailnum TEXT NOT NULL,
    dep_time INTEGER NOT NULL, dep_delay INTEGER NOT NULL,
    arr_time INTEGER NOT NULL, arr_delay INTEGER NOT NULL, air_time INTEGER NOT NULL,
    PRIMARY KEY (batch_id, line)
);
CREATE TABLE IF NOT EXISTS dead_letters (
    batch_id TEXT NOT NULL, line BIGINT NOT NULL,
    reason TEXT NOT NULL, detail TEXT NOT NULL, payload TEXT NOT NULL,
    PRIMARY KEY (batch_id, line)
);
CREATE TABLE IF NOT EXISTS departures (
    batch_id TEXT NOT NULL, airport TEXT NOT NULL, start TIMESTAMPTZ NOT NULL,
    seconds INTEGER NOT NULL, flights INTEGER NOT NULL,
    PRIMARY KEY (batch_id, airport, start)
);
"""


class Departures(NamedTuple):
    """How many flights were to leave an airport in a window of event time, and left.

    Attributes:
        airport: Where from.
        start: The beginning of the window.
        seconds: Its size.
        flights: Their number.
    """

    airport: str
    start: datetime
    seconds: int
    flights: int


class Batch(NamedTuple):
    """A window as rows.

    Attributes:
        batch_id: Its key in all three tables.
        run_id: Which run of the program made it.
        number: Which window of the run, counted from 1.
        closed_by: What closed the window.
        error: Why its flights are dead letters, if they are.
        flights: Rows of ``flights``.
        dead_letters: Rows of ``dead_letters``.
        departures: Rows of ``departures``.
    """

    batch_id: str
    run_id: str
    number: int
    closed_by: str
    error: str | None
    flights: Sequence[Row]
    dead_letters: Sequence[Row]
    departures: Sequence[Row] = ()


_COLUMNS = {
    "batches": Batch._fields[:5],
    "flights": ("batch_id", *Flight.__struct_fields__),
    "dead_letters": ("batch_id", *Rejected._fields),
    "departures": ("batch_id", *Departures._fields),
}
# They fail if there is a table of that name that is not ours.
_CHECKS = [f"SELECT {', '.join(names)} FROM {table} LIMIT 0" for table, names in _COLUMNS.items()]
_INSERTS = {
    table: f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    for table, names in _COLUMNS.items()
}
_DELETES = [f"DELETE FROM {table} WHERE batch_id = :id" for table in _COLUMNS]
_COUNT = """
SELECT (SELECT count(*) FROM flights JOIN batches USING (batch_id) WHERE run_id = :id),
       (SELECT count(*) FROM dead_letters JOIN batches USING (batch_id) WHERE run_id = :id)
"""
_PLACE = """
SELECT concat_ws('/', inet_server_addr(), inet_server_port(), current_database(), current_schema())
"""
_POSTGRES_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    ValueError,
)

# What the standard library did of its own accord is deprecated since Python 3.12.
sqlite3.register_adapter(datetime, datetime.isoformat)


def _tables(batch: Batch) -> list[tuple[str, Sequence[Row]]]:
    """Return the rows of a batch by table."""
    return [
        ("batches", [batch[:5]]),
        ("flights", batch.flights),
        ("dead_letters", batch.dead_letters),
        ("departures", batch.departures),
    ]


class StoreError(Exception):
    """The database refused, or cannot be reached."""


class Store(Protocol):
    """Keeps batches.

    Attributes:
        place: Says which database it is, whatever the address is that leads there. No secrets.
    """

    @property
    def place(self) -> str: ...  # noqa: D102

    async def write(self, batch: Batch) -> None:
        """Write all rows of a batch, or none."""

    async def delete(self, batch_id: str) -> None:
        """Delete all rows of a batch, if there are any."""

    async def count(self, run_id: str) -> tuple[int, int]:
        """Count the flights and the dead letters of a run."""
        ...


@asynccontextmanager
async def open_store(database: str, *, durable: bool = False) -> AsyncGenerator[Store, None]:
    """Open a file, or a database at a ``postgresql://`` address; make the tables it lacks.

    Args:
        database: The file or the address.
        durable: Whether a batch in a file is to survive the end of the machine, too, once written.

    Raises:
        StoreError: It cannot be opened.
    """
    scheme, found, path = database.partition("://")
    if found and scheme in {"postgresql", "postgres"}:
        postgres = PostgresStore(database)
        try:
            await postgres.prepare()
            yield postgres
        finally:
            await postgres.close()
    elif found and scheme != "sqlite":
        raise StoreError(f"cannot open {database}: neither a file nor a postgresql:// address")
    else:
        path = path.removeprefix("/") if found else database
        if not path:
            raise StoreError("cannot open a database without a name")
        with _refusals(sqlite3.Error, f"cannot open {path}: "):
            sqlite3.connect(path).close()  # where aiosqlite fails, its thread outlives the loop
            connection = await aiosqlite.connect(path, isolation_level=None)
        try:
            sqlite = SqliteStore(connection, path)
            with _refusals(StoreError, f"cannot open {path}: "):
                await sqlite.prepare(durable=durable)
            yield sqlite
        finally:
            await connection.close()


class KeptJournal(Journal, RecoverableJournal, Protocol):
    """A journal to work with, to recover from, and to look at."""

    async def sagas(self, *, done: bool = True) -> list[StoredSaga]:
        """List what is on record, the newest first."""
        ...


def open_journal(url: str) -> AbstractAsyncContextManager[KeptJournal]:
    """Return the journal in a file or a PostgreSQL database, to be opened with ``async with``.

    Raises:
        StoreError: It is another kind of address.
    """
    scheme, found, path = url.partition("://")
    if found and scheme in {"postgres", "postgresql"}:
        return PostgresJournal(url)
    if found and scheme != "sqlite":
        raise StoreError(f"cannot keep a journal at a {scheme}:// address")
    return SqliteJournal(path.removeprefix("/") if found else url)


@contextmanager
def _refusals(
    refusal: type[Exception] | tuple[type[Exception], ...], context: str = ""
) -> Generator[None, None, None]:
    """Raise what a driver raises as a `StoreError` of one line."""
    try:
        yield
    except refusal as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise StoreError(context + message) from error


class SqliteStore:
    """Keeps batches in a file, through `aiosqlite`."""

    def __init__(self, connection: aiosqlite.Connection, path: str) -> None:
        self._connection = connection
        self.place = os.path.realpath(path)

    async def prepare(self, *, durable: bool) -> None:
        """Make the tables."""
        with _refusals(sqlite3.Error):
            # Readers see the file while it is written to, and a commit need not wait for the disk.
            level = "FULL" if durable else "NORMAL"
            await self._connection.executescript(
                f"PRAGMA journal_mode = WAL; PRAGMA synchronous = {level};" + _SCHEMA
            )
            for check in _CHECKS:
                await self._connection.execute_fetchall(check)

    async def write(self, batch: Batch) -> None:
        """Write all rows of a batch, or none."""
        async with self._transaction():
            for table, rows in _tables(batch):
                if rows:
                    await self._connection.executemany(_INSERTS[table], rows)

    async def delete(self, batch_id: str) -> None:
        """Delete all rows of a batch, if there are any."""
        async with self._transaction():
            for delete in _DELETES:
                await self._connection.execute(delete, {"id": batch_id})

    async def count(self, run_id: str) -> tuple[int, int]:
        """Count the flights and the dead letters of a run."""
        with _refusals(sqlite3.Error):
            [(flights, dead_letters)] = await self._connection.execute_fetchall(
                _COUNT, {"id": run_id}
            )
        return flights, dead_letters

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[None, None]:
        with _refusals(sqlite3.Error):
            try:  # a statement whose await is cancelled is carried out nevertheless
                await self._connection.execute("BEGIN IMMEDIATE")
                yield
                await self._connection.commit()
            except BaseException:
                # After a commit that was cancelled too late there is nothing to roll back: that is
                # what the compensation is for.
                await self._connection.rollback()
                raise


class PostgresStore:
    """Keeps batches on a server, through `asyncpg`; reconnects when the connection is lost."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.place = ""  # not known before it is connected
        self._connection: asyncpg.Connection | None = None

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._address, timeout=10, command_timeout=60)
        return self._connection

    async def prepare(self) -> None:
        """Connect, and make the tables."""
        # The message is not to hold the password.
        place = self._address.partition("://")[2].rpartition("@")[2].partition("?")[0]
        with _refusals(_POSTGRES_ERRORS, f"cannot open postgresql://{place}: "):
            connection = await self._connected()
            # Two runs that start at once must not make the same table at once.
            lock = "SELECT pg_advisory_xact_lock(hashtext('flight_batcher'));"
            await connection.execute(lock + _SCHEMA)
            for check in _CHECKS:
                await connection.execute(check)
            self.place = await connection.fetchval(_PLACE)

    async def write(self, batch: Batch) -> None:
        """Write all rows of a batch, or none."""
        async with self._transaction() as connection:
            for table, rows in _tables(batch):
                if not rows:
                    continue
                await connection.copy_records_to_table(table, records=rows, columns=_COLUMNS[table])

    async def delete(self, batch_id: str) -> None:
        """Delete all rows of a batch, if there are any."""
        async with self._transaction() as connection:
            for delete in _DELETES:
                await connection.execute(delete.replace(":id", "$1"), batch_id)

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[asyncpg.Connection, None]:
        with _refusals(_POSTGRES_ERRORS):
            connection = await self._connected()
            # By hand: what asyncpg knows of its own transactions is wrong after a cancellation. The
            # rollback goes through the same connection, so that it comes after what was cancelled.
            try:
                await connection.execute("BEGIN")
                yield connection
                await connection.execute("COMMIT")
            except asyncpg.InternalClientError:  # the server has dropped it, which is not seen yet
                connection.terminate()
                raise
            except BaseException:
                with suppress(*_POSTGRES_ERRORS):
                    await connection.execute("ROLLBACK")
                raise

    async def count(self, run_id: str) -> tuple[int, int]:
        """Count the flights and the dead letters of a run."""
        with _refusals(_POSTGRES_ERRORS):
            connection = await self._connected()
            row = await connection.fetchrow(_COUNT.replace(":id", "$1"), run_id)
        assert row is not None
        return row[0], row[1]

    async def close(self) -> None:
        """Close the connection, in a few seconds at most."""
        if self._connection is not None:
            with suppress(*_POSTGRES_ERRORS):
                await self._connection.close(timeout=5)
