"""What `PostgresJournal` asks of asyncpg: a connection, made anew when it is lost, and errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import weakref
from typing import TYPE_CHECKING, Any, Final

from returns_pipeline._engine.cancellation import done_within, wait_uncancelled
from returns_pipeline.errors import (
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
    MissingExtra,
)
from returns_pipeline.journal.postgres._schema import MIGRATIONS, VERSION

try:
    import asyncpg
except ImportError as _error:
    raise MissingExtra("postgres", "asyncpg") from _error

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncpg import Connection, Record

__all__ = ["FAILURES", "Session", "ends", "explain", "passes", "spares_others"]

# What a call of asyncpg may raise when it is not the caller's mistake.
# The last is not one of the bug it is named for: it comes when the server has said farewell.
FAILURES: Final = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

# Errors that another attempt may not meet: connections (08), the server's end and start (57P),
# no connection free; and transactions that were in each other's way.
_ENDS: Final = ("08", "57P", "53300")
_CONFLICTS: Final = ("40001", "40P01")
# The data's own, not those of the server or the whole table.
_OF_ONE_REQUEST: Final = ("21", "22", "23", "54", "P0", "XX")
# Damaged pages, and tables or functions that are not there.
_CORRUPT: Final = ("XX001", "XX002", "42P01", "42703", "42883", "3F000")

# Seconds after which the server looks whether the machine of a silent session is still there, and
# between looks: it is given up after half a minute. A stopped process still answers.
_KEEP_ALIVE: Final = {
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}

# Seconds that a connection which is being made has to be there, when nobody wants it any more.
_MOMENT: Final = 1.0

# A child made by fork has a copy of each socket: the server would take its parent for alive.
_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _cut_off_child() -> None:
    for session in _sessions:
        session.cut_off()


os.register_at_fork(after_in_child=_cut_off_child)


class Session:
    """One connection, which may hold the lock of an owner.

    Args:
        address: The DSN.
        name: For errors.
        schema: Where the tables are: a name that needs no escaping.
        pooled: Whether a transaction pooler may stand before the server: then nothing is kept in
            the session.
        patience: Seconds for a connection to be made, and for a lock.
        on_lost: Called when a connection that held the lock has ended by itself.
    """

    def __init__(
        self,
        address: str,
        name: str,
        *,
        schema: str,
        pooled: bool,
        patience: float,
        on_lost: Callable[[], None],
    ) -> None:
        self._address = address
        self._name = name
        self._bare = schema
        self._schema = f'"{schema}"'
        self._pooled = pooled
        self._patience = patience
        self._wait = f"{max(1, round(patience * 1000))}ms"
        self._on_lost = on_lost
        self._connection: Connection[Record] | None = None
        self._making: Connection[Record] | None = None  # not all it needs is done yet
        _sessions.add(self)

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None and not self._connection.is_closed()

    async def open(self, owner: str) -> None:
        """Have a connection, the tables, and the lock of the owner."""
        if self.is_open:
            return
        self.drop()
        self._making = connection = await self._connect()
        try:
            await self._migrate(connection)
            if not self._pooled:
                take = f"SELECT {self._schema}.take($1, $2)"
                await self._bounded(connection, take, owner, self._wait)
        except BaseException:
            connection.terminate()
            raise
        finally:
            self._making = None
        self._connection = connection
        connection.add_termination_listener(self._ended)

    async def apply(self, owner: str, batch: int, lease: float, steps: list[object]) -> list[Any]:
        """Carry out a batch, and give the answer to each step. See `postgres_schema`."""
        connection = self._open_connection()
        statement = f"SELECT {self._schema}.apply($1, $2, $3, $4, $5)"
        (row,) = await self._bounded(
            connection, statement, owner, batch, lease, self._wait, json.dumps(steps)
        )
        answers: list[Any] = json.loads(row[0])
        return answers

    async def read(self, statement: str, *args: object) -> list[Record]:
        """Read with the connection that writes."""
        return await self._bounded(self._open_connection(), statement, *args)

    async def look(self, statement: str) -> list[Record]:
        """Read with a connection of its own, that locks nothing and makes nothing.

        Raises:
            JournalUnavailable: There are no tables to look at.
        """
        connection = await self._connect()
        try:
            if await self._version(connection) == 0:
                raise JournalUnavailable(self._name, f"there is no journal in schema {self._bare}")
            return await self._bounded(connection, statement)
        finally:
            connection.terminate()

    def _open_connection(self) -> Connection[Record]:
        if self._connection is None:
            raise asyncpg.InterfaceError("the connection was lost")
        return self._connection

    async def _connect(self) -> Connection[Record]:
        """Make a connection.

        Cancel safety: the driver is left alone for a moment before it learns of it. When it is
        cancelled while it gets hold of a server that answers, it leaves a future behind whose error
        asyncio reports as never retrieved.
        """
        task = asyncio.create_task(self._connected(), name=f"connect to {self._name}")
        try:
            _ = await asyncio.wait({task})
        except asyncio.CancelledError:
            if not await done_within(task, _MOMENT):
                _ = task.cancel()
                _ = await wait_uncancelled(task)
            if not task.cancelled() and task.exception() is None:
                task.result().terminate()
            raise
        return task.result()

    async def _connected(self) -> Connection[Record]:
        settings = {} if self._pooled else dict(_KEEP_ALIVE)
        connection: Connection[Record]
        try:
            connection = await asyncpg.connect(
                self._address,
                timeout=self._patience,
                # In a transaction pooler the next transaction may meet another server process.
                statement_cache_size=0 if self._pooled else 100,
                max_cached_statement_lifetime=0,  # or each statement has a timer
                server_settings=settings,
            )
        except (ValueError, OverflowError) as error:
            # What it cannot read in an address is not always an error of its own.
            raise JournalUnavailable(self._name, str(error)) from error
        with contextlib.suppress(OSError, AttributeError):
            self._socket_of(connection).setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection

    async def _bounded(
        self, connection: Connection[Record], statement: str, *args: object
    ) -> list[Record]:
        """Run a statement; one that gets no answer in time ends with its connection.

        Not with a request to cancel it, which needs a server that answers.
        """
        loop = asyncio.get_running_loop()
        # The server itself gives up waiting for a lock after `patience`.
        timer = loop.call_later(2 * self._patience, connection.terminate)
        try:
            return await connection.fetch(statement, *args)
        finally:
            timer.cancel()

    # The tables.

    async def _version(self, connection: Connection[Record]) -> int:
        """Give the version of the tables; 0 if there are none.

        Raises:
            JournalError: They are newer than this program.
        """
        table = f"{self._schema}.version"
        # Not to_regclass(): after a wait for another process it may answer from before.
        there = (
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n "
            "ON n.oid = c.relnamespace WHERE nspname = $1 AND relname = 'version')"
        )
        ((found,),) = await self._bounded(connection, there, self._bare)
        if not found:
            return 0
        ((version,),) = await self._bounded(connection, f"SELECT max(number) FROM {table}")
        if not isinstance(version, int):
            raise JournalCorrupt(self._name, "its version is not there")
        if version > VERSION:
            raise JournalError(
                self._name, f"version {version} is newer than this program knows ({VERSION})"
            )
        return version

    async def _migrate(self, connection: Connection[Record]) -> None:
        """Bring the tables up to this program's version, one process at a time."""
        if await self._version(connection) == VERSION:
            return
        async with connection.transaction(isolation="read_committed"):
            await self._set_up(connection)
            lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
            await self._bounded(connection, lock, f"returns_pipeline {self._schema} migration")
            version = await self._version(connection)  # another process may have been first
            if version == 0:
                # Asked for, because IF NOT EXISTS needs a right that a role need not have.
                there = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)"
                ((known,),) = await self._bounded(connection, there, self._bare)
                if not known:
                    await connection.execute(f"CREATE SCHEMA {self._schema}")
            for number, script in enumerate(MIGRATIONS[version:], version + 1):
                await connection.execute(script.format(schema=self._schema))
                table = f"{self._schema}.version"
                await connection.execute(
                    f"DELETE FROM {table}; INSERT INTO {table} VALUES ({number})"
                )

    async def _set_up(self, connection: Connection[Record]) -> None:
        await connection.execute(
            f"SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = '{self._wait}'"
        )

    # The end.

    def _ended(self, connection: object) -> None:
        if connection is self._connection:
            self._connection = None
            self._on_lost()

    def drop(self) -> None:
        """End the connection at once, whatever it is at."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """Say goodbye to the server."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*FAILURES):
                await connection.close(timeout=self._patience)

    @staticmethod
    def _socket_of(connection: Connection[Record]) -> socket.socket:
        # There is no public way to it.
        transport: asyncio.Transport = getattr(connection, "_transport")  # noqa: B009
        found: socket.socket = transport.get_extra_info("socket")
        return found

    def cut_off(self) -> None:
        """In a child made by fork: let go of the parent's socket, and touch nothing of its loop.

        Its number stays taken, by something that harms nobody whoever closes it.
        """
        connection = self._connection or self._making
        if connection is not None:
            with contextlib.suppress(OSError, AttributeError):
                nothing = os.open(os.devnull, os.O_RDWR)
                _ = os.dup2(nothing, self._socket_of(connection).fileno(), inheritable=False)
                os.close(nothing)


def _state(error: BaseException) -> str:
    state: object = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else ""


def passes(error: Exception) -> bool:
    """Say whether another attempt, perhaps with another connection, may do better."""
    if isinstance(error, asyncpg.PostgresError):
        return _state(error).startswith((*_ENDS, *_CONFLICTS))
    return not isinstance(error, JournalError | ValueError)


def ends(error: Exception) -> bool:
    """Say whether it is the connection's: it may be at its end, and who knows what was done.

    Otherwise it is the server's answer: nothing was done. The session stays, with the lock in it,
    by which others know that its owner lives.
    """
    return passes(error) and not _state(error).startswith(_CONFLICTS)


def spares_others(error: Exception) -> bool:
    """Say whether the error may be of one request of a batch alone."""
    return _state(error).startswith(_OF_ONE_REQUEST)


def explain(error: Exception, name: str) -> JournalError:
    """Say what an error of the driver or the server means for the caller."""
    if isinstance(error, JournalError):
        return error
    kind = JournalCorrupt if _state(error).startswith(_CORRUPT) else JournalUnavailable
    made = kind(name, str(error) or repr(error))
    made.__cause__ = error
    return made
