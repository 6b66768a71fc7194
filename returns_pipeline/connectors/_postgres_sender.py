"""Publishing to a log in PostgreSQL: see `postgres`, which imports this if asyncpg is installed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

from returns_pipeline.connectors._sender import Outgoing, OutgoingBatch, SenderConnection
from returns_pipeline.errors import ConnectionLost, MissingExtra

try:
    import asyncpg
except ImportError as _error:
    raise MissingExtra("postgres", "asyncpg") from _error

if TYPE_CHECKING:
    from asyncpg import Connection, Record
    from asyncpg.transaction import Transaction

__all__ = ["CONNECT_TIMEOUT", "LogSender", "translated"]

CONNECT_TIMEOUT: Final = 10.0
# Seconds between two looks at a transaction that is still running.
_LOOK: Final = 0.02

# Another connection may succeed: a broken one, a server that stops or starts, too many connections,
# a server that has become a standby.
_LOST: Final = ("08", "57P", "53300", "25006")


_Append: TypeAlias = "Callable[[Connection[Record], Sequence[Outgoing[bytes]]], Awaitable[None]]"


class LogSender:
    """Appends to a log."""

    deduplicates: bool = False

    def __init__(self, dsn: str, log: str, append: _Append) -> None:
        self._dsn = dsn
        self.name: str = f"postgres {log}"
        self._append_all = append

    async def connect(self) -> SenderConnection:
        with translated(self.name):
            connection = await asyncpg.connect(
                self._dsn,
                timeout=CONNECT_TIMEOUT,
                server_settings={"application_name": self.name[:63]},
            )
        return _SenderConnection(self.name, self._append_all, connection)


class _SenderConnection:
    """Appends each batch in a transaction. A connection carries out one at a time."""

    def __init__(self, name: str, append: _Append, connection: Connection[Record]) -> None:
        self._name = name
        self._append_all = append
        self._connection = connection
        self._using = asyncio.Lock()

    async def send(self, batch: OutgoingBatch, /) -> None:
        messages = [message for _, message in batch.unanswered()]
        if any(message.destination is not None for message in messages):
            batch.refuse_all("a log in PostgreSQL has no other destinations")
            return
        async with self._using:
            if self._connection.is_closed():
                raise ConnectionLost(self._name, "the connection was closed")
            try:
                with translated(self._name), self._ended_if_cancelled():
                    if batch.note is None or not await self._has_committed(str(batch.note)):
                        batch.note = None
                        await self._append(batch, messages)
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
                batch.note = None
                batch.refuse_all(str(error))
            else:
                batch.confirm_all()

    async def _append(self, batch: OutgoingBatch, messages: list[Outgoing[bytes]]) -> None:
        transaction = self._connection.transaction()
        await transaction.start()
        try:
            number = await self._connection.fetchval("SELECT pg_current_xact_id()::text")
            await self._append_all(self._connection, messages)
        except Exception:
            if not self._connection.is_closed():
                await transaction.rollback()
            raise
        batch.note = number  # from now on it may commit
        await self._commit(transaction)

    async def _commit(self, transaction: Transaction) -> None:
        await transaction.commit()

    @contextmanager
    def _ended_if_cancelled(self) -> Generator[None, None, None]:
        """End a connection whose statement was cancelled: it may be in a transaction."""
        try:
            yield
        except asyncio.CancelledError:
            self._connection.terminate()
            raise

    async def _has_committed(self, number: str) -> bool:
        """Ask what became of a transaction whose connection was lost; wait while it runs."""
        while True:
            status = await self._connection.fetchval(
                "SELECT pg_xact_status($1::text::xid8)", number
            )
            if status != "in progress":
                return str(status) == "committed"
            await asyncio.sleep(_LOOK)

    async def close(self) -> None:
        # A call that is under way would make `close()` wait for it.
        self._connection.terminate()


@contextmanager
def translated(name: str) -> Generator[None, None, None]:
    """Make errors of the connection a `ConnectionLost`."""
    try:
        yield
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise ConnectionLost(name, str(error) or repr(error)) from error
    except asyncpg.PostgresError as error:
        if not str(error.sqlstate or "").startswith(_LOST):
            raise
        raise ConnectionLost(name, str(error)) from error
