"""`ServerConnection`: the one connection of a `PostgresJournal`, made anew when it was lost.

While it is open it holds the lock of the journal's owner, unless a transaction pooler may stand
between: the session of the server is what other processes recognise a living owner by.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import weakref
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from returns_pipeline._engine.cancellation import done_within, wait_uncancelled
from returns_pipeline.errors import JournalUnavailable
from returns_pipeline.journal._face import error_text
from returns_pipeline.journal.postgres._address import Address, AddressSource
from returns_pipeline.journal.postgres._driver import FAILURES, connect, connection_lost
from returns_pipeline.journal.postgres._encoding import codec_of, fitted
from returns_pipeline.journal.postgres._liveness import hold_lock, keep_session
from returns_pipeline.journal.postgres._migrations import migrate, no_tables, version_of

if TYPE_CHECKING:
    from asyncpg import Connection, Record

__all__ = ["ServerConnection"]

# Seconds in which a connection that nobody wants any more may still be made: see `_connect`.
_MOMENT: Final = 1.0

# A child made by fork has a copy of each socket. As long as it is open there, the server takes the
# parent for alive, whatever became of it.
_connections: weakref.WeakSet[ServerConnection] = weakref.WeakSet()


def _cut_off_child() -> None:
    for connection in _connections:
        connection.cut_off()


os.register_at_fork(after_in_child=_cut_off_child)


class ServerConnection:
    """One connection, which holds the lock of an owner.

    All methods but `look` are called by the task of the journal's writer alone, one at a time, save
    `drop` and `cut_off`, which may be called at any moment.

    Args:
        source: Says where to connect.
        name: The journal's name, for errors.
        schema: Where the tables are: a name that needs no escaping.
        create: Whether tables are made if there are none.
        pooled: Whether a transaction pooler may stand before the server. Then nothing is kept in
            the session, and there is no lock.
        patience: Seconds for a connection to be made, and for a lock.
        on_lost: Called when the connection ended and nobody had asked for that.
    """

    def __init__(
        self,
        source: AddressSource,
        name: str,
        *,
        schema: str,
        create: bool,
        pooled: bool,
        patience: float,
        on_lost: Callable[[], None],
    ) -> None:
        self._source = source
        self._name = name
        self._schema = schema
        self._create = create
        self._pooled = pooled
        self._patience = patience
        self._lock_timeout = f"{max(1, round(patience * 1000))}ms"
        self._on_lost = on_lost
        self._connection: Connection[Record] | None = None
        self._making: Connection[Record] | None = None  # it is not set up completely yet
        _connections.add(self)

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
            if not self._pooled:
                with self._limited(connection):
                    await keep_session(connection)
            await migrate(
                connection,
                self.bounded,
                self._schema,
                self._name,
                lock_timeout=self._lock_timeout,
                create=self._create,
            )
            if not self._pooled:
                await hold_lock(
                    connection,
                    self.bounded,
                    self._connect,
                    schema=self._schema,
                    owner=owner,
                    name=self._name,
                    lock_timeout=self._lock_timeout,
                )
        except BaseException:
            connection.terminate()
            raise
        finally:
            self._making = None
        self._connection = connection
        connection.add_termination_listener(self._ended)

    async def apply(self, owner: str, batch: int, lease: float, steps: list[object]) -> list[Any]:
        """Carry out a batch, and return the answer to each step: see ``schema.sql``."""
        if self._connection is None:
            raise connection_lost()
        codec = codec_of(self._connection.get_settings().server_encoding)
        document = json.dumps(steps if codec == "utf-8" else fitted(steps, codec))
        statement = f'SELECT "{self._schema}".apply($1, $2, $3, $4, $5)'
        (row,) = await self.bounded(
            self._connection, statement, owner, batch, lease, self._lock_timeout, document
        )
        answers: list[Any] = json.loads(row[0])
        return answers

    async def look(self, statement: str) -> list[Record]:
        """Read with a connection of its own, which takes no lock and makes nothing.

        Any task may call this.

        Raises:
            JournalUnavailable: There are no tables to look at.
        """
        connection = await self._connect("any")
        try:
            if await version_of(connection, self.bounded, self._schema, self._name) == 0:
                raise no_tables(self._schema, self._name)
            return await self.bounded(connection, statement)
        finally:
            connection.terminate()

    async def _connect(self, target: str = "read-write") -> Connection[Record]:
        """Make a connection to a server of a kind, if the address does not ask for another.

        Cancel safety: the driver learns of a cancellation a moment later. If it is cancelled while
        it gets hold of a server that answers, it leaves a future whose error asyncio reports as
        never retrieved.
        """
        task = asyncio.create_task(self._connected(target), name=f"connect to {self._name}")
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

    async def _connected(self, target: str) -> Connection[Record]:
        address, password = await self._resolve()
        secrets = replace(address, secrets=(*address.secrets, *([password] if password else [])))
        try:
            connection = await connect(
                address.dsn_for(target),
                password=password,
                timeout=address.connect_timeout or self._patience,
                # In a transaction pooler the next transaction may meet another server process.
                cached_statements=0 if self._pooled else 100,
            )
        except (ValueError, OverflowError) as error:
            # What asyncpg cannot read in an address is not always an error of its own. Its text,
            # and so the error itself, may hold a part of the address.
            raise JournalUnavailable(self._name, secrets.scrub(str(error))) from None
        with contextlib.suppress(OSError, AttributeError):
            _set_options(_socket_of(connection), address)
        return connection

    async def _resolve(self) -> tuple[Address, str | None]:
        try:
            return await self._source.resolve()
        except FAILURES:
            raise  # it is tried again
        except Exception as error:
            reason = f"the function for the address or the password failed: {error_text(error)}"
            raise JournalUnavailable(self._name, reason) from error

    async def bounded(
        self, connection: Connection[Record], statement: str, *args: object
    ) -> list[Record]:
        """Run a statement. One that gets no answer in time ends with its connection.

        It is not ended by a request to cancel it, which needs a server that answers.
        """
        with self._limited(connection):
            return await connection.fetch(statement, *args)

    @contextlib.contextmanager
    def _limited(self, connection: Connection[Record]) -> Generator[None, None, None]:
        # The server itself gives up waiting for a lock after `patience`.
        loop = asyncio.get_running_loop()
        timer = loop.call_later(2 * self._patience, connection.terminate)
        try:
            yield
        finally:
            timer.cancel()

    # The end.

    def _ended(self, connection: object) -> None:
        if connection is self._connection:
            self._connection = None
            self._on_lost()

    def drop(self) -> None:
        """End the connection at once, whatever it is doing."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """End the connection, and tell the server so."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*FAILURES):
                await connection.close(timeout=self._patience)

    def forsake(self) -> None:
        """End the connection without its loop, which is closed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError, AttributeError):
                _socket_of(connection).shutdown(socket.SHUT_RDWR)

    def cut_off(self) -> None:
        """In a child made by fork: close the copy of the socket, and touch nothing of its loop.

        The number of the socket stays taken, by something that may be closed without harm.
        """
        connection = self._connection or self._making
        if connection is not None:
            with contextlib.suppress(OSError, AttributeError):
                nothing = os.open(os.devnull, os.O_RDWR)
                _ = os.dup2(nothing, _socket_of(connection).fileno(), inheritable=False)
                os.close(nothing)


def _socket_of(connection: Connection[Record]) -> socket.socket:
    # There is no public way to it.
    transport: asyncio.Transport = getattr(connection, "_transport")  # noqa: B009
    found: socket.socket = transport.get_extra_info("socket")
    return found


def _set_options(its: socket.socket, address: Address) -> None:
    its.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(address.keepalive))
    for option, value in address.socket_options:
        its.setsockopt(socket.IPPROTO_TCP, option, value)
