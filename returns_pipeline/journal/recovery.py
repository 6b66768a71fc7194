"""`recover`: undo what processes left open that are no longer there."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from returns_pipeline.compensation import CompensationEntry, CompensationReport
from returns_pipeline.errors import JournalCorrupt, LeaseLost
from returns_pipeline.journal.arguments import decode
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.rollback import Action, Replay

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from returns_pipeline.compensation import Compensation, CompensationRegistry
    from returns_pipeline.rollback import Mark

__all__ = ["RecoverableJournal", "RecoveryReport", "StoredAction", "StoredSaga", "recover"]

_ONCE: Final = RetryPolicy(attempts=1)

_log = logging.getLogger("returns_pipeline")


@dataclass(frozen=True, slots=True)
class StoredAction:
    """An undo action as a journal has it.

    Attributes:
        id: Unique.
        place: Sorts the actions of a saga in the order of registration.
        path: The path of its scope.
        key: The idempotency key of its scope.
        name: The name of the compensation.
        version: The version of its parameters.
        arguments: As JSON text.
        state: "pending", "done", "stuck" or "deferred".
        attempts: How often it was begun.
        next_attempt: When it may be tried again, in seconds since 1970; 0 for at once.
        error: Why it failed last.
    """

    id: str
    place: str
    path: str
    key: str
    name: str
    version: int
    arguments: str
    state: str
    attempts: int
    next_attempt: float
    error: str


@dataclass(frozen=True, slots=True)
class StoredSaga:
    """Actions that are undone together.

    Attributes:
        id: Unique.
        name: The path of the scope that opened it.
        began: When, in seconds since 1970.
        owner: Who has it open; empty if nobody.
        alive: Whether that one is still there.
        actions: The last registered first.
    """

    id: str
    name: str
    began: float
    owner: str
    alive: bool
    actions: tuple[StoredAction, ...]


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What became of one saga that was left open.

    Attributes:
        saga: Its id.
        name: The path of the scope that opened it.
        done: Actions that were undone.
        stuck: Actions that were given up, until somebody says otherwise.
        deferred: Actions left for a process that knows their name and version, with those
            registered before them.
    """

    saga: str
    name: str
    done: tuple[CompensationEntry, ...] = ()
    stuck: tuple[CompensationEntry, ...] = ()
    deferred: tuple[CompensationEntry, ...] = ()


class RecoverableJournal(Protocol):
    """What `recover` needs of a journal."""

    async def claim(self, *, besides: AbstractSet[str]) -> StoredSaga | None:
        """Take over the newest saga whose owner is dead, with something to do; no other can."""

    async def release(self, saga: str) -> None:
        """Let go of a saga: another process may claim it."""

    async def defer(self, action: str, reason: str) -> None:
        """Note that an action waits for a process that knows it."""

    async def postpone(self, action: str, error: object, until: float) -> None:
        """Note that an attempt failed, and when the next may begin."""

    def mark(self, action: str, /) -> Mark:
        """Give the record of an action."""
        ...


async def recover(
    journal: RecoverableJournal, registry: CompensationRegistry
) -> list[RecoveryReport]:
    """Undo what dead processes left open, and report on each saga.

    1. The newest saga comes first; in a saga strictly the last registered action.
    2. A process that lives, or is stopped, is not robbed. Several recoverers share the work; no
       two carry out one action at the same time.
    3. An action whose name, or a version newer than this process has, is not in the registry is
       deferred: it and those before it are left for a process that knows it.
    4. An undo is tried as its `RetryPolicy` says. Attempts and waits count on over restarts; the
       policy's ``total_timeout`` counts from the first attempt in this process, and the undo's own
       ``timeout`` holds for each attempt. One that is used up, or whose arguments make no sense,
       is *stuck*: it stays on record until somebody retries or discards it; the others go on.
    5. An undo may be called again only if its process died between the undo and the record of it;
       then with the same key.

    Returns:
        A report for each saga that this process took over, in order.

    Raises:
        JournalError: The journal cannot be read or written. What was not undone is still there.
    """
    reports: list[RecoveryReport] = []
    seen: set[str] = set()
    while (saga := await journal.claim(besides=seen)) is not None:
        seen.add(saga.id)
        reports.append(await _undo(journal, registry, saga))
    return reports


