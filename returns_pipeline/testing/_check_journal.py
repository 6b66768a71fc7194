"""`check_journal`: a conformance suite for journals, in no test framework's terms."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from returns_pipeline.compensation.protocol import DurableJournal
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.testing._journal_contract import PROMISES, ROBBED
from returns_pipeline.testing._journal_harness import Trial

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["DurableJournal", "check_journal"]

J = TypeVar("J", bound=DurableJournal)


async def check_journal(
    factory: Callable[[], J],
    *,
    silence: Callable[[J], Awaitable[object]] | None = None,
    timeout: float = 60.0,
) -> None:
    """See whether a journal keeps its promises; all that are broken are reported at once.

    The promises are what `CompensationScope` and `recover` rely on:

    1. What `Journal.record` returned from, another process sees; what was refused is not there.
    2. A commit is all or nothing. Of requests that come together, one that is refused does not
       take the others along. No request is left without an answer, also when callers are cancelled.
    3. Actions come back with all they had, the last registered first, also of blocks that moved.
    4. An owner that lives is not robbed. When it is closed, others take over the newest saga first;
       no two work on one saga.
    5. Who lost a saga gets `LeaseLost` for whatever it does about it, and changes nothing.
    6. States, attempts, times and errors are there when the journal is opened again.

    It works with any event loop, also on virtual time (`returns_pipeline.testing.run`). It tells
    nothing about power cuts and kill -9: those take processes.

    Args:
        factory: Makes a journal object, a new one at each call, on the same store: an object
            stands for a process, and closing it for that process's end. The store should be empty
            and used by nobody else, and commits durable when `Journal.forget` returns: what may
            put them off is to be told not to.
        silence: Makes others take this object's owner for dead, though it goes on: for instance
            ends its lease, or lets go of its lock. Without it, that one who has been robbed without
            knowing gets `LeaseLost` is not looked at.
        timeout: Seconds, above 0, that each promise may take.

    Raises:
        InvalidArgument: ``timeout`` is out of range, or ``factory`` gives one object twice.
        ExceptionGroup: Promises are broken: the message names each with what was seen; the
            exceptions in it show where.

    >>> import tempfile
    >>> from returns_pipeline.journal import SqliteJournal
    >>> from returns_pipeline.testing import run
    >>> with tempfile.TemporaryDirectory() as place:
    ...     run(check_journal(lambda: SqliteJournal(f"{place}/journal.db")))
    """
    if not timeout > 0:
        raise InvalidArgument(f"timeout must be above 0 seconds, not {timeout!r}")
    if (first := factory()) is factory():
        raise InvalidArgument(f"the factory must make a new journal each time, not {first!r} again")
    promises = dict(PROMISES)
    if silence is None:
        del promises[ROBBED]
    broken: list[Exception] = []
    lines: list[str] = []
    for promise, look in promises.items():
        trial = Trial(factory, silence)
        try:
            async with asyncio.timeout(timeout):
                await look(trial)
        except Exception as error:  # noqa: BLE001  # whatever a journal raises is a finding
            error.add_note(f"broken promise: {promise}")
            broken.append(error)
            seen = str(error) if isinstance(error, AssertionError) else repr(error)
            lines.append(f"  - {promise}: {seen}")
        finally:
            await trial.end(timeout)
    if broken:
        head = f"{len(broken)} of {len(promises)} promises of a journal are broken:"
        raise ExceptionGroup("\n".join([head, *lines]), broken)
