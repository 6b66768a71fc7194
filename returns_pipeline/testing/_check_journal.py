"""`check_journal`: a conformance suite for journals, independent of any test framework."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from returns_pipeline._engine import checks
from returns_pipeline.compensation.protocol import DurableJournal
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.testing._journal_contract import CASES, EVICTED
from returns_pipeline.testing._journal_harness import Harness

__all__ = ["DurableJournal", "check_journal"]

J = TypeVar("J", bound=DurableJournal)


async def check_journal(
    factory: Callable[[], J],
    *,
    silence: Callable[[J], Awaitable[object]] | None = None,
    timeout: checks.Seconds = 60.0,
) -> None:
    """Check that a journal keeps its contract; report all violations at once.

    The contract is what `CompensationScope` and `recover` rely on:

    1. Another process sees every action whose `Journal.record` has returned. An action that was
       refused is not there.
    2. A commit is all or nothing. Of requests that are made together, one that is refused does not
       fail the others. Every request is answered, even when callers are cancelled.
    3. Actions are returned with all their data, the last registered first, also those of blocks
       that were moved.
    4. The sagas of a live owner are not taken over. When an owner is closed, others take over its
       newest saga first. No two work on one saga.
    5. An owner that lost a saga gets `LeaseLost` for every request about it, and changes nothing.
    6. States, attempts, times and errors are still there when the journal is opened again.

    7. Positions are stored with a commit, or neither is. What is committed of a partition that
       another process has taken is refused.

    It works with any event loop, also on virtual time (`returns_pipeline.testing.run`). It cannot
    test power cuts and kill -9: those take processes.

    Args:
        factory: Makes a new journal object at each call, all on the same store. An object
            represents a process, and closing it the end of that process. The store should be empty
            and used by nothing else. Commits must be durable when `Journal.forget` returns: switch
            off any option that delays them.
        silence: Makes other processes believe that the owner of this object is dead, although it
            is not: for instance, by ending its lease or releasing its lock. Without it, the case of
            an owner that lost its lease unnoticed is left out.
        timeout: Seconds, above 0, that each case may take.

    Raises:
        InvalidArgument: ``timeout`` is out of range, or ``factory`` returns the same object twice.
        ExceptionGroup: The contract is violated. The message names each violated claim with what
            was seen; the exceptions in the group show where.

    >>> import tempfile
    >>> from returns_pipeline.journal import SqliteJournal
    >>> from returns_pipeline.testing import run
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     run(check_journal(lambda: SqliteJournal(f"{directory}/journal.db")))
    """
    limit = checks.seconds("timeout", timeout)
    if (first := factory()) is factory():
        raise InvalidArgument(f"the factory must make a new journal each time, not {first!r} again")
    cases = dict(CASES)
    if silence is None:
        del cases[EVICTED]
    violations: list[Exception] = []
    lines: list[str] = []
    for claim, check in cases.items():
        harness = Harness(factory, silence)
        try:
            async with asyncio.timeout(limit):
                await check(harness)
        except Exception as error:  # noqa: BLE001  # whatever a journal raises is a violation
            error.add_note(f"violated claim: {claim}")
            violations.append(error)
            seen = str(error) if isinstance(error, AssertionError) else repr(error)
            lines.append(f"  - {claim}: {seen}")
        finally:
            await harness.end(limit)
    if violations:
        head = f"{len(violations)} of {len(cases)} claims of the journal contract are violated:"
        raise ExceptionGroup("\n".join([head, *lines]), violations)
