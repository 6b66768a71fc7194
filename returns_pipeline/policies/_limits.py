"""Limits on how often and on how many at a time: `rate_limit` and `bulkhead`.

A limit is an object with a state of its own. It is called with a step and returns a step with the
same parameters. All steps that were made with one object share its limit. It is for one event loop.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, Never, TypeVar, cast

from returns.future import FutureResult
from returns.result import Failure, Result
from typing_extensions import ParamSpec

from returns_pipeline import telemetry
from returns_pipeline._engine import checks, observing
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.future_results import AsyncResult, awaitable_of, result_of
from returns_pipeline._engine.names import name_of
from returns_pipeline.errors import BulkheadFull, InvalidArgument
from returns_pipeline.policies._decorated import DecoratedStep

__all__ = ["Bulkhead", "RateLimit", "Shared", "bulkhead", "rate_limit"]

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E")


class Shared:
    """What its steps share. A copy would limit nothing, so copying is refused."""

    name: str = ""

    def __reduce__(self) -> Never:
        raise TypeError(f"{self!r} is shared by its steps: it cannot be copied or pickled")


def rate_limit(rate: float, per: Seconds = 1.0, burst: int = 1) -> RateLimit:
    """Limit steps to ``rate`` runs in ``per`` seconds; a step that comes too early waits.

    1. Runs begin in the order of the calls.
    2. In any stretch of time ``t`` at most ``burst + rate * t / per`` begin.
    3. After a pause up to ``burst`` may begin at once.

    Cancel safety: a call that is cancelled while it waits leaves the queue at once, and those
    after it move up.

    The algorithm is the generic cell rate algorithm (ITU-T I.371), a leaky bucket.

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


@dataclass(frozen=True, slots=True)
class RateLimitStatistics:
    """What a `RateLimit` holds. `RateLimit.statistics` makes it.

    Attributes:
        waiting: The calls that wait.
        available: How many runs may begin at once.

    >>> RateLimitStatistics(waiting=0, available=10).available
    10
    """

    waiting: int
    available: int


@dataclass(frozen=True, slots=True)
class BulkheadStatistics:
    """What a `Bulkhead` holds. `Bulkhead.statistics` makes it.

    Attributes:
        running: The places that are taken.
        waiting: The calls that wait.

    >>> BulkheadStatistics(running=3, waiting=1).waiting
    1
    """

    running: int
    waiting: int


