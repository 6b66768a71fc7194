"""`recover` and `recovering`: undo the actions that dead processes left behind.

A recovery claims sagas, and works on each in a task of its own. The task makes attempts until the
saga is finished or has to wait. A saga that waits has no task, only a time. The tasks share nothing
but the journal, so a saga that fails does not disturb the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import heapq
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Final

from returns_pipeline._engine import checks
from returns_pipeline._engine.cancellation import shielded, wait_uncancelled
from returns_pipeline._engine.logs import Repeats, facts
from returns_pipeline._engine.retry_loop import next_delay
from returns_pipeline.compensation import (
    Compensation,
    CompensationEntry,
    CompensationRegistry,
)
from returns_pipeline.compensation._internals import (
    Action,
    hidden,
    printable,
    undo_once,
    why_failed,
)
from returns_pipeline.compensation.protocol import (
    ActionRecord,
    RecoverableJournal,
    RecoveryReport,
    StoredAction,
    StoredSaga,
)
from returns_pipeline.errors import JournalCorrupt, JournalError
from returns_pipeline.journal._arguments import decode, shown
from returns_pipeline.journal._events import RecoveryEvents
from returns_pipeline.retry import RetryPolicy

__all__ = ["recover", "recovering"]

_log = logging.getLogger("returns_pipeline.journal")

# Each run of an undo is one attempt: between two, their number and the wait are recorded.
_ONCE: Final = RetryPolicy(attempts=1)
# How many attempts may end with their process, in addition to those that the policy allows.
_DEATHS: Final = 20
# By which part a wait between two rounds may be shorter.
_JITTER: Final = 0.25
# Seconds. A timer may fire a little early; a case that is this close to its time counts as due.
_EARLY: Final = 0.001


async def recover(
    journal: RecoverableJournal,
    registry: CompensationRegistry,
    *,
    timeout: checks.Seconds = 30.0,
    concurrency: int = 1,
) -> list[RecoveryReport]:
    """Undo the actions that dead processes left behind, and report on each saga.

    Undo actions run *at least once*: an undo must be idempotent, and then it takes effect once.

    1. **Order.** The newest saga comes first. Within a saga the action that was registered last
       comes first, strictly.
    2. **Living owners.** Actions of a process that is alive, or stopped, are not touched. Several
       recoverers share the work, and no two run one action at the same time.
    3. **Unknown actions.** An action is deferred if its name is not in the registry, or if its
       version is newer than the registry's. It is left for a process that knows it, and so are the
       actions registered before it.
    4. **Retries.** An undo is tried as its `RetryPolicy` says. Attempts and waits continue over
       restarts. No wait is longer than the policy's own, whatever the clock of the machine says.
       The policy's ``total_timeout`` counts from the first attempt in this process; the undo's own
       ``timeout`` applies to each attempt. Waiting for the journal does not count. A saga that
       waits does not hold up others.
    5. **Stuck actions.** An undo whose attempts are used up, or whose arguments cannot be read, is
       *stuck*: it stays on record until a person retries or discards it. The actions registered
       before it still run, unless its scope had ``on_failure="stop"``: then they are stuck as well.
    6. **Repeated calls.** An undo that succeeded is called again only if its process died before
       that was recorded; then with the same key. It is stuck once twenty more attempts than its
       policy allows have ended with their process.

    Cancel safety: an attempt that is under way is finished and recorded. Then the sagas that this
    process took over are released, and the cancellation propagates. The same happens at a
    `JournalError`.

    Args:
        journal: The journal to recover from.
        registry: The undo actions that this process knows.
        timeout: Seconds that an attempt may take, above 0, if its undo has no timeout of its own.
        concurrency: How many sagas are worked on at the same time, at least 1. With more than one,
            a newer saga begins no later than an older one, but may end after it.

    Returns:
        A report for each saga that this process took over, in order. If a `JournalError` ended the
        work on one saga, its report has it, and the work on the others continues.

    Raises:
        InvalidArgument: ``timeout`` or ``concurrency`` is out of range.
        TypeError: The registry is passed first.
        JournalError: The journal cannot be read, or no more sagas can be taken over. Actions that
            were not undone are still on record.

    >>> import tempfile
    >>> from returns_pipeline import CompensationRegistry
    >>> from returns_pipeline.journal import SqliteJournal
    >>> from returns_pipeline.testing import run
    >>> async def main() -> list[RecoveryReport]:
    ...     with tempfile.TemporaryDirectory() as folder:
    ...         async with SqliteJournal(f"{folder}/shop.db") as journal:
    ...             return await recover(journal, CompensationRegistry())
    >>> run(main())
    []
    """
    if isinstance(journal, CompensationRegistry):
        raise TypeError("recover() takes a journal, then a registry: recover(journal, registry)")
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
    on_round: Callable[[Exception | None], object] | None = None,
) -> AbstractAsyncContextManager[None]:
    """Recover in the background, at once and then periodically, while the block runs.

    A service then need not wait for `recover` before it starts, and undoes what other processes
    leave behind while it runs. Memory does not grow with the number of sagas recovered.

    >>> async def main(journal: RecoverableJournal, registry: CompensationRegistry) -> None:
    ...     async with recovering(journal, registry):
    ...         await serve()

    Each round does what `recover` does, except that it passes over a saga whose newest open action
    was deferred before and is unknown here as well: that costs next to nothing, and has no report.
    If the journal fails, the error is logged, and the next round tries again. Leaving the block
    ends the round as a cancellation ends `recover`: attempts that are under way are finished.

    Args:
        journal: The journal to recover from.
        registry: The undo actions that this process knows.
        every: Seconds from the end of one round to the beginning of the next, above 0. Each wait is
            up to a quarter shorter, at random: processes that were started together do not all ask
            at the same time.
        timeout: As for `recover`.
        concurrency: As for `recover`.
        on_report: Called with the report of each saga when the work on it has ended.
        on_round: Called at the end of each round with the exception that has ended it, or ``None``.

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
        on_round,
    )


