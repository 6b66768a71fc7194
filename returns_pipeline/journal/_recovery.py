"""`recover`: undo what processes left open that are no longer there."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from returns_pipeline._engine.cancellation import shielded
from returns_pipeline._engine.retry_loop import next_delay
from returns_pipeline.compensation import CompensationEntry, CompensationReport
from returns_pipeline.compensation._rollback import Action, Replay
from returns_pipeline.compensation.protocol import (
    RecoverableJournal,
    RecoveryReport,
    StoredAction,
    StoredSaga,
)
from returns_pipeline.errors import InvalidArgument, JournalCorrupt, JournalError
from returns_pipeline.journal._arguments import decode
from returns_pipeline.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Generator

    from returns_pipeline.compensation import Compensation, CompensationRegistry
    from returns_pipeline.compensation.protocol import ActionRecord

__all__ = ["recover"]

_log = logging.getLogger("returns_pipeline")

_ONCE: Final = RetryPolicy(attempts=1)
# Attempts that may end with their process, beside those that the policy allows.
_DEATHS: Final = 20


async def recover(
    journal: RecoverableJournal, registry: CompensationRegistry, *, timeout: float = 30.0
) -> list[RecoveryReport]:
    """Undo what dead processes left open, and report on each saga.

    1. The newest saga comes first; in a saga strictly the last registered action.
    2. A process that lives, or is stopped, is not robbed. Several recoverers share the work; no
       two carry out one action at the same time.
    3. An action whose name, or a version newer than this process has, is not in the registry is
       deferred: it and those before it are left for a process that knows it.
    4. An undo is tried as its `RetryPolicy` says. Attempts and waits count on over restarts; no
       wait is longer than the policy's own, whatever the clock of the machine says. The policy's
       ``total_timeout`` counts from the first attempt in this process, and the undo's own
       ``timeout`` holds for each attempt. A saga that waits does not hold up others. An undo that
       is used up, or whose arguments make no sense, is *stuck*: it stays on record until somebody
       retries or discards it; the others go on.
    5. An undo may be called again only if its process died between the undo and the record of it;
       then with the same key. If twenty more attempts than its policy allows have ended with their
       process, it is stuck.

    Cancel safety: an attempt that is under way is finished and put on record; then what this
    process took over is released, and the cancellation goes on. `JournalError` does the same.

    Args:
        journal: What to look at.
        registry: The undo actions that this process knows.
        timeout: Seconds that an attempt of an undo without a time of its own may take, above 0.

    Returns:
        A report for each saga that this process took over, in order. Where a `JournalError` ended
        the work on one saga, its report says so, and the others go on.

    Raises:
        InvalidArgument: ``timeout`` is out of range.
        JournalError: The journal cannot be read, or nothing more can be taken over. What was not
            undone is still there.
    """
    if not timeout > 0:
        raise InvalidArgument(f"timeout must be above 0 seconds, not {timeout!r}")
    return await _Recovery(journal, registry, timeout).run()


class _Case:
    """A saga that was taken over, and what has become of it so far."""

    __slots__ = ("attempts", "deferred", "done", "due", "error", "left", "saga", "stuck", "until")

    def __init__(self, saga: StoredSaga) -> None:
        self.saga = saga
        states = {"pending", "deferred"}
        self.left = [action for action in reversed(saga.actions) if action.state in states]
        self.done: list[CompensationEntry] = []
        self.stuck: list[CompensationEntry] = []
        self.deferred: list[CompensationEntry] = []
        self.error: JournalError | None = None
        self.attempts: int | None = None  # of the action at hand; None if it is not at hand yet
        self.due = 0.0  # when it may be tried, on the loop's clock
        self.until: float | None = None  # when no attempt begins any more; None before the first

    def over(self, entries: list[CompensationEntry], entry: CompensationEntry) -> None:
        """Go on to the next action."""
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
    """One call of `recover`."""

    def __init__(
        self, journal: RecoverableJournal, registry: CompensationRegistry, timeout: float
    ) -> None:
        self._journal = journal
        self._registry = registry
        self._timeout = timeout
        self._cases: list[_Case] = []  # all, in the order in which they were taken over
        self._open: list[_Case] = []  # taken over, neither finished nor released
        # What is not to be claimed again. Not all cases: each claim would cost as much as they are.
        self._besides: set[str] = set()

    async def run(self) -> list[RecoveryReport]:
        """Take over saga by saga; go on with those that waited when their time has come."""
        loop = asyncio.get_running_loop()
        try:
            while (case := self._due(loop.time()) or await self._claim()) or self._open:
                if case is None:
                    await asyncio.sleep(min(case.due for case in self._open) - loop.time())
                else:
                    await self._advance(case)
        finally:
            _, cancelled = await shielded(self._release_all())
            if cancelled is not None:
                raise cancelled  # also in place of an error: see `shielded`
        return [case.report() for case in self._cases]

    def _due(self, now: float) -> _Case | None:
        """Give the newest saga whose wait is over; a millisecond early is in time."""
        return next((case for case in self._open if case.due <= now + 0.001), None)

    async def _claim(self) -> _Case | None:
        saga, cancelled = await shielded(self._journal.claim(besides=self._besides))
        if saga is None:
            case = None
        else:
            case = _Case(saga)
            self._cases.append(case)
            self._open.append(case)
            self._besides.add(saga.id)
        if cancelled is not None:
            raise cancelled
        return case

    async def _advance(self, case: _Case) -> None:
        """Go on with a saga until it is finished or has to wait."""
        loop = asyncio.get_running_loop()
        cancelled: asyncio.CancelledError | None = None
        try:
            while case.left and case.due <= loop.time() + 0.001:
                _, cancelled = await shielded(self._step(case))
                if cancelled is not None:
                    raise cancelled
            if case.left:
                return
            if case.stuck or case.deferred:
                # To its end: asked for again, it would take it from who has claimed it since.
                _, cancelled = await shielded(self._journal.release(case.saga.id))
        except JournalError as error:
            case.error = error
            cancelled = await self._give_up(case)
        self._open.remove(case)
        if not case.deferred and case.error is None:
            self._besides.discard(case.saga.id)  # nothing of it is open
        if cancelled is not None:
            raise cancelled

    async def _give_up(self, case: _Case) -> asyncio.CancelledError | None:
        _log.error("saga %s (%s) is left as it is: %s", case.saga.id, case.saga.name, case.error)
        with contextlib.suppress(JournalError):  # nothing can be done, or it is another's already
            return (await shielded(self._journal.release(case.saga.id)))[1]
        return None

    async def _release_all(self) -> None:
        """Let others have what is not finished, because of a cancellation or an error."""
        for case in self._open:
            try:
                await self._journal.release(case.saga.id)
            except JournalError as error:
                _log.warning("saga %s cannot be released: %s", case.saga.id, error)

    async def _step(self, case: _Case) -> None:
        """Make an attempt of the action at hand, or find out that there is none to be made."""
        stored = case.left[-1]
        undo = self._registry.get(stored.name)
        if undo is None or undo.version < stored.version:
            reason = "unknown name" if undo is None else f"version {stored.version} is newer"
            await self._journal.defer(stored.id, reason)
            case.deferred = [_entry(action, reason) for action in reversed(case.left)]
            case.left.clear()
            return
        mark = self._journal.mark(stored.id)
        if case.attempts is None:
            case.attempts = stored.attempts
            if stored.next_attempt:
                case.due = asyncio.get_running_loop().time() + _wait_of(undo.retry, stored)
                return
        try:
            if case.attempts >= undo.retry.attempts + _DEATHS:
                _refuse_another(case.attempts)
            args, kwargs = decode(undo, stored.version, stored.arguments)
        except JournalCorrupt as corrupt:
            await mark.give_up(corrupt)
            _log.error("undo %s is stuck: %s", stored.name, corrupt)
            case.over(case.stuck, _entry(stored, corrupt))
            return
        await self._attempt(case, undo, args, kwargs, mark)

    async def _attempt(
        self,
        case: _Case,
        undo: Compensation[...],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        mark: ActionRecord,
    ) -> None:
        stored = case.left[-1]
        timeout = self._timeout if undo.timeout is None else undo.timeout
        action = Action(
            undo.name,
            _Owner(stored.path, stored.key, timeout),
            undo,
            args,
            kwargs,
            # One at a time: between attempts, their number and the wait go on record.
            _ONCE,
            timeout,
            attempt := _Attempt(mark),
        )
        loop = asyncio.get_running_loop()
        if case.until is None:
            case.until = loop.time() + undo.retry.total_timeout
        until = case.until
        entry = await _carry_out(action)
        case.attempts = (case.attempts or 0) + 1
        entry = dataclasses.replace(entry, attempts=case.attempts)
        if entry.error is None:
            case.over(case.done, entry)
            return
        if attempt.failed is not None:
            raise attempt.failed  # it did not begin, or it is not known that it is done
        delay, error = await _next_delay(undo.retry, case.attempts, entry.error, until)
        if delay is None:
            await mark.give_up(error)
            case.over(case.stuck, dataclasses.replace(entry, error=error))
        else:
            case.due = loop.time() + delay
            await self._journal.postpone(stored.id, error, time.time() + delay)


def _refuse_another(attempts: int) -> None:
    raise JournalCorrupt("attempts", f"{attempts} have failed or ended with their process")


async def _next_delay(
    policy: RetryPolicy, attempts: int, error: object, due: float
) -> tuple[float | None, object]:
    """Give the seconds until the next attempt, if there is one, and what the last one failed of."""
    try:
        return await next_delay(policy, attempts, error, due), error
    except Exception as broken:  # noqa: BLE001  # what the policy calls has failed
        return None, broken


def _wait_of(policy: RetryPolicy, stored: StoredAction) -> float:
    """Give the seconds that are left of a wait which began in another process.

    The wall clock may have jumped since: it is never longer than the policy would have it now.
    """
    most = 0.0
    with contextlib.suppress(Exception):  # what the policy calls has failed: do not wait then
        most = policy.delay(max(1, stored.attempts), stored.error)
    return min(max(0.0, stored.next_attempt - time.time()), most)


async def _carry_out(action: Action) -> CompensationEntry:
    replay = Replay(
        [action],
        order="reverse",
        on_failure="continue",
        scope=action.owner.path,
        before=(),
        when_done=_nothing,
    )
    replay.start()
    _ = await replay.wait()  # nobody cancels this: see `_advance`
    report = replay.report
    return (*report.done, *report.failures)[0]


@dataclass(frozen=True, slots=True)
class _Owner:
    path: str
    key: str
    timeout: float


class _Attempt:
    """Marks attempts and success; whether to give up is decided over all attempts."""

    def __init__(self, mark: ActionRecord) -> None:
        self._mark = mark
        self.failed: JournalError | None = None  # the journal did, and not the undo

    async def begin(self) -> None:
        with self._watched():
            await self._mark.begin()

    async def done(self) -> None:
        with self._watched():
            _ = await shielded(self._mark.done())  # a cancellation does not make it less done

    @contextlib.contextmanager
    def _watched(self) -> Generator[None, None, None]:
        try:
            yield
        except JournalError as error:
            self.failed = error
            raise

    async def give_up(self, error: object) -> None:
        """Leave it to who counts the attempts."""


def _nothing(_: CompensationReport) -> None:
    pass


def _entry(stored: StoredAction, error: object) -> CompensationEntry:
    return CompensationEntry(
        stored.name, (stored.arguments,), {}, stored.attempts, error, stored.path
    )
