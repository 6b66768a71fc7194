"""Limits on how often, how many at a time, and whether at all, a step is run.

Each is an object with a state of its own. It is called with a step and gives one with the same
parameters; all steps that were made with one object share its limit. For one event loop.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Never, TypeVar, cast

from returns.result import Failure, Result, Success
from typing_extensions import ParamSpec

from returns_pipeline._engine import checks
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.future_results import AsyncResult, given_by, result_of
from returns_pipeline.errors import BulkheadFull, CircuitOpen
from returns_pipeline.policies._decorated import DecoratedStep

if TYPE_CHECKING:
    from collections.abc import Callable

    from returns.future import FutureResult

__all__ = [
    "Bulkhead",
    "CircuitBreaker",
    "RateLimit",
    "bulkhead",
    "circuit_breaker",
    "rate_limit",
]

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E")


class _Shared:
    """A limit is shared, so it is the same for all: one that was copied would limit nobody."""

    def __reduce__(self) -> Never:
        raise TypeError(f"{self!r} is shared by its steps: it cannot be copied or pickled")


def rate_limit(rate: float, per: Seconds = 1.0, burst: int = 1) -> RateLimit:
    """Make a limit of ``rate`` runs in ``per`` seconds; a step that comes too early waits.

    1. Runs begin in the order of the calls.
    2. In any stretch of time ``t`` at most ``burst + rate * t / per`` begin.
    3. After a pause up to ``burst`` may begin at once.

    Cancel safety: a call that is cancelled while it waits gives its place back to those behind it.

    The algorithm is the generic cell rate algorithm (ITU-T I.371).

    Args:
        rate: Runs in ``per`` seconds, above 0.
        per: Seconds, above 0.
        burst: Runs that may begin at once, at least 1.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.

    >>> limited = rate_limit(100, per=60.0, burst=10)
    >>> limited
    rate_limit(100, per=60.0, burst=10)
    """
    return RateLimit(rate, per, burst)


class RateLimit(_Shared):
    """What `rate_limit` gives."""

    def __init__(self, rate: float, per: Seconds, burst: int) -> None:
        self._shown = (rate, per, burst)
        self._interval = checks.seconds("per", per, finite=True) / checks.number(
            "rate", rate, finite=True
        )
        self._allowance = (checks.count("burst", burst) - 1) * self._interval
        self._next = -math.inf  # when the next run is due at an even pace
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, step: Callable[P, AsyncResult[T, E]], /) -> Callable[P, FutureResult[T, E]]:
        """Give a step that waits for its turn."""
        run = functools.partial(self._run, step)
        return DecoratedStep[P, T, E](run, self, (step,), {}, wraps=step)

    async def _run(
        self,
        step: Callable[..., AsyncResult[T, E]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Result[T, E]:
        if self._waiting or not self._take(asyncio.get_running_loop().time()):
            await self._wait()
        return result_of(await given_by(step(*args, **kwargs)))

    async def acquire(self) -> None:
        """Wait for a turn, for what is not a step."""
        if self._waiting or not self._take(asyncio.get_running_loop().time()):
            await self._wait()

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        self._arm(loop)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._next -= self._interval  # its turn had come: it goes back
                self._arm(loop)
            raise

    def _take(self, now: float) -> bool:
        # Times are sums of intervals; a nanosecond of rounding must not cost another timer.
        if now + 1e-9 < self._next - self._allowance:
            return False
        self._next = max(self._next, now) + self._interval
        return True

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            due = self._next - self._allowance
            self._timer = loop.call_at(due, self._on_timer, loop, due)

    def _on_timer(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        # By the time it was set for: some loops fire a little early.
        now = max(loop.time(), when)
        self._timer = None
        while self._waiting:
            if self._waiting[0].cancelled():
                _ = self._waiting.popleft()
            elif self._take(now):
                self._waiting.popleft().set_result(None)
            else:
                break
        self._arm(loop)

    def __repr__(self) -> str:
        rate, per, burst = self._shown
        return f"rate_limit({rate!r}, per={per!r}, burst={burst!r})"


def circuit_breaker(
    failures: int, reset_after: Seconds, half_open: int = 1, *, name: str = "circuit"
) -> CircuitBreaker:
    """Make a breaker that keeps steps from being run while they would fail anyway.

    1. Closed, it lets all steps through. When ``failures`` of them in a row have failed, by a
       `Failure` or by an exception, it opens.
    2. Open, it lets none through: they fail at once with `CircuitOpen`, which says when to come
       back.
    3. After ``reset_after`` seconds it is half open: up to ``half_open`` steps at a time are let
       through. The first that succeeds closes it, the first that fails opens it again.

    A step that is cancelled counts for nothing. What steps that began before the state changed
    come to no longer counts. The pattern is Nygard's, "Release It!" (2007).

    Args:
        failures: At least 1.
        reset_after: Seconds, above 0.
        half_open: At least 1.
        name: For `CircuitOpen`.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.
    """
    return CircuitBreaker(failures, reset_after, half_open, name)


class CircuitBreaker(_Shared):
    """What `circuit_breaker` gives.

    Attributes:
        name: Its name.
    """

    def __init__(self, failures: int, reset_after: Seconds, half_open: int, name: str) -> None:
        self.name = name
        self._shown = (failures, reset_after, half_open)
        self._most_failures = checks.count("failures", failures)
        self._reset_after = checks.seconds("reset_after", reset_after, finite=True)
        self._most_trials = checks.count("half_open", half_open)
        self._failed = 0  # in a row
        self._opened: float | None = None  # when; None while it is closed
        self._trials = 0  # under way, while it is half open
        self._epoch = 0  # counts changes of state

    @property
    def state(self) -> str:
        """Say "closed", "open" or "half open", on the running loop's clock."""
        if self._opened is None:
            return "closed"
        return "open" if self._left() > 0 else "half open"

    def _left(self) -> float:
        if self._opened is None:
            return 0.0
        return self._opened + self._reset_after - asyncio.get_running_loop().time()

    def __call__(
        self, step: Callable[P, AsyncResult[T, E]], /
    ) -> Callable[P, FutureResult[T, E | CircuitOpen]]:
        """Give a step that is run only while the circuit is not open."""
        run = functools.partial(self._run, step)
        return DecoratedStep[P, T, E | CircuitOpen](run, self, (step,), {}, wraps=step)

    async def _run(
        self,
        step: Callable[..., AsyncResult[T, E]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Result[T, E | CircuitOpen]:
        trial = self._opened is not None
        if trial:
            left = self._left()
            if left > 0 or self._trials >= self._most_trials:
                return Failure(CircuitOpen(self.name, max(0.0, left)))
            self._trials += 1
        epoch = self._epoch
        try:
            result = result_of(await given_by(step(*args, **kwargs)))
        except Exception:
            if epoch == self._epoch:
                self._on_failure()
            raise
        finally:
            if trial and epoch == self._epoch:
                self._trials -= 1
        if epoch == self._epoch:
            if isinstance(result, Success):
                self._on_success()
            else:
                self._on_failure()
        return result

    def _on_failure(self) -> None:
        self._failed += 1
        if self._opened is not None or self._failed >= self._most_failures:
            self._change(asyncio.get_running_loop().time())

    def _on_success(self) -> None:
        self._failed = 0
        if self._opened is not None:
            self._change(None)

    def _change(self, opened: float | None) -> None:
        self._opened = opened
        self._failed = 0
        self._trials = 0
        self._epoch += 1

    def __repr__(self) -> str:
        failures, reset_after, half_open = self._shown
        return (
            f"circuit_breaker({failures!r}, {reset_after!r}, half_open={half_open!r}, "
            f"name={self.name!r})"
        )


def bulkhead(limit: int, queue: float = math.inf, *, name: str = "bulkhead") -> Bulkhead:
    """Make a limit on how many steps run at a time; those behind them wait, or are turned away.

    Steps that wait begin in the order of their calls. Cancelling one that waits gives its place
    to the next.

    Args:
        limit: How many may run, at least 1.
        queue: How many may wait, 0 or more; the next one fails at once with `BulkheadFull`. By
            default any number.
        name: For `BulkheadFull`.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.
    """
    return Bulkhead(limit, queue, name)


class Bulkhead(_Shared):
    """What `bulkhead` gives.

    Attributes:
        name: Its name.
    """

    def __init__(self, limit: int, queue: float, name: str) -> None:
        self.name = name
        self._limit = checks.count("limit", limit)
        self._queue: float = queue
        if queue != math.inf:
            self._queue = checks.count("queue", cast("int", queue), least=0)
        self._running = 0
        self._queued = 0  # of those that wait, the ones that were not cancelled
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __call__(
        self, step: Callable[P, AsyncResult[T, E]], /
    ) -> Callable[P, FutureResult[T, E | BulkheadFull]]:
        """Give a step that is run when there is room for it."""
        run = functools.partial(self._run, step)
        return DecoratedStep[P, T, E | BulkheadFull](run, self, (step,), {}, wraps=step)

    async def _run(
        self,
        step: Callable[..., AsyncResult[T, E]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Result[T, E | BulkheadFull]:
        if self._running < self._limit:
            self._running += 1
        elif self._queued >= self._queue:
            return Failure(BulkheadFull(self.name, self._limit, self._queue))
        else:
            await self._wait()
        try:
            return result_of(await given_by(step(*args, **kwargs)))
        finally:
            self._leave()

    async def _wait(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._queued += 1
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                self._queued -= 1
            else:
                self._leave()  # it had been let in
            raise

    def _leave(self) -> None:
        """Hand the place on, or give it back."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.cancelled():
                self._queued -= 1
                place.set_result(None)
                return
        self._running -= 1

    def __repr__(self) -> str:
        return f"bulkhead({self._limit!r}, queue={self._queue!r}, name={self.name!r})"