class RateLimit(Shared):
    """A limit made by `rate_limit`.

    >>> RateLimit(100, 60.0, 10)
    rate_limit(100, per=60.0, burst=10)
    """

    # `_due` is the theoretical arrival time of the algorithm: when the next run would begin at an
    # even pace. A run may begin up to `burst - 1` intervals earlier.
    #
    # `_waiting` holds the calls that wait, in order, each with how many runs it counts as. One
    # timer is set for the first of them, and nothing else resumes them. A call that is cancelled
    # leaves at once: otherwise a queue that does not move would grow with each call that gives up.
    # (An OrderedDict finds its first entry at once, a dict only past those that were deleted.)

    def __init__(self, rate: float, per: Seconds, burst: int) -> None:
        self._arguments = (rate, per, burst)
        runs = checks.number("rate", rate, finite=True)
        self._interval = checks.seconds("per", per, finite=True) / runs
        self._burst = checks.count("burst", burst)
        self._due = -math.inf
        self._waiting: OrderedDict[asyncio.Future[None], int] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None

    def __call__(self, step: Callable[P, AsyncResult[T, E]], /) -> Callable[P, FutureResult[T, E]]:
        """Return a step that waits until the limit lets it begin."""
        run = functools.partial(self._run, step)
        return DecoratedStep[P, T, E](run, self, (step,), {}, wraps=step)

    async def _run(
        self,
        step: Callable[..., AsyncResult[T, E]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Result[T, E]:
        if self._waiting or not self._take(1, asyncio.get_running_loop().time()):
            await self._wait(1, name_of(step))
        return result_of(await awaitable_of(step(*args, **kwargs)))

    async def acquire(self, amount: int = 1) -> None:
        """Wait until the limit lets ``amount`` runs begin, for work that is not a step.

        Args:
            amount: How many runs it counts as, from 1 to ``burst``.

        Raises:
            InvalidArgument: ``amount`` is out of range.
        """
        amount = _amount(amount, self._burst)
        if self._waiting or not self._take(amount, asyncio.get_running_loop().time()):
            await self._wait(amount)

    def statistics(self) -> RateLimitStatistics:
        """Return what it holds at this moment, on the running loop's clock.

        >>> from returns_pipeline.testing import run
        >>> async def main():
        ...     limit = rate_limit(1, burst=3)
        ...     await limit.acquire(2)
        ...     return limit.statistics()
        >>> run(main())
        RateLimitStatistics(waiting=0, available=1)
        """
        waiting = sum(not place.cancelled() for place in self._waiting)
        ahead = max(0.0, self._due - asyncio.get_running_loop().time()) / self._interval
        # As in `_take`, rounding must not cost a run.
        available = max(0, self._burst - math.ceil(ahead - 1e-9 / self._interval))
        return RateLimitStatistics(waiting, 0 if waiting else available)

    async def _wait(self, amount: int, stage: str = "") -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        place: asyncio.Future[None] = loop.create_future()
        self._waiting[place] = amount
        if self._timer is None:
            self._set_timer(loop)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self._due -= amount * self._interval  # its time had come: give the runs back
            _ = self._waiting.pop(place, None)
            self._set_timer(loop)  # for another that is now the first, or may begin earlier
            raise
        _report_wait("rate_limit", self, stage, began)

    def _earliest(self, amount: int) -> float:
        return self._due - (self._burst - amount) * self._interval

    def _take(self, amount: int, now: float) -> bool:
        # Times are sums of intervals; a nanosecond of rounding must not cost another timer.
        if now + 1e-9 < self._earliest(amount):
            return False
        self._due = max(self._due, now) + amount * self._interval
        return True

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the timer for the first that waits, unless it is set for that time already."""
        at = self._earliest(next(iter(self._waiting.values()))) if self._waiting else None
        if self._timer is not None:
            if self._timer_at == at:
                return
            self._timer.cancel()
        # Kept here: a timer of uvloop that fires at once does not know its time.
        self._timer_at = at
        self._timer = None if at is None else loop.call_at(at, self._on_timer, loop, at)

    def _on_timer(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        now = max(loop.time(), at)  # some loops fire a little early
        self._timer = None
        while self._waiting:
            place, amount = next(iter(self._waiting.items()))
            if not place.cancelled():
                if not self._take(amount, now):
                    break
                place.set_result(None)
            del self._waiting[place]
        self._set_timer(loop)

    def __repr__(self) -> str:
        rate, per, burst = self._arguments
        return f"rate_limit({rate!r}, per={per!r}, burst={burst!r})"


def bulkhead(limit: int, queue: float = math.inf, *, name: str = "bulkhead") -> Bulkhead:
    """Limit how many steps run at a time; further ones wait, or are refused.

    Steps that wait begin in the order of their calls.

    Cancel safety: a call that is cancelled while it waits leaves the queue at once, and those
    after it move up.

    Known elsewhere as: a semaphore with a bounded queue.

    Args:
        limit: How many may run, at least 1.
        queue: How many may wait, 0 or more; the next one fails at once with `BulkheadFull`. By
            default any number.
        name: For `BulkheadFull`.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.

    >>> bulkhead(3)
    bulkhead(3, queue=inf, name='bulkhead')
    """
    return Bulkhead(limit, queue, name)


class Bulkhead(Shared):
    """A limit made by `bulkhead`.

    Attributes:
        name: Its name.

    >>> bulkhead(3, name="database")
    bulkhead(3, queue=inf, name='database')
    """

    # `_waiting` is as in `RateLimit`. `_running` counts the places of the calls that run, and of
    # those that may continue but have not had their turn of the loop yet: a place passes
    # from one call to the next and is never free in between.

    def __init__(self, limit: int, queue: float, name: str) -> None:
        self.name = name
        self._limit = checks.count("limit", limit)
        self._most_waiting = (
            queue if queue == math.inf else checks.count("queue", cast("int", queue), least=0)
        )
        self._running = 0
        self._waiting: OrderedDict[asyncio.Future[None], int] = OrderedDict()

    def __call__(
        self, step: Callable[P, AsyncResult[T, E]], /
    ) -> Callable[P, FutureResult[T, E | BulkheadFull]]:
        """Return a step that runs when the limit allows it."""
        run = functools.partial(self._run, step)
        return DecoratedStep[P, T, E | BulkheadFull](run, self, (step,), {}, wraps=step)

    async def _run(
        self,
        step: Callable[..., AsyncResult[T, E]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Result[T, E | BulkheadFull]:
        if not self._take(1):
            if self._is_full:
                return Failure(self._full())
            await self._wait(1, name_of(step))
        try:
            return result_of(await awaitable_of(step(*args, **kwargs)))
        finally:
            self._release(1)

    def acquire(self, amount: int = 1) -> AbstractAsyncContextManager[None]:
        """Hold ``amount`` places in an ``async with``, for work that is not a step.

        Args:
            amount: How many places, from 1 to ``limit``.

        Raises:
            InvalidArgument: At the call, if ``amount`` is out of range.
            BulkheadFull: On entering, if as many as allowed are waiting.
        """
        return self._hold(_amount(amount, self._limit))

    @asynccontextmanager
    async def _hold(self, amount: int) -> AsyncGenerator[None, None]:
        if not self._take(amount):
            if self._is_full:
                raise self._full()
            await self._wait(amount)
        try:
            yield
        finally:
            self._release(amount)

    def statistics(self) -> BulkheadStatistics:
        """Return what it holds at this moment.

        >>> from returns_pipeline.testing import run
        >>> async def main():
        ...     limit = bulkhead(3)
        ...     async with limit.acquire(2):
        ...         return limit.statistics()
        >>> run(main())
        BulkheadStatistics(running=2, waiting=0)
        """
        waiting = sum(not place.cancelled() for place in self._waiting)
        return BulkheadStatistics(self._running, waiting)

    @property
    def _is_full(self) -> bool:
        return len(self._waiting) >= self._most_waiting

    def _full(self) -> BulkheadFull:
        return BulkheadFull(self.name, self._limit, self._most_waiting)

    def _take(self, amount: int) -> bool:
        if self._waiting or self._running + amount > self._limit:
            return False
        self._running += amount
        return True

    async def _wait(self, amount: int, stage: str = "") -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        place: asyncio.Future[None] = loop.create_future()
        self._waiting[place] = amount
        try:
            await place
        except asyncio.CancelledError:
            _ = self._waiting.pop(place, None)
            # It may have been let in during this very turn. If not, it may have been the first,
            # with a smaller one after it.
            self._release(0 if place.cancelled() else amount)
            raise
        _report_wait("bulkhead", self, stage, began)

    def _release(self, amount: int) -> None:
        """Return places, and resume the calls that now fit, in order."""
        self._running -= amount
        while self._waiting:
            place, wanted = next(iter(self._waiting.items()))
            if not place.cancelled():
                if self._running + wanted > self._limit:
                    return
                self._running += wanted
                place.set_result(None)
            del self._waiting[place]

    def __repr__(self) -> str:
        return f"bulkhead({self._limit!r}, queue={self._most_waiting!r}, name={self.name!r})"


def _report_wait(
    limiter: Literal["rate_limit", "bulkhead"], limit: Shared, stage: str, began: float
) -> None:
    """Report that a step has waited for its turn."""
    if (observed := observing.opened()) is None:
        return
    at = asyncio.get_running_loop().time()
    event = telemetry.LimiterWaited(
        pipeline=observed.pipeline,
        stage=stage,
        limiter=limiter,
        name=limit.name,
        waited=at - began,
        at=at,
    )
    observed.report(event)


def _amount(amount: int, most: int) -> int:
    amount = checks.count("amount", amount)
    if amount > most:
        raise InvalidArgument(f"amount must be at most {most}, not {amount}: it would wait forever")
    return amount