async def _undo(
    journal: RecoverableJournal, registry: CompensationRegistry, saga: StoredSaga
) -> RecoveryReport:
    done: list[CompensationEntry] = []
    stuck: list[CompensationEntry] = []
    deferred: list[CompensationEntry] = []
    open_actions = [action for action in saga.actions if action.state in {"pending", "deferred"}]
    for index, stored in enumerate(open_actions):
        undo = registry.get(stored.name)
        if undo is None or undo.version < stored.version:
            reason = "unknown name" if undo is None else f"version {stored.version} is newer"
            await journal.defer(stored.id, reason)
            await journal.release(saga.id)
            deferred = [_entry(action, reason) for action in open_actions[index:]]
            break
        report = await _carry_out(journal, undo, stored)
        done += report.done
        stuck += report.failures
    return RecoveryReport(saga.id, saga.name, tuple(done), tuple(stuck), tuple(deferred))


async def _carry_out(
    journal: RecoverableJournal, undo: Compensation[...], stored: StoredAction
) -> CompensationReport:
    mark = journal.mark(stored.id)
    try:
        args, kwargs = decode(undo, stored.version, stored.arguments)
    except JournalCorrupt as corrupt:
        await mark.give_up(corrupt)
        _log.error("undo %s is stuck: %s", stored.name, corrupt)
        return CompensationReport(failures=(_entry(stored, corrupt),))
    timeout = math.inf if undo.timeout is None else undo.timeout
    action = Action(
        undo.name,
        _Owner(stored.path, stored.key, timeout),
        undo,
        args,
        kwargs,
        _ONCE,  # one at a time: between attempts, their number and the wait go on record
        timeout,
        _Attempt(mark),
    )
    attempts, begin = stored.attempts, stored.next_attempt
    await asyncio.sleep(max(0.0, begin - time.time()))
    due = asyncio.get_running_loop().time() + undo.retry.total_timeout
    while True:
        report = await _attempt(action)
        if not report.failures:
            return report
        error = report.failures[0].error
        if isinstance(error, LeaseLost):
            raise error
        attempts += 1
        delay, error = _next_delay(undo.retry, attempts, error, due)
        if delay is None:
            await mark.give_up(error)
            last = dataclasses.replace(report.failures[0], attempts=attempts, error=error)
            return dataclasses.replace(report, failures=(last,))
        await journal.postpone(stored.id, error, time.time() + delay)
        await asyncio.sleep(delay)


def _next_delay(
    policy: RetryPolicy, attempts: int, error: object, due: float
) -> tuple[float | None, object]:
    """Give the seconds until the next attempt, if there is one, and what the last one failed of."""
    try:
        if not policy.retries(error, default=True):
            return None, error
        now = asyncio.get_running_loop().time()
        return policy.next_delay(attempts, error, now=now, due=due), error
    except Exception as broken:  # noqa: BLE001  # what the policy calls has failed
        return None, broken


async def _attempt(action: Action) -> CompensationReport:
    replay = Replay(
        [action],
        order="reverse",
        on_failure="continue",
        scope=action.owner.path,
        before=(),
        when_done=_nothing,
    )
    replay.start()
    cancelled = await replay.wait()
    if cancelled is not None:
        raise cancelled
    return replay.report


@dataclass(frozen=True, slots=True)
class _Owner:
    path: str
    key: str
    timeout: float


@dataclass(frozen=True, slots=True)
class _Attempt:
    """Marks attempts and success; whether to give up is decided over all attempts."""

    mark: Mark

    async def begin(self) -> None:
        await self.mark.begin()

    async def done(self) -> None:
        await self.mark.done()

    async def give_up(self, error: object) -> None:
        """Leave it to who counts the attempts."""


def _nothing(_: CompensationReport) -> None:
    pass


def _entry(stored: StoredAction, error: object) -> CompensationEntry:
    return CompensationEntry(
        stored.name, (stored.arguments,), {}, stored.attempts, error, stored.path
    )
