"""`ServerConnection`: the one connection of a `PostgresJournal`, replaced when it is lost.

While it is open, its session holds the lock of the journal's owner: the lock shows other processes
that the owner is alive. Behind a transaction pooler there is no such lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import weakref
from collections.abc import Callable
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

# Seconds that a cancelled attempt to connect may still take: see `_connect`.
_MOMENT: Final = 1.0

# A child made by fork has a copy of each socket. While that is open, the server takes the parent
# for alive, even after its end.
_connections: weakref.WeakSet[ServerConnection] = weakref.WeakSet()


def _cut_off_child() -> None:
    for connection in _connections:
        connection.cut_off()


os.register_at_fork(after_in_child=_cut_off_child)


class ServerConnection:
    """One connection, which holds the lock of an owner.

    States: *closed*; *opening*, in `open`; *open*. Any task may call `look`, and any code `drop`
    and `cut_off`, in every state. The other methods are called by the writer's task only, one at a
    time.

    Args:
        source: Returns the address to connect to.
        name: The journal's name, for errors.
        schema: The schema of the tables, a name that needs no escaping.
        create: Whether missing tables are created.
        pooled: Whether a transaction pooler may be used. Then the session keeps nothing, and
            takes no lock.
        patience: Seconds to wait for a connection, and for a lock.
        on_lost: Called when the connection ended without a call of `drop` or `close`.
    """

    # `_connection` is set only when the session is set up completely, lock included, so a batch
    # never goes over a session that other processes take for dead. It is replaced by None before a
    # deliberate end, so `_ended` calls `on_lost` only for an end that was not requested here.

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
        self._apply = f'SELECT "{schema}".apply($1, $2, $3, $4, $5)'
        self._create = create
        self._pooled = pooled
        self._patience = patience
        self._lock_timeout = f"{max(1, round(patience * 1000))}ms"
        self._on_lost = on_lost
        self._connection: Connection[Record] | None = None
        self._codec = ""  # of the server of this connection
        self._making: Connection[Record] | None = None  # the one that `open` is setting up
        _connections.add(self)

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as this process knows."""
        return self._connection is not None and not self._connection.is_closed()

    async def open(self, owner: str) -> None:
        """Connect, create or update the tables, and take the lock of the owner; once."""
        if self.is_open:
            return
        self.drop()
        self._making = connection = await self._connect()
        try:
            if not self._pooled:
                timer = self._limit(connection)
                try:
                    await keep_session(connection)
                finally:
                    timer.cancel()
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
        self._codec = codec_of(connection.get_settings().server_encoding)
        self._connection = connection
        connection.add_termination_listener(self._ended)

    async def apply(self, owner: str, batch: int, lease: float, steps: list[object]) -> list[Any]:
        """Send a batch, and return the answer to each step: see ``schema.sql``."""
        if self._connection is None:
            raise connection_lost()
        codec = self._codec
        document = json.dumps(steps if codec == "utf-8" else fitted(steps, codec))
        (row,) = await self.bounded(
            self._connection, self._apply, owner, batch, lease, self._lock_timeout, document
        )
        answers: list[Any] = json.loads(row[0])
        return answers

    async def look(self, statement: str) -> list[Record]:
        """Read over a connection of its own, which takes no lock and creates nothing.

        Any task may call this.

        Raises:
            JournalUnavailable: There are no tables.
        """
        connection = await self._connect("any")
        try:
            if await version_of(connection, self.bounded, self._schema, self._name) == 0:
                raise no_tables(self._schema, self._name)
            return await self.bounded(connection, statement)
        finally:
            connection.terminate()

    async def _connect(self, target: str = "read-write") -> Connection[Record]:
        """Connect to a server that matches ``target``, or what the address says instead.

        Cancel safety: the driver is cancelled only if it has not connected a moment later. It must
        not be cancelled while it is being connected: it would leave a future behind whose error
        asyncio reports as never retrieved.
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
            # asyncpg cannot read the address. The text of the error, and so the error itself, may
            # contain a part of the address: a secret.
            raise JournalUnavailable(self._name, secrets.scrub(str(error))) from None
        with contextlib.suppress(OSError, AttributeError):
            _set_options(_socket_of(connection), address)
        return connection

    async def _resolve(self) -> tuple[Address, str | None]:
        try:
            return await self._source.resolve()
        except FAILURES:
            raise  # these are tried again
        except Exception as error:
            reason = f"the function for the address or the password failed: {error_text(error)}"
            raise JournalUnavailable(self._name, reason) from error

    async def bounded(
        self, connection: Connection[Record], statement: str, *args: object
    ) -> list[Record]:
        """Run a statement. If no answer comes in time, the connection is ended.

        A request to cancel the statement would need a server that answers.
        """
        timer = self._limit(connection)
        try:
            return await connection.fetch(statement, *args)
        finally:
            timer.cancel()

    def _limit(self, connection: Connection[Record]) -> asyncio.TimerHandle:
        # Twice, because the server itself may wait for a lock for `patience`.
        loop = asyncio.get_running_loop()
        return loop.call_later(2 * self._patience, connection.terminate)

    # The end.

    def _ended(self, connection: object) -> None:
        if connection is self._connection:
            self._connection = None
            self._on_lost()

    def drop(self) -> None:
        """End the connection at once, whatever it is doing."""
        # Before `terminate`, which calls `_ended`.
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """End the connection properly, so that the server notices at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*FAILURES):
                await connection.close(timeout=self._patience)

    def forsake(self) -> None:
        """End the connection without its event loop, which is closed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError, AttributeError):
                _socket_of(connection).shutdown(socket.SHUT_RDWR)

    def cut_off(self) -> None:
        """Close the copy of the socket in a child made by fork, without touching its event loop.

        The descriptor is replaced by one of the null device, so that nothing else gets its number
        and is closed by mistake.
        """
        connection = self._connection or self._making
        if connection is not None:
            with contextlib.suppress(OSError, AttributeError):
                nothing = os.open(os.devnull, os.O_RDWR)
                _ = os.dup2(nothing, _socket_of(connection).fileno(), inheritable=False)
                os.close(nothing)


def _socket_of(connection: Connection[Record]) -> socket.socket:
    # asyncpg has no public name for it.
    transport: asyncio.Transport = getattr(connection, "_transport")  # noqa: B009
    found: socket.socket = transport.get_extra_info("socket")
    return found


def _set_options(its: socket.socket, address: Address) -> None:
    its.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(address.keepalive))
    for option, value in address.socket_options:
        its.setsockopt(socket.IPPROTO_TCP, option, value)
