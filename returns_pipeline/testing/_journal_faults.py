"""A journal that fails, or ends its process, at the n-th request: `FaultyJournal`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet

    from returns_pipeline.compensation.protocol import (
        ActionRecord,
        DurableJournal,
        Intent,
        StoredSaga,
    )

__all__ = ["FaultyJournal"]


class FaultyJournal:
    """Another journal with a point before and behind each request, where something may strike.

    A `FaultInjector` strikes at the n-th point, with an error or a cancellation; a function may
    count by itself, and end the process. What is raised

    1. *before* a request has kept it from being made: nothing has changed;
    2. *behind* it, keeps the answer from the caller: it has been carried out. An exception behind
       ``record()`` has the action forgotten first, because what raises is not on record. One
       behind ``forget()`` leaves the caller in doubt: the commit is there.

    Requests are those of scopes and of recovery: ``record()``, ``forget()``, ``flush()``,
    ``move()``, ``mark.begin()``, ``mark.done()``, ``mark.give_up()``, ``claim()``, ``release()``,
    ``defer()`` and ``postpone()``. Those for people, and closing, go through untouched.

    Args:
        journal: Does the work.
        strike: Called with the place, such as "before record()". What it raises is what the
            journal raises: a `JournalError`, if it is to behave like a journal.

    >>> import tempfile
    >>> from returns_pipeline.compensation import (CompensationRegistry, CompensationScope)
    >>> from returns_pipeline.errors import JournalUnavailable
    >>> from returns_pipeline.journal import SqliteJournal
    >>> from returns_pipeline.testing import FaultInjector, run
    >>> registry = CompensationRegistry()
    >>> @registry.compensation("remove")
    ... async def remove(name: str) -> None:
    ...     print("removed", name)
    >>> async def main(path: str) -> None:
    ...     faults = FaultInjector(3, lambda: JournalUnavailable("journal", "out of reach"))
    ...     async with SqliteJournal(path) as real:
    ...         try:
    ...             async with CompensationScope("job", journal=FaultyJournal(real, faults)) as job:
    ...                 await job.register(remove, "a")
    ...                 await job.register(remove, "b")
    ...         except JournalUnavailable:
    ...             print(faults)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     run(main(f"{place}/journal.db"))
    removed a
    <FaultInjector: JournalUnavailable('journal', 'out of reach') at point 3 in before record()>
    """

    def __init__(self, journal: DurableJournal, strike: Callable[[str], object]) -> None:
        self._journal = journal
        self._strike = strike

    def __str__(self) -> str:
        return str(self._journal)

    # For scopes.

    async def record(self, intent: Intent, /) -> None:
        """Put an action on record: see `Journal`."""
        _ = self._strike("before record()")
        await self._journal.record(intent)
        try:
            _ = self._strike("behind record()")
        except BaseException:
            await self._journal.forget([intent.id])
            raise

    async def forget(self, ids: Sequence[str], /) -> None:
        """Commit: see `Journal`."""
        _ = self._strike("before forget()")
        await self._journal.forget(ids)
        _ = self._strike("behind forget()")

    async def flush(self) -> None:
        """Return when all commits that have returned are durable."""
        _ = self._strike("before flush()")
        await self._journal.flush()
        _ = self._strike("behind flush()")

    def move(self, ids: Sequence[str], /, *, saga: str, name: str, prefix: str) -> None:
        """Put actions into another saga: see `Journal`."""
        _ = self._strike("before move()")
        self._journal.move(ids, saga=saga, name=name, prefix=prefix)
        _ = self._strike("behind move()")

    def mark(self, action: str, /) -> ActionRecord:
        """Give the record of an action."""
        return _FaultyMark(self._journal.mark(action), self._strike)

    # For recovery.

    async def claim(self, *, besides: AbstractSet[str]) -> StoredSaga | None:
        """Take over the newest saga of a dead owner: see `recover`.

        An exception behind it has the saga released first.
        """
        _ = self._strike("before claim()")
        saga = await self._journal.claim(besides=besides)
        try:
            _ = self._strike("behind claim()")
        except BaseException:
            if saga is not None:
                await self._journal.release(saga.id)
            raise
        return saga

    async def release(self, saga: str) -> None:
        """Let go of a saga."""
        _ = self._strike("before release()")
        await self._journal.release(saga)
        _ = self._strike("behind release()")

    async def defer(self, action: str, reason: str) -> None:
        """Note that an action waits for a process that knows it."""
        _ = self._strike("before defer()")
        await self._journal.defer(action, reason)
        _ = self._strike("behind defer()")

    async def postpone(self, action: str, error: object, until: float) -> None:
        """Note that an attempt failed, and when the next may begin."""
        _ = self._strike("before postpone()")
        await self._journal.postpone(action, error, until)
        _ = self._strike("behind postpone()")

    # For people.

    async def sagas(self) -> list[StoredSaga]:
        """List what is on record."""
        return await self._journal.sagas()

    async def retry(self, saga: str) -> int:
        """Let actions of a saga that are stuck or deferred be tried again; give how many."""
        return await self._journal.retry(saga)

    async def discard(self, saga: str, reason: str) -> int:
        """Give up the actions of a saga that are stuck or deferred; give how many."""
        return await self._journal.discard(saga, reason)

    async def close(self) -> None:
        """Close the journal."""
        await self._journal.close()


class _FaultyMark:
    """The record of an action, with a point before and behind each request."""

    __slots__ = ("_mark", "_strike")

    def __init__(self, mark: ActionRecord, strike: Callable[[str], object]) -> None:
        self._mark = mark
        self._strike = strike

    async def begin(self) -> None:
        _ = self._strike("before mark.begin()")
        await self._mark.begin()
        _ = self._strike("behind mark.begin()")

    async def done(self) -> None:
        _ = self._strike("before mark.done()")
        await self._mark.done()
        _ = self._strike("behind mark.done()")

    async def give_up(self, error: object) -> None:
        _ = self._strike("before mark.give_up()")
        await self._mark.give_up(error)
        _ = self._strike("behind mark.give_up()")