@contextlib.asynccontextmanager
async def _recovering(
    journal: RecoverableJournal,
    registry: CompensationRegistry,
    every: float,
    timeout: float,
    concurrency: int,
    on_report: Callable[[RecoveryReport], object] | None,
    on_round: Callable[[Exception | None], object] | None,
) -> AsyncGenerator[None]:
    repeats, about = Repeats(_log), facts(journal=str(journal), delay=every)

    def ended(case: _Case) -> None:
        if on_report is not None:
            _ = on_report(case.report())

    async def rounds() -> None:
        while True:
            recovery = _Recovery(journal, registry, timeout, concurrency)
            recovery.known = {name: undo.version for name, undo in registry.items()}
            recovery.on_end = ended
            failed: Exception | None = None
            try:
                await recovery.run()
            except JournalError as error:
                failed = error
                repeats.warning(
                    "recovery failed, and is tried again in %g s: %s", every, error, extra=about
                )
            except Exception as error:  # noqa: BLE001  # from `on_report`, or a user's journal
                failed = error
                repeats.exception("recovery failed, and is tried again in %g s", every, extra=about)
            if on_round is not None:
                try:
                    _ = on_round(failed)
                except Exception:  # noqa: BLE001  # the user's: the next round begins nevertheless
                    _log.exception(
                        "the function that is called after each recovery failed", extra=about
                    )
            failed = None  # its traceback holds this frame
            await asyncio.sleep(every * random.uniform(1 - _JITTER, 1))  # noqa: S311

    task = asyncio.create_task(rounds(), name=f"recover {journal}")
    try:
        yield
    finally:
        _ = task.cancel()
        cancelled = await wait_uncancelled(task)
        if cancelled is not None:
            raise cancelled


