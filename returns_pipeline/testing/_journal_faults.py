"""A journal that fails, or ends its process, at the n-th request: `FaultyJournal`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from returns_pipeline.compensation.protocol import (
    ActionRecord,
    Coverage,
    DurableJournal,
    HandledPositions,
    Intent,
    StoredSaga,
    TakenPartition,
)
from returns_pipeline.errors import AlreadyCommitted, JournalError

__all__ = ["FaultyJournal"]


class FaultyJournal(DurableJournal):
    """A journal that passes each request on to another one, with a point before and after it.

    A `FaultInjector` injects an error or a cancellation at the n-th point. A function may do its
    own counting, and kill the process. An exception

    1. *before* a request prevents the request: nothing has changed;
    2. *after* a request keeps the answer from the caller: the request was carried out. If it is
       raised after ``record()``, the action is forgotten first, because an action whose
       ``record()`` raised must not be on record. If it is raised after ``forget()``, the commit was
       carried out: a repetition succeeds, and ``mark.begin()`` raises `AlreadyCommitted`.

    The requests are those of scopes and of recovery: ``record()``, ``forget()``, ``flush()``,
    ``move()``, ``mark.begin()``, ``mark.done()``, ``mark.give_up()``, ``claim()``, ``release()``,
    ``defer()`` and ``postpone()``. Requests made for people, and closing, have no points.

    Args:
        journal: Does the work.
        strike: Called with the place, such as "before record()". The journal raises what this
            raises: a `JournalError`, if it is to behave like a journal.

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
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     run(main(f"{directory}/journal.db"))
    removed a
    <FaultInjector: JournalUnavailable('journal', 'out of reach') at point 3 in before record()>
    """

    def __init__(self, journal: DurableJournal, strike: Callable[[str], object]) -> None:
        self._journal = journal
        self._strike = strike
        self._committed: set[str] = set()  # actions whose commits were carried out without answer

    def __str__(self) -> str:
        return str(self._journal)

    # For scopes.

    async def record(self, intent: Intent, /) -> None:
        """Record an action: see `Journal`."""
        _ = self._strike("before record()")
        await self._journal.record(intent)
        try:
            _ = self._strike("after record()")
        except BaseException:
            await self._journal.forget([intent.id])
            raise

    async def forget(
        self, ids: Sequence[str], /, positions: Sequence[HandledPositions] = ()
    ) -> None:
        """Commit: see `Journal`."""
        _ = self._strike("before forget()")
        await self._journal.forget(self._uncommitted(ids), *([positions] if positions else ()))
        try:
            _ = self._strike("after forget()")
        except BaseException:
            self._committed.update(ids)
            raise

    def _uncommitted(self, ids: Sequence[str]) -> list[str]:
        return [action for action in ids if action not in self._committed]

    def forget_later(
        self, ids: Sequence[str], on_lost: Callable[[JournalError], object], /
    ) -> None:
        """Commit as soon as possible: see `Journal`."""
        self._journal.forget_later(self._uncommitted(ids), on_lost)

    async def flush(self) -> None:
        """Wait until all commits that have returned are durable."""
        _ = self._strike("before flush()")
        await self._journal.flush()
        _ = self._strike("after flush()")

    def move(self, ids: Sequence[str], /, *, saga: str, name: str, prefix: str) -> None:
        """Move actions into another saga: see `Journal`."""
        _ = self._strike("before move()")
        self._journal.move(self._uncommitted(ids), saga=saga, name=name, prefix=prefix)
        _ = self._strike("after move()")

    def abandon(self, ids: Sequence[str], /) -> None:
        """Leave actions to `recover`: see `Journal`."""
        self._journal.abandon(self._uncommitted(ids))

    def mark(self, action: str, /) -> ActionRecord:
        """Return the record of an action, which has points of its own."""
        is_committed = action in self._committed
        return _FaultyRecord(self._journal.mark(action), self._strike, is_committed=is_committed)

    # For a source.

    @property
    def coverage(self) -> Coverage | None:
        """What the other journal has."""
        return self._journal.coverage

    def attach(self, coverage: Coverage, /) -> None:
        """Store the positions of a source: see `Positions`."""
        self._journal.attach(coverage)

    def detach(self) -> None:
        """Forget the source."""
        self._journal.detach()

    async def take(self, source: str, partitions: Sequence[str], /) -> Mapping[str, TakenPartition]:
        """Take partitions over: see `Positions`."""
        return await self._journal.take(source, partitions)

    # For recovery.

    async def claim(
        self, *, besides: AbstractSet[str], known: Mapping[str, int] | None = None
    ) -> StoredSaga | None:
        """Claim the newest saga of a dead owner: see `recover`.

        If something is raised after the claim, the saga is released first.
        """
        _ = self._strike("before claim()")
        saga = await self._journal.claim(besides=besides, known=known)
        try:
            _ = self._strike("after claim()")
        except BaseException:
            if saga is not None:
                await self._journal.release(saga.id)
            raise
        return saga

    async def release(self, saga: str) -> None:
        """Release a saga."""
        _ = self._strike("before release()")
        await self._journal.release(saga)
        _ = self._strike("after release()")

    async def defer(self, action: str, reason: str) -> None:
        """Record that an action waits for a process that knows its name."""
        _ = self._strike("before defer()")
        await self._journal.defer(action, reason)
        _ = self._strike("after defer()")

    async def postpone(self, action: str, error: object, until: float) -> None:
        """Record that an attempt failed, and when the next may begin."""
        _ = self._strike("before postpone()")
        await self._journal.postpone(action, error, until)
        _ = self._strike("after postpone()")

    # For people.

    async def sagas(self, *, done: bool = True) -> list[StoredSaga]:
        """Return all sagas on record."""
        return await self._journal.sagas(done=done)

    async def retry(self, saga: str) -> int:
        """Make the stuck and deferred actions of a saga pending again; return how many."""
        return await self._journal.retry(saga)

    async def discard(self, saga: str, reason: str) -> int:
        """Discard the stuck and deferred actions of a saga; return how many."""
        return await self._journal.discard(saga, reason)

    async def close(self) -> None:
        """Close the journal."""
        await self._journal.close()


class _FaultyRecord:
    """The record of an action, with a point before and after each request."""

    __slots__ = ("_is_committed", "_record", "_strike")

    def __init__(
        self, record: ActionRecord, strike: Callable[[str], object], *, is_committed: bool
    ) -> None:
        self._record = record
        self._strike = strike
        self._is_committed = is_committed

    async def begin(self) -> None:
        _ = self._strike("before mark.begin()")
        if self._is_committed:
            raise AlreadyCommitted("faulty", "the action was committed")
        await self._record.begin()
        _ = self._strike("after mark.begin()")

    async def done(self) -> None:
        _ = self._strike("before mark.done()")
        await self._record.done()
        _ = self._strike("after mark.done()")

    async def give_up(self, error: object) -> None:
        _ = self._strike("before mark.give_up()")
        await self._record.give_up(error)
        _ = self._strike("after mark.give_up()")
