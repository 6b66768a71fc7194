"""The session whose lock shows other processes that the owner of a journal is alive.

The server must not end such a session for being idle: the owner may be busy with an effect for
hours. And it must be one session. Behind a transaction pooler each transaction may run in another
session, which has no lock, while the session that has the lock may be ended or used by others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from returns_pipeline.journal.postgres._driver import FAILURES, swapped

if TYPE_CHECKING:
    from asyncpg import Connection, Record

__all__ = ["hold_lock", "keep_session"]

_Fetch: TypeAlias = "Callable[..., Awaitable[list[Any]]]"

# Settings of the session, and the version of the server that brought each.
_SETTINGS: Final = (
    # Whatever the defaults of the role or the database, the server must not end an idle session or
    # a request that waits for a lock. This process limits the time of its requests itself.
    (14, "idle_session_timeout = 0"),
    (10, "idle_in_transaction_session_timeout = 0"),
    (10, "statement_timeout = 0"),
    (17, "transaction_timeout = 0"),
    # Seconds of silence before the server checks that the client's machine is still there, seconds
    # between checks, and their number: after half a minute the session ends. The kernel answers the
    # checks, so a stopped process passes them.
    (10, "tcp_keepalives_idle = 15"),
    (10, "tcp_keepalives_interval = 5"),
    (10, "tcp_keepalives_count = 3"),
)
# Seconds in which another connection would get the session, if a pooler allows that.
_PROBE: Final = 2.0


async def keep_session(connection: Connection[Record]) -> None:
    """Make the server keep an idle session, and end it when its client is gone."""
    version = connection.get_server_version().major
    known = [f"SET {setting}" for since, setting in _SETTINGS if version >= since]
    await connection.execute("; ".join(known))


async def hold_lock(
    connection: Connection[Record],
    fetch: _Fetch,
    connect: Callable[[], Awaitable[Connection[Record]]],
    *,
    schema: str,
    owner: str,
    name: str,
    lock_timeout: str,
) -> None:
    """Take the lock of an owner, and check that its session stays with this connection.

    Raises:
        JournalUnavailable: It does not, because of a pooler.
    """
    take = f'SELECT "{schema}".take($1, $2)'
    ((process,),) = await fetch(connection, take, owner, lock_timeout)
    which = "SELECT pg_backend_pid(), current_setting('returns_pipeline.owner', true)"

    async def check() -> None:
        if tuple((await fetch(connection, which))[0]) != (process, owner):
            raise swapped(name)

    if connection.get_server_pid() == process:
        return  # the server itself answered; if it did not, `apply` refuses the first batch
    await check()
    # A pooler. If it pools transactions, a transaction of another connection may get the session
    # that has the lock, which is free now. Then another session answers here; or, if the pool has
    # only one session, none does.
    other = await connect()
    try:
        try:
            async with asyncio.timeout(_PROBE):
                await other.execute("BEGIN")
                _ = await other.fetch(which)
        except TimeoutError:
            return  # the other connection cannot get the session: it is reserved for this one
        try:
            async with asyncio.timeout(_PROBE):
                await check()
        except TimeoutError:
            raise swapped(name) from None
    finally:
        with contextlib.suppress(*FAILURES):
            other.terminate()
