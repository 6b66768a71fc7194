"""What a session needs so that it shows, by a lock, that the owner of a journal lives.

A session with such a lock must not be ended by the server for being idle: the owner may be busy
with an effect for hours. And it must be a session: a transaction pooler lets each transaction meet
another one, in which there is no lock, while the one that has it may be ended or used by others.
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
    # Whatever the role's or the database's defaults are, the server must not end an idle session,
    # nor a request that waits for a lock: how long requests take is limited here.
    (14, "idle_session_timeout = 0"),
    (10, "idle_in_transaction_session_timeout = 0"),
    (10, "statement_timeout = 0"),
    (17, "transaction_timeout = 0"),
    # Seconds after which the server checks whether the machine of a silent session is still there,
    # and between checks: it is given up after half a minute. A stopped process still answers.
    (10, "tcp_keepalives_idle = 15"),
    (10, "tcp_keepalives_interval = 5"),
    (10, "tcp_keepalives_count = 3"),
)
# Seconds for another connection to get hold of the session, if it can.
_PROBE: Final = 2.0


async def keep_session(connection: Connection[Record]) -> None:
    """Have the server keep a session while it is idle, and end it when its client is gone."""
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
    """Take the lock of an owner, and check that the session which has it stays this connection's.

    Raises:
        JournalUnavailable: It does not: a pooler is in between.
    """
    take = f'SELECT "{schema}".take($1, $2)'
    ((process,),) = await fetch(connection, take, owner, lock_timeout)
    which = "SELECT pg_backend_pid(), current_setting('returns_pipeline.owner', true)"

    async def check() -> None:
        if tuple((await fetch(connection, which))[0]) != (process, owner):
            raise swapped(name)

    if connection.get_server_pid() == process:
        return  # the server itself has answered; if not, the first batch is refused by `apply`
    await check()
    # A pooler. If it is one of transactions, a transaction of another connection may get the
    # session that has the lock, which is free now; and another one answers here. With a pool of
    # one session none answers.
    other = await connect()
    try:
        try:
            async with asyncio.timeout(_PROBE):
                await other.execute("BEGIN")
                _ = await other.fetch(which)
        except TimeoutError:
            return  # the session is not to be had: it is kept for this connection
        try:
            async with asyncio.timeout(_PROBE):
                await check()
        except TimeoutError:
            raise swapped(name) from None
    finally:
        with contextlib.suppress(*FAILURES):
            other.terminate()