class _Case:
    """A saga that was claimed, and the outcome of its actions so far.

    An action is in exactly one of ``left``, ``done``, ``stuck`` and ``deferred``. The fields below
    them belong to the next action, the last of ``left``; `finish` resets them. Only the task that
    works on the case changes it while it is running, and only `_Recovery.run` while it waits.
    """

    __slots__ = (
        "attempts",
        "began",
        "deferred",
        "done",
        "due",
        "error",
        "left",
        "saga",
        "stuck",
        "until",
    )

    def __init__(self, saga: StoredSaga) -> None:
        self.saga = saga
        self.began = asyncio.get_running_loop().time()
        states = {"pending", "deferred"}
        # The next action is the last of the list.
        self.left = [action for action in reversed(saga.actions) if action.state in states]
        self.done: list[CompensationEntry] = []
        self.stuck: list[CompensationEntry] = []
        self.deferred: list[CompensationEntry] = []
        self.error: JournalError | None = None
        self.attempts: int | None = None  # None until this process has read how many were made
        self.due = 0.0  # the time on the loop's clock at which an attempt may begin
        self.until: float | None = None  # the time after which none may; None before the first

    @property
    def is_settled(self) -> bool:
        """Whether no action is open any more: then no process can claim the saga again."""
        return not self.left and not self.deferred and self.error is None

    def finish(self, entries: list[CompensationEntry], entry: CompensationEntry) -> None:
        """Move the next action to ``entries``, and turn to the one registered before it."""
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
    """One round: it ends when no saga can be claimed and all claimed sagas have ended.

    A claimed case is either in ``_running``, while a task works on it, or in ``_waiting``, until
    its next attempt is due. Only `run` moves cases between the two, and only `run` stops the tasks:
    they run `_advance`, which ends between two attempts once ``_stopping`` is set.

    Attributes:
        known: For `RecoverableJournal.claim`: ``None`` to claim every saga.
        on_claim: Called with each case when it is claimed.
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
        # Sagas that this round must not claim again. Settled ones are removed: they cannot be
        # claimed, and the cost of each claim would grow with the number of sagas before it.
        self._besides: set[str] = set()
        self._stopping = False
        self._events = RecoveryEvents.opened(journal)
        self.known: Mapping[str, int] | None = None
        self.on_claim: Callable[[_Case], object] | None = None
        self.on_end: Callable[[_Case], object] | None = None

    async def run(self) -> None:
        """Work on cases, as many at a time as allowed, until none are left."""
        try:
            while await self._fill():
                await self._wait()
        finally:
            # Tasks are still running here only after a cancellation or an error.
            self._stopping = True
            _, cancelled = await shielded(self._release_all())
            if cancelled is not None:
                raise cancelled  # also instead of an error: see `shielded`

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
        """Claim up to ``most`` sagas. The requests are made together, for one transaction."""
        known = {} if self.known is None else {"known": self.known}
        claims = (self._journal.claim(besides=self._besides, **known) for _ in range(most))
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
                self._push(case)  # so that `_release_all` releases it
            raise failed
        return cases

    def _push(self, case: _Case) -> None:
        self._claimed += 1  # of two cases with the same time, the first one pushed comes first
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
        else:
            if self._events is not None:
                self._events.ended(case.report(), case.began)
            if self.on_end is not None:
                _ = self.on_end(case)
        if case.is_settled:
            self._besides.discard(case.saga.id)
        task.result()  # raises the error of a task that failed, which ends the recovery

    async def _advance(self, case: _Case) -> None:
        """Make attempts until the saga is finished, has to wait, or the recovery has to stop.

        This runs in a task of its own. If the task is cancelled, it ends after the attempt.
        """
        loop = asyncio.get_running_loop()
        cancelled: asyncio.CancelledError | None = None
        try:
            while case.left and case.due <= loop.time() + _EARLY and not self._stopping:
                _, cancelled = await shielded(self._step(case))
                if cancelled is not None:
                    raise cancelled
            if not case.left and (case.stuck or case.deferred):
                # Shielded, because a release must not be requested twice: the second request would
                # take the saga from a process that has claimed it since the first.
                _, cancelled = await shielded(self._journal.release(case.saga.id))
        except JournalError as error:
            case.error = error
            saga = case.saga
            name = printable(saga.name)
            about = facts(saga=saga.id, scope=name)
            _log.error("saga %s (%s) is left as it is: %s", saga.id, name, error, extra=about)
            # If this fails, too, the saga belongs to another process, or is released later.
            with contextlib.suppress(JournalError):
                _, cancelled = await shielded(self._journal.release(saga.id))
        if cancelled is not None:
            raise cancelled

    async def _release_all(self) -> None:
        """Wait for attempts that are under way, then release the sagas that are not finished."""
        if self._running:
            _ = await asyncio.wait(self._running)
        for task in list(self._running):
            # `run` is raising an error already.
            with contextlib.suppress(asyncio.CancelledError, Exception):
                self._ended(task)
        for _, _, case in self._waiting:
            try:
                await self._journal.release(case.saga.id)
            except JournalError as error:
                _log.warning("saga %s cannot be released: %s", case.saga.id, error)

    # One action.

    async def _step(self, case: _Case) -> None:
        """Make an attempt of the next action, or settle an action that cannot be tried."""
        stored = case.left[-1]
        undo = self._registry.get(stored.name)
        if undo is None or undo.version < stored.version:
            reason = "unknown name" if undo is None else f"version {stored.version} is newer"
            if (stored.state, stored.error) != ("deferred", reason):
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
            name = printable(stored.name)
            about = facts(saga=case.saga.id, undo=name)
            _log.error("undo %s of saga %s is stuck: %s", name, case.saga.id, corrupt, extra=about)
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
        """Call the undo once. Writing to the journal before and after takes none of its time."""
        stored = case.left[-1]
        loop = asyncio.get_running_loop()
        if case.until is None:
            case.until = loop.time() + undo.retry.total_timeout
        until = case.until
        timeout = self._timeout if undo.timeout is None else undo.timeout
        owner = _Owner(stored.path, stored.key, timeout)
        sensitive = hidden(undo, len(args), kwargs)
        action = Action(undo.name, owner, undo, args, kwargs, _ONCE, timeout, sensitive=sensitive)
        await record.begin()
        case.attempts = (case.attempts or 0) + 1
        began = loop.time()
        events = self._events
        begun = None if events is None else partial(events.begun, case.saga, stored)
        entry, is_running = await undo_once(action, case.attempts, begun)
        took = loop.time() - began
        if entry.error is None:
            _ = await shielded(record.done())  # it is done, even if this task is cancelled
            case.finish(case.done, entry)
            if self._events is not None:
                self._events.undone(case.saga, stored, entry, took)
            return
        delay, error = await _next_delay(undo.retry, case.attempts, entry.error, until)
        if delay is None or is_running:  # an abandoned attempt: a second one must not overlap it
            await self._give_up(case, record, dataclasses.replace(entry, error=error), took)
        else:
            if self._events is not None:
                self._events.not_undone(case.saga, stored, entry, took, again=True)
            case.due = loop.time() + delay
            await self._journal.postpone(stored.id, error, time.time() + delay)

    async def _give_up(
        self, case: _Case, record: ActionRecord, entry: CompensationEntry, took: float = 0.0
    ) -> None:
        """Make the next action stuck, and all others too if its scope stops at a failure."""
        stored = case.left[-1]
        await record.give_up(entry.error)
        case.finish(case.stuck, entry)
        if self._events is not None:
            self._events.not_undone(case.saga, stored, entry, took, again=False)
        while case.left and case.saga.on_failure == "stop":
            stored = case.left[-1]
            await self._journal.mark(stored.id).give_up("not run")
            entry = _entry(stored, "not run")
            case.finish(case.stuck, entry)
            if self._events is not None:
                self._events.not_undone(case.saga, stored, entry, 0.0, again=False)


def _used_up(attempts: int) -> JournalCorrupt:
    return JournalCorrupt("attempts", f"{attempts} have failed or ended with their process")


async def _next_delay(
    policy: RetryPolicy, attempts: int, error: object, due: float
) -> tuple[float | None, object]:
    """Return the seconds until the next attempt, if there is one, and why the last one failed."""
    try:
        return await next_delay(policy, attempts, error, due), error
    except Exception as broken:  # noqa: BLE001  # a function of the policy has failed
        return None, why_failed(error, broken)


def _wait_left(policy: RetryPolicy, stored: StoredAction) -> float:
    """Return the seconds that are left of a wait that began in another process.

    The wall clock may have jumped since: the wait is never longer than the policy's own.
    """
    most = 0.0
    with contextlib.suppress(Exception):  # a function of the policy has failed: do not wait
        most = policy.delay(max(1, stored.attempts), stored.error)
    return min(max(0.0, stored.next_attempt - time.time()), most)


@dataclass(frozen=True, slots=True)
class _Owner:
    """The scope in which an action was registered, as recorded."""

    path: str
    key: str
    timeout: float

    @property
    def name(self) -> str:
        """The last name of its path."""
        return self.path.rpartition("/")[2]


def _entry(stored: StoredAction, error: object) -> CompensationEntry:
    return CompensationEntry(
        stored.name, (shown(stored.arguments),), {}, stored.attempts, error, stored.path
    )
