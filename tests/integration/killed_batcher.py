"""The example, killed at one point of its work. Run as a process by the tests of its journal.

The point is a call, and whether it dies before it, in it or after it: ``write in`` is in the middle
of a window's transaction. It is the third such call; of ``delete``, the first.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import flight_batcher
from flight_stores import PostgresStore, SqliteStore
from returns_pipeline.journal import PostgresJournal, SqliteJournal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

left = 3
call, where, *arguments = sys.argv[1:]


def point(at: str) -> None:
    """Die here, if it is this one's turn."""
    if at == where and not left:
        os.kill(os.getpid(), signal.SIGKILL)


def watch(kind: type, name: str) -> None:
    """Make a method kill the process at the point."""
    real = getattr(kind, name)

    async def watched(*given: Any) -> Any:
        global left  # noqa: PLW0603  # the process's own
        left -= 1
        point("before")
        done = await real(*given)
        point("after")
        return done

    setattr(kind, name, watched)


def watch_transaction(kind: type) -> None:
    """Make a transaction kill the process at the point before its end."""
    real = getattr(kind, "_transaction")  # noqa: B009  # it is not ours to see

    @asynccontextmanager
    async def watched(self: Any) -> AsyncIterator[Any]:
        async with real(self) as connection:
            yield connection
            point("in")

    setattr(kind, "_transaction", watched)  # noqa: B010


for store in (SqliteStore, PostgresStore):
    if call in {"write", "delete"}:
        watch(store, call)
    watch_transaction(store)
if call in {"record", "forget"}:
    watch(SqliteJournal, call)
    watch(PostgresJournal, call)
if call == "delete":
    left = 1
sys.exit(flight_batcher.main(arguments))
