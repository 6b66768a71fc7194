"""`recover` and `recovering`: undo the actions that dead processes left behind.

A recovery claims saga by saga. Each claimed saga has a task, which makes attempts until the saga is
finished or has to wait; one that waits has no task, only a time. The tasks share nothing but the
journal, so a saga that fails does not disturb the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import heapq
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from returns_pipeline._engine import checks
from returns_pipeline._engine.cancellation import shielded, wait_uncancelled
from returns_pipeline._engine.retry_loop import next_delay
from returns_pipeline.compensation import (
    Compensation,
    CompensationEntry,
    CompensationRegistry,
)
from returns_pipeline.compensation._internals import Action, undo_once
from returns_pipeline.compensation.protocol import (
    ActionRecord,
    RecoverableJournal,
    RecoveryReport,
    StoredAction,
    StoredSaga,
)
from returns_pipeline.errors import JournalCorrupt, JournalError
from returns_pipeline.journal._arguments import decode
from returns_pipeline.retry import RetryPolicy

__all__ = ["recover", "recovering"]

_log = logging.getLogger("returns_pipeline")

# Between two attempts their number and the wait go on record, so each call of an undo is one.
_ONCE: Final = RetryPolicy(attempts=1)
# Attempts that may end with their process, beside those that the policy allows.
_DEATHS: Final = 20
# Seconds: a timer may fire a little early, and what is due by then is due.
_EARLY: Final = 0.001


async def recover(
    journal: RecoverableJournal,
    registry: CompensationRegistry,
    *,
    timeout: checks.Seconds = 30.0,
    concurrency: int = 1,
) -> list[RecoveryReport]:
    """Undo the actions that dead processes left behind, and report on each saga.

    1. The newest saga comes first, and in a saga strictly the action that was registered last.
    2. What a process that lives, or is stopped, has open is not touched. Several recoverers share
       the work; no two run one action at the same time.
    3. An action whose name, or a version newer than this process has, is not in the registry is
       deferred: the action, and those registered before it, are left for a process that knows it.
    4. An undo is tried as its `RetryPolicy` says. Attempts and waits count on over restarts; no
       wait is longer than the policy's own, whatever the clock of the machine says. The policy's
       ``total_timeout`` counts from the first attempt in this process, and the undo's own
       ``timeout`` holds for each attempt. Waiting for the journal does not count. A saga that waits
       does not hold up others. An undo whose attempts are used up, or whose arguments make no
       sense, is *stuck*: it stays on record until a person retries or discards it. The actions
       registered before it are undone all the same, unless its scope had ``on_failure="stop"``:
       then they are stuck as well.
    5. An undo may be called again only if its process died between the undo and the record of it;
       then with the same key. If twenty more attempts than its policy allows have ended with their
       process, it is stuck.

    Cancel safety: an attempt that is under way is finished and put on record; then what this
    process took over is released, and the cancellation propagates. `JournalError` does the same.

    Args:
        journal: Where dead processes left something.
        registry: The undo actions that this process knows.
        timeout: Seconds that an attempt of an undo without a time of its own may take, above 0.
        concurrency: Sagas that are worked on at the same time, at least 1. With more than one, a
            newer saga begins no later than an older one, but need not end before it.

    Returns:
        A report for each saga that this process took over, in order. Where a `JournalError` ended
        the work on one saga, its report says so, and the work on the others continues.

    Raises:
        InvalidArgument: ``timeout`` or ``concurrency`` is out of range.
        JournalError: The journal cannot be read, or nothing more can be taken over. What was not
            undone is still there.
    """
    recovery = _Recovery(
        journal,
        registry,
        checks.seconds("timeout", timeout),
        checks.count("concurrency", concurrency),
    )
    cases: list[_Case] = []
    recovery.on_claim = cases.append
    await recovery.run()
    return [case.report() for case in cases]


def recovering(
    journal: RecoverableJournal,
    registry: CompensationRegistry,
    *,
    every: checks.Seconds = 30.0,
    timeout: checks.Seconds = 30.0,
    concurrency: int = 8,
    on_report: Callable[[RecoveryReport], object] | None = None,
) -> AbstractAsyncContextManager[None]:
    """Recover in the background, at once and then again and again, as long as the block runs.

    A service need not wait for `recover` before it starts, and undoes what others leave behind
    while it runs. Memory does not grow with what is recovered.

    >>> async def main(journal: RecoverableJournal, registry: CompensationRegistry) -> None:
    ...     async with recovering(journal, registry):
    ...         await serve()

    Each round does what `recover` does. If the journal fails, that is logged, and the next round
    tries again. Leaving the block ends the round as a cancelled `recover` ends: attempts that are
    under way are finished.

    Args:
        journal: Where dead processes left something.
        registry: The undo actions that this process knows.
        every: Seconds from the end of one round to the beginning of the next, above 0.
        timeout: As with `recover`.
        concurrency: As with `recover`.
        on_report: Called with the report of each saga, when its work has ended.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.
    """
    return _recovering(
        journal,
        registry,
        checks.seconds("every", every, finite=True),
        checks.seconds("timeout", timeout),
        checks.count("concurrency", concurrency),
        on_report,
    )


@contextlib.asynccontextmanager
async def _recovering(
    journal: RecoverableJournal,
    registry: CompensationRegistry,
    every: float,
    timeout: float,
    concurrency: int,
    on_report: Callable[[RecoveryReport], object] | None,
) -> AsyncGenerator[None]:
    def ended(case: _Case) -> None:
        if on_report is not None:
            _ = on_report(case.report())

    async def rounds() -> None:
        while True:
            recovery = _Recovery(journal, registry, timeout, concurrency)
            recovery.on_end = ended
            try:
                await recovery.run()
            except JournalError as error:
                _log.warning("recovery is tried again in %g s: %s", every, error)
            except Exception:  # noqa: BLE001  # of an observer, or of a journal that is not ours
                _log.exception("recovery has failed, and is tried again in %g s", every)
            await asyncio.sleep(every)

    task = asyncio.create_task(rounds(), name=f"recover {journal}")
    try:
        yield
    finally:
        _ = task.cancel()
        cancelled = await wait_uncancelled(task)
        if cancelled is not None:
            raise cancelled


class _Case:
    """A saga that was claimed, and what has become of its actions so far."""

    __slots__ = ("attempts", "deferred", "done", "due", "error", "left", "saga", "stuck", "until")

    def __init__(self, saga: StoredSaga) -> None:
        self.saga = saga
        states = {"pending", "deferred"}
        # The next one is the last of the list.
        self.left = [action for action in reversed(saga.actions) if action.state in states]
        self.done: list[CompensationEntry] = []
        self.stuck: list[CompensationEntry] = []
        self.deferred: list[CompensationEntry] = []
        self.error: JournalError | None = None
        self.attempts: int | None = None  # of the next action; None before this process looked
        self.due = 0.0  # when the next action may be tried, on the loop's clock
        self.until: float | None = None  # when no attempt begins any more; None before the first

    @property
    def is_settled(self) -> bool:
        """Whether nothing of it is open any more, so that nobody can claim it again."""
        return not self.left and not self.deferred and self.error is None

    def finish(self, entries: list[CompensationEntry], entry: CompensationEntry) -> None:
        """Put the next action among these, and turn to the one before it."""
        entries.append(entry)
        _ = self.left.pop()
        self.attempts, self.due, self.until = None, 0.0, None

    def report(self) -> RecoveryReport:
        return RecoveryReport(
            self.saga.id,
            self.saga.name,
            tuple(self.done),
            tuple(self.stuck),
            tuple(self.deferred),
            self.error,
        )


class _Recovery:
    """One round: it claims until there is nothing to claim and all that was claimed has ended.

    A claimed case is in one place: ``_running``, as long as a task works on it, or ``_waiting``,
    until its next attempt is due. `run` alone moves cases from one to the other, and stops the
    tasks: `_advance`, which they run, ends between two attempts when ``_stopping`` is set.

    Attributes:
        on_claim: Called with each case when it was claimed.
        on_end: Called with each case when it has ended.
    """

    def __init__(
        self,
        journal: RecoverableJournal,
        registry: CompensationRegistry,
        timeout: float,
        concurrency: int,
    ) -> None:
        self._journal = journal
        self._registry = registry
        self._timeout = timeout
        self._concurrency = concurrency
        self._running: dict[asyncio.Task[None], _Case] = {}
        self._waiting: list[tuple[float, int, _Case]] = []  # a heap, by when they are due
        self._claimed = 0
        # Sagas that must not be claimed again by this round. Not all that were claimed: those that
        # are settled cannot be, and each claim would cost as much as there were before.
        self._besides: set[str] = set()
        self._stopping = False
        self.on_claim: Callable[[_Case], object] | None = None
        self.on_end: Callable[[_Case], object] | None = None

    async def run(self) -> None:
        """Work on as many cases at a time as may be, until there are none left."""
        try:
            while await self._fill():
                await self._wait()
        finally:
            self._stopping = True  # by a cancellation or an error; else nothing runs any more
            _, cancelled = await shielded(self._release_all())
            if cancelled is not None:
                raise cancelled  # also in place of an error: see `shielded`

    async def _fill(self) -> bool:
        """Start tasks for cases that are due, then for new ones; return whether any are left."""
        while (free := self._concurrency - len(self._running)) > 0:
            if (case := self._due()) is not None:
                self._start(case)
                continue
            cases = await self._claim(free)
            for case in cases:
                self._start(case)
            if len(cases) < free:
                break
        return bool(self._running or self._waiting)

    def _start(self, case: _Case) -> None:
        task = asyncio.create_task(self._advance(case), name=f"recover saga {case.saga.id}")
        self._running[task] = case

    def _due(self) -> _Case | None:
        now = asyncio.get_running_loop().time()
        if self._waiting and self._waiting[0][0] <= now + _EARLY:
            return heapq.heappop(self._waiting)[2]
        return None

    async def _claim(self, most: int) -> list[_Case]:
        """Claim so many sagas, or as many as there are: a journal does it in one transaction."""
        claims = (self._journal.claim(besides=self._besides) for _ in range(most))
        found, cancelled = await shielded(asyncio.gather(*claims, return_exceptions=True))
        failed: BaseException | None = cancelled
        cases: list[_Case] = []
        for saga in found:
            if isinstance(saga, BaseException):
                failed = failed or saga
            elif saga is not None:
                cases.append(case := _Case(saga))
                self._besides.add(saga.id)
                if self.on_claim is not None:
                    _ = self.on_claim(case)
        if failed is not None:
            for case in cases:
                self._push(case)  # for `_release_all`
            raise failed
        return cases

    def _push(self, case: _Case) -> None:
        self._claimed += 1  # of two that are due at the same time, the one that came first
        heapq.heappush(self._waiting, (case.due, self._claimed, case))

    async def _wait(self) -> None:
        """Wait until a task has ended or, if there is room for another, a case is due."""
        timeout = None
        if self._waiting and len(self._running) < self._concurrency:
            timeout = max(0.0, self._waiting[0][0] - asyncio.get_running_loop().time())
        if not self._running:
            await asyncio.sleep(timeout or 0.0)
            return
        ended, _ = await asyncio.wait(
            self._running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
        for task in ended:
            self._ended(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        case = self._running.pop(task)
        if case.left and case.error is None:
            self._push(case)
        elif self.on_end is not None:
            _ = self.on_end(case)
        if case.is_settled:
            self._besides.discard(case.saga.id)
        task.result()  # its error, if it has failed, ends the recovery

    async def _advance(self, case: _Case) -> None:
        """Make attempts until the saga is finished, has to wait, or this process has to stop.

        In a task of its own. A cancellation of the task ends it after the attempt.
        """
        loop = asyncio.get_running_loop()
        cancelled: asyncio.CancelledError | None = None
        try:
            while case.left and case.due <= loop.time() + _EARLY and not self._stopping:
                _, cancelled = await shielded(self._step(case))
                if cancelled is not None:
                    raise cancelled
            if not case.left and (case.stuck or case.deferred):
                # To its end: asked for again, it would take the saga from a process that has
                # claimed it since.
                _, cancelled = await shielded(self._journal.release(case.saga.id))
        except JournalError as error:
            case.error = error
            saga = case.saga
            _log.error("saga %s (%s) is left as it is: %s", saga.id, saga.name, error)
            with contextlib.suppress(JournalError):  # it is another's already, or is free later
                _, cancelled = await shielded(self._journal.release(saga.id))
        if cancelled is not None:
            raise cancelled

    async def _release_all(self) -> None:
        """Wait for attempts that are under way, then release what is not finished."""
        if self._running:
            _ = await asyncio.wait(self._running)
        for task in list(self._running):
            with contextlib.suppress(asyncio.CancelledError, Exception):  # `run` has its reason
                self._ended(task)
        for _, _, case in self._waiting:
            try:
                await self._journal.release(case.saga.id)
            except JournalError as error:
                _log.warning("saga %s cannot be released: %s", case.saga.id, error)

    # One action.

    async def _step(self, case: _Case) -> None:
        """Make an attempt of the next action, or find out that there is none to be made."""
        stored = case.left[-1]
        undo = self._registry.get(stored.name)
        if undo is None or undo.version < stored.version:
            reason = "unknown name" if undo is None else f"version {stored.version} is newer"
            await self._journal.defer(stored.id, reason)
            case.deferred = [_entry(action, reason) for action in reversed(case.left)]
            case.left.clear()
            return
        record = self._journal.mark(stored.id)
        if case.attempts is None:
            case.attempts = stored.attempts
            if stored.next_attempt:
                case.due = asyncio.get_running_loop().time() + _wait_left(undo.retry, stored)
                return
        try:
            if case.attempts >= undo.retry.attempts + _DEATHS:
                raise _used_up(case.attempts)
            args, kwargs = decode(undo, stored.version, stored.arguments)
        except JournalCorrupt as corrupt:
            _log.error("undo %s of saga %s is stuck: %s", stored.name, case.saga.id, corrupt)
            await self._give_up(case, record, _entry(stored, corrupt))
        else:
            await self._attempt(case, undo, args, kwargs, record)

    async def _attempt(
        self,
        case: _Case,
        undo: Compensation[...],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        record: ActionRecord,
    ) -> None:
        """Call the undo once. The journal is written before and after, outside of its time."""
        stored = case.left[-1]
        loop = asyncio.get_running_loop()
        if case.until is None:
            case.until = loop.time() + undo.retry.total_timeout
        until = case.until
        timeout = self._timeout if undo.timeout is None else undo.timeout
        owner = _Owner(stored.path, stored.key, timeout)
        await record.begin()
        entry, is_running = await undo_once(
            Action(undo.name, owner, undo, args, kwargs, _ONCE, timeout)
        )
        case.attempts = (case.attempts or 0) + 1
        entry = dataclasses.replace(entry, attempts=case.attempts)
        if entry.error is None:
            _ = await shielded(record.done())  # a cancellation does not make it less done
            case.finish(case.done, entry)
            return
        delay, error = await _next_delay(undo.retry, case.attempts, entry.error, until)
        if delay is None or is_running:  # two attempts of one undo never overlap
            await self._give_up(case, record, dataclasses.replace(entry, error=error))
        else:
            case.due = loop.time() + delay
            await self._journal.postpone(stored.id, error, time.time() + delay)

    async def _give_up(self, case: _Case, record: ActionRecord, entry: CompensationEntry) -> None:
        """Park the next action, and after it all others if its scope stops at a failure."""
        await record.give_up(entry.error)
        case.finish(case.stuck, entry)
        while case.left and case.saga.on_failure == "stop":
            stored = case.left[-1]
            await self._journal.mark(stored.id).give_up("not run")
            case.finish(case.stuck, _entry(stored, "not run"))


def _used_up(attempts: int) -> JournalCorrupt:
    return JournalCorrupt("attempts", f"{attempts} have failed or ended with their process")


async def _next_delay(
    policy: RetryPolicy, attempts: int, error: object, due: float
) -> tuple[float | None, object]:
    """Return the seconds until the next attempt, if there is one, and why the last one failed."""
    try:
        return await next_delay(policy, attempts, error, due), error
    except Exception as broken:  # noqa: BLE001  # what the policy calls has failed
        return None, broken


def _wait_left(policy: RetryPolicy, stored: StoredAction) -> float:
    """Return the seconds that are left of a wait which began in another process.

    The wall clock may have jumped since: the wait is never longer than the policy says now.
    """
    most = 0.0
    with contextlib.suppress(Exception):  # what the policy calls has failed: do not wait then
        most = policy.delay(max(1, stored.attempts), stored.error)
    return min(max(0.0, stored.next_attempt - time.time()), most)


@dataclass(frozen=True, slots=True)
class _Owner:
    """The scope in which an action was registered, as far as it is on record."""

    path: str
    key: str
    timeout: float


def _entry(stored: StoredAction, error: object) -> CompensationEntry:
    return CompensationEntry(
        stored.name, (stored.arguments,), {}, stored.attempts, error, stored.path
    )
