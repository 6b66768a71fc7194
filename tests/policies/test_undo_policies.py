"""An undo takes the same policies as a step: in memory, and when another process recovers it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Result, Success

from returns_pipeline.compensation import CompensationEntry, CompensationRegistry, CompensationScope
from returns_pipeline.errors import StepTimeout
from returns_pipeline.journal import StoredAction, StoredSaga, recover
from returns_pipeline.retry import RetryEvent, RetryPolicy
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet


def now() -> float:
    return asyncio.get_running_loop().time()


class Undo:
    """An undo that fails on request, and logs when it was tried."""

    def __init__(self, *errors: object) -> None:
        self.errors = list(errors)
        self.times: list[float] = []

    async def perform(self) -> Result[None, object]:
        self.times.append(now())
        if not self.errors:
            return Success(None)
        error = self.errors.pop(0)
        if isinstance(error, Exception):
            raise error
        return Failure(error)


class Journal:
    """One action that a dead process left, for `recover`; it logs the requests."""

    def __init__(self, attempts: int = 0, begin: float = 0.0) -> None:
        self.told: list[tuple[str, object]] = []
        self.is_claimed = False
        self.action = StoredAction(
            "1", "1", "s", "key", "undo", 1, "{}", "pending", attempts, begin, ""
        )

    async def claim(
        self, *, besides: AbstractSet[str], known: Mapping[str, int] | None = None
    ) -> StoredSaga | None:
        if self.is_claimed:
            return None  # what is claimed or settled cannot be claimed
        self.is_claimed = True
        return StoredSaga("s", "s", 0.0, "", False, (self.action,))

    async def release(self, saga: str) -> None:
        assert self.told[-1][0] == "gave up"  # only what is stuck may be wanted by others

    async def defer(self, action: str, reason: str) -> None:
        raise AssertionError(reason)

    async def postpone(self, action: str, error: object, until: float) -> None:
        assert until > time.time()
        self.told.append(("postponed", error))

    def mark(self, action: str, /) -> Mark:
        return Mark(self)


class Mark:
    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    async def begin(self) -> None:
        self.journal.told.append(("began", None))

    async def done(self) -> None:
        self.journal.told.append(("done", None))

    async def give_up(self, error: object) -> None:
        self.journal.told.append(("gave up", error))


def in_memory(undo: Undo, policy: RetryPolicy, timeout: float | None = None) -> CompensationEntry:
    """Register it, roll back, and return what became of it."""
    registry = CompensationRegistry()
    compensation = registry.compensation("undo", retry=policy, timeout=timeout)(undo.perform)

    async def main() -> CompensationEntry:
        scope = CompensationScope("s")
        await scope.register(compensation)
        report = await scope.compensate()
        (entry,) = report.done + report.failures
        return entry

    return run(main())


def recovered(undo: Undo, policy: RetryPolicy, timeout: float | None = None) -> CompensationEntry:
    """Recover it, and return the outcome."""
    registry = CompensationRegistry()
    registry.compensation("undo", retry=policy, timeout=timeout)(undo.perform)

    async def main() -> CompensationEntry:
        (report,) = await recover(Journal(), registry)
        (entry,) = report.done + report.stuck
        return entry

    return run(main())


both_ways = pytest.mark.parametrize("way", [in_memory, recovered])


@both_ways
def test_an_undo_is_tried_as_often_as_its_policy_says(way: Any) -> None:
    undo = Undo("a", OSError("b"))
    told: list[RetryEvent] = []
    entry = way(undo, RetryPolicy(attempts=3, wait=2.0, on_retry=told.append))
    assert entry.error is None
    assert undo.times == [0.0, 2.0, 4.0]
    assert [(event.attempt, event.delay) for event in told] == [(1, 2.0), (2, 2.0)]
    assert told[0].error == "a"
    assert isinstance(told[1].error, OSError)


@both_ways
def test_an_on_retry_that_is_a_coroutine_function_is_awaited(way: Any) -> None:
    undo = Undo("a", "b")
    told: list[object] = []

    async def tell(event: RetryEvent) -> None:
        await asyncio.sleep(0.5)
        told.append(event.error)

    entry = way(undo, RetryPolicy(attempts=3, wait=2.0, on_retry=tell))
    assert entry.error is None
    assert undo.times == [0.0, 2.0, 4.0]
    assert told == ["a", "b"]


@both_ways
def test_when_its_attempts_are_used_up_the_last_error_counts(way: Any) -> None:
    undo = Undo("a", "b", "c", "d")
    entry = way(undo, RetryPolicy(attempts=3, wait=2.0))
    assert (entry.error, entry.attempts) == ("c", 3)


@both_ways
def test_an_undo_that_fails_of_something_else_is_not_tried_again(way: Any) -> None:
    bug = ZeroDivisionError()
    undo = Undo(OSError("a"), bug, "never")
    entry = way(undo, RetryPolicy(attempts=9, wait=2.0, retry_on=OSError))
    assert entry.error is bug
    assert undo.times == [0.0, 2.0]


@both_ways
def test_no_attempt_of_an_undo_begins_after_its_total_time(way: Any) -> None:
    undo = Undo(*"abcdefgh")
    entry = way(undo, RetryPolicy(attempts=9, wait=2.0, total_timeout=5.0))
    assert entry.error == "c"
    assert undo.times == [0.0, 2.0, 4.0]


@both_ways
@pytest.mark.parametrize("part", ["retry_on", "wait", "on_retry"])
def test_what_its_policy_calls_may_fail_and_then_the_undo_has_failed_with_its_own_error(
    way: Any, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    bug = ZeroDivisionError()

    def broken(_: object) -> bool:
        raise bug

    undo = Undo("a", "b")
    arguments: dict[str, Any] = {part: broken}
    entry = way(undo, RetryPolicy(attempts=9, **{"wait": 1.0, **arguments}))
    assert entry.error == "a"
    assert "'a'; its retry policy failed: ZeroDivisionError()" in caplog.messages
    assert undo.times == [0.0]


def test_the_time_of_an_undo_is_for_all_attempts_in_memory() -> None:
    undo = Undo("a", "b", "c", "d")
    entry = in_memory(undo, RetryPolicy(attempts=9, wait=2.0), 5.0)
    assert entry.error == StepTimeout("undo", 5.0)
    assert undo.times == [0.0, 2.0, 4.0]


def test_the_outcome_of_each_attempt_is_on_record_and_earlier_ones_count() -> None:
    undo = Undo("a", "b", "c")
    registry = CompensationRegistry()
    registry.compensation("undo", retry=RetryPolicy(attempts=4, wait=1.0))(undo.perform)
    journal = Journal(attempts=2)
    (report,) = run(recover(journal, registry))
    assert [entry.attempts for entry in report.stuck] == [4]
    assert journal.told == [
        ("began", None),
        ("postponed", "a"),
        ("began", None),
        ("gave up", "b"),
    ]


def test_a_wait_that_a_process_died_in_continues_in_the_next() -> None:
    undo = Undo()
    registry = CompensationRegistry()
    registry.compensation("undo", retry=RetryPolicy(attempts=4, wait=60.0, total_timeout=9.0))(
        undo.perform
    )
    (report,) = run(recover(Journal(attempts=2, begin=time.time() + 50.0), registry))
    assert len(report.done) == 1
    assert 49.0 < undo.times[0] <= 50.0
