"""`circuit_breaker`: steps are not run while they would fail anyway."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, TypeAlias, TypeVar, overload

from returns.future import FutureResult
from returns.result import Failure, Result, Success
from typing_extensions import ParamSpec

from returns_pipeline import telemetry
from returns_pipeline._engine import checks, observing
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.future_results import AsyncResult, awaitable_of, result_of
from returns_pipeline._engine.logs import facts
from returns_pipeline._engine.names import shown
from returns_pipeline._engine.retry_loop import RetryOn, check_errors, is_one_of
from returns_pipeline.errors import CircuitOpen, InvalidArgument
from returns_pipeline.policies._decorated import DecoratedStep
from returns_pipeline.policies._limits import Shared
from returns_pipeline.retry import PolicyStack, RetryPolicy, Timeout

__all__ = ["CircuitBreaker", "CircuitEvent", "CircuitState", "CircuitStatistics", "circuit_breaker"]

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E")

CircuitState: TypeAlias = Literal["closed", "open", "half open"]

_BUCKETS: Final = 10  # parts of a window; the oldest part is forgotten as a whole

_log = logging.getLogger("returns_pipeline.policies")


@dataclass(frozen=True, slots=True)
class CircuitEvent:
    """A change of a breaker's state, for ``on_state_change``.

    Attributes:
        name: The breaker's name.
        state: The new state.
        error: The failure's error, or the exception, that opened it; ``None`` otherwise.

    >>> CircuitEvent("database", "open", "busy").state
    'open'
    """

    name: str
    state: CircuitState
    error: object = None


def circuit_breaker(
    failures: int,
    reset_after: Seconds,
    half_open: int = 1,
    *,
    counts: RetryOn | None = None,
    failure_rate: float | None = None,
    window: Seconds = 60.0,
    on_state_change: Callable[[CircuitEvent], object] | None = None,
    name: str = "circuit",
) -> CircuitBreaker:
    """Make a breaker that refuses to run steps while they would fail anyway.

    1. **Closed**, it runs all steps. It opens when ``failures`` of them in a row have failed. With
       a ``failure_rate``, it opens instead when at least ``failures`` steps have failed in the last
       ``window`` seconds and these are at least this share of all steps that ended in them.
    2. **Open**, it runs none: they fail at once with `CircuitOpen`, which has the time until the
       next try.
    3. **Half open**, after ``reset_after`` seconds, it runs up to ``half_open`` steps at a time as
       trials. The first that succeeds closes it, the first that fails opens it again. A trial that
       takes longer than another ``reset_after`` seconds is given up: its result no longer counts,
       and another trial may begin.

    A step fails by a `Failure` or by an exception. A cancelled step does not count, and neither
    does the result of a step that began before the state last changed.

    It may be a layer of a stack for `with_policy`: in ``breaker | RetryPolicy(3)`` all attempts of
    a call count as one step, in ``RetryPolicy(3) | breaker`` each attempt counts.

    The pattern is Nygard's, "Release It!" (2007).

    Args:
        failures: At least 1.
        reset_after: Seconds, above 0.
        half_open: At least 1.
        counts: Which failures count: classes of errors and exceptions, or a function of the error
            or exception, as in `RetryPolicy`. By default all. A failure that does not count is an
            answer, like a success: a declined card shows that the bank is up. If the function
            raises an exception, that is logged, and the failure counts.
        failure_rate: A share, above 0 and at most 1.
        window: Seconds, above 0. It slides in tenths.
        on_state_change: Called with a `CircuitEvent`; for "half open", when the first trial
            begins. It must not block. Its exceptions are logged.
        name: For `CircuitOpen`.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.

    >>> from returns.result import Failure, Result
    >>> from returns_pipeline.testing import run
    >>> async def ask() -> Result[str, str]:
    ...     return Failure("busy")
    >>> async def main() -> None:
    ...     breaker = circuit_breaker(1, 30.0, name="database")
    ...     for _ in range(2):
    ...         print(await breaker(ask)())
    >>> run(main())
    <IOResult: <Failure: busy>>
    <IOResult: <Failure: circuit 'database' is open: try again in 30 s>>
    """
    kwargs: dict[str, Any] = {"half_open": half_open}
    if counts is not None:
        kwargs["counts"] = counts
    if failure_rate is not None:
        kwargs |= {"failure_rate": failure_rate, "window": window}
    if on_state_change is not None:
        kwargs["on_state_change"] = on_state_change
    kwargs["name"] = name
    written = [repr(failures), repr(reset_after)]
    written += [f"{key}={shown(value)}" for key, value in kwargs.items()]
    check_errors("counts", counts)
    failures = checks.count("failures", failures)
    record: _InARow | _InAWindow = _InARow(failures)
    window = checks.seconds("window", window, finite=True)
    if failure_rate is not None:
        if (share := checks.number("failure_rate", failure_rate)) > 1:
            raise InvalidArgument(f"failure_rate must be at most 1, not {failure_rate!r}")
        record = _InAWindow(failures, share, window)
    return CircuitBreaker(
        name,
        record,
        checks.seconds("reset_after", reset_after, finite=True),
        checks.count("half_open", half_open),
        counts,
        on_state_change,
        f"circuit_breaker({', '.join(written)})",
    )


@dataclass(slots=True)
class _InARow:
    """Counts failures in a row."""

    most: int
    failed: int = 0

    def counted(self) -> int:
        return self.failed

    def add(self, failed: bool) -> bool:
        """Count a step that has ended; true if the circuit must open."""
        self.failed = self.failed + 1 if failed else 0
        return self.failed >= self.most

    def clear(self) -> None:
        self.failed = 0


@dataclass(slots=True)
class _InAWindow:
    """Counts failures and ends in a window of time, in buckets: its size does not depend on use."""

    least: int
    share: float
    seconds: float
    buckets: deque[list[int]] = field(default_factory=deque[list[int]])  # number, ended, failed

    def counted(self) -> int:
        number = int(asyncio.get_running_loop().time() / (self.seconds / _BUCKETS))
        return sum(failed for each, _, failed in self.buckets if each > number - _BUCKETS)

    def add(self, failed: bool) -> bool:
        """Count a step that has ended; true if the circuit must open."""
        number = int(asyncio.get_running_loop().time() / (self.seconds / _BUCKETS))
        buckets = self.buckets
        if not buckets or buckets[-1][0] != number:
            buckets.append([number, 0, 0])
        while buckets[0][0] <= number - _BUCKETS:
            _ = buckets.popleft()
        buckets[-1][1] += 1
        buckets[-1][2] += failed
        if not failed:
            return False
        all_failed = sum(bucket[2] for bucket in buckets)
        return all_failed >= self.least and all_failed >= self.share * sum(
            bucket[1] for bucket in buckets
        )

    def clear(self) -> None:
        self.buckets.clear()


@dataclass(frozen=True, slots=True)
class CircuitStatistics:
    """What a `CircuitBreaker` has counted. `CircuitBreaker.statistics` makes it.

    Attributes:
        state: Its state.
        failures: The failures that count towards opening it; 0 unless it is closed.
        trials: The trials that are under way.
        open_for: Seconds until it lets a trial begin; 0 unless it is open.

    >>> CircuitStatistics("closed", failures=2, trials=0, open_for=0.0).state
    'closed'
    """

    state: CircuitState
    failures: int
    trials: int
    open_for: float


class _Phase:
    """A time that a breaker spends in one state. A step knows the phase in which it began."""

    __slots__ = ("since", "state", "trials")

    def __init__(self, state: CircuitState) -> None:
        self.state: CircuitState = state
        self.since: float = 0.0  # on the loop's clock; set unless it is closed
        self.trials: dict[object, float] = {}  # under way, with their begin; the oldest first


class CircuitBreaker(Shared):
    """A breaker made by `circuit_breaker`.

    Attributes:
        name: Its name.

    >>> circuit_breaker(3, 30.0).state
    'closed'
    """

    # The phase is replaced at each change of state. A step that ends in another phase than it
    # began in changes nothing any more, nor does a trial that is not in its phase's `trials`: it
    # was given up. The change from "open" to "half open" is made by the first call after its time.

    _policy_kind: ClassVar = "breaker"  # for `PolicyStack`

    def __init__(
        self,
        name: str,
        record: _InARow | _InAWindow,
        reset_after: float,
        half_open: int,
        counts: RetryOn | None,
        on_state_change: Callable[[CircuitEvent], object] | None,
        written: str,
    ) -> None:
        self.name = name
        self._record = record
        self._reset_after = reset_after
        self._half_open = half_open
        self._counts = counts
        self._on_state_change = on_state_change
        self._written = written
        self._phase = _Phase("closed")

    @property
    def state(self) -> CircuitState:
        """The state, on the running loop's clock."""
        phase = self._phase
        if phase.state == "open" and self._seconds_open(phase) <= 0:
            return "half open"
        return phase.state

    def statistics(self) -> CircuitStatistics:
        """Return what it has counted, on the running loop's clock.

        >>> from returns_pipeline.testing import run
        >>> async def main():
        ...     return circuit_breaker(3, 30.0).statistics()
        >>> run(main())
        CircuitStatistics(state='closed', failures=0, trials=0, open_for=0.0)
        """
        phase = self._phase
        left = max(0.0, self._seconds_open(phase)) if phase.state == "open" else 0.0
        failures = self._record.counted() if phase.state == "closed" else 0
        return CircuitStatistics(self.state, failures, len(phase.trials), left)

    def reset(self) -> None:
        """Close it and forget all failures. Steps under way no longer count."""
        self._change("closed")

    def __call__(
        self, step: Callable[P, AsyncResult[T, E]], /
    ) -> Callable[P, FutureResult[T, E | CircuitOpen]]:
        """Return a step that is run only while the circuit is not open."""
        run = functools.partial(self._run, step)
        return DecoratedStep[P, T, E | CircuitOpen](run, self, (step,), {}, wraps=step)

    @overload
    def __or__(self, inner: RetryPolicy) -> PolicyStack[CircuitBreaker, RetryPolicy]: ...
    @overload
    def __or__(self, inner: Timeout) -> PolicyStack[CircuitBreaker, Timeout]: ...
    @overload
    def __or__(
        self, inner: PolicyStack[RetryPolicy, Timeout]
    ) -> PolicyStack[CircuitBreaker, RetryPolicy, Timeout]: ...
    def __or__(self, inner: RetryPolicy | Timeout | PolicyStack[*tuple[Any, ...]]) -> Any:
        """Count a call with all its attempts as one step."""
        layers: Any = inner.layers if isinstance(inner, PolicyStack) else (inner,)
        return PolicyStack((self, *layers))

    @overload
    def __ror__(self, outer: RetryPolicy) -> PolicyStack[RetryPolicy, CircuitBreaker]: ...
    @overload
    def __ror__(self, outer: Timeout) -> PolicyStack[Timeout, CircuitBreaker]: ...
    def __ror__(self, outer: RetryPolicy | Timeout) -> Any:
        """Count each attempt as a step."""
        return PolicyStack((outer, self))

    async def _run(
        self,
        step: Callable[..., AsyncResult[T, E]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Result[T, E | CircuitOpen]:
        trial: object = None
        if self._phase.state != "closed":
            trial = self._begin_trial()
            if isinstance(trial, CircuitOpen):
                return Failure(trial)
        phase = self._phase
        try:
            result = result_of(await awaitable_of(step(*args, **kwargs)))
        except Exception as error:
            self._on_end(phase, trial, failed=True, error=error)
            raise
        except BaseException:
            _ = phase.trials.pop(trial, None)  # a cancelled trial makes room for another
            raise
        if isinstance(result, Success):
            self._on_end(phase, trial, failed=False)
        else:
            self._on_end(phase, trial, failed=True, error=result.failure())
        return result

    def _seconds_open(self, phase: _Phase) -> float:
        """Return how long it stays open."""
        return phase.since + self._reset_after - asyncio.get_running_loop().time()

    def _begin_trial(self) -> object:
        """Admit a step, if it may run; otherwise return the error."""
        phase = self._phase
        if phase.state == "open":
            if (left := self._seconds_open(phase)) > 0:
                return CircuitOpen(self.name, left)
            phase = self._change("half open")
        now = asyncio.get_running_loop().time()
        for trial, began in list(phase.trials.items()):
            if began + self._reset_after <= now:
                del phase.trials[trial]
        if len(phase.trials) >= self._half_open:
            oldest = next(iter(phase.trials.values()))
            return CircuitOpen(self.name, oldest + self._reset_after - now)
        trial = object()
        phase.trials[trial] = now
        return trial

    def _on_end(self, phase: _Phase, trial: object, *, failed: bool, error: object = None) -> None:
        """Count a step that has ended."""
        if phase is not self._phase:
            return
        if trial is not None and phase.trials.pop(trial, None) is None:
            return  # it was given up
        failed = failed and self._is_counted(error)
        if trial is None:
            if self._record.add(failed):
                _ = self._change("open", error)
        else:
            _ = self._change("open" if failed else "closed", error if failed else None)

    def _is_counted(self, error: object) -> bool:
        if self._counts is None:
            return True
        try:
            return is_one_of(self._counts, error)
        except Exception:  # noqa: BLE001  # it must not replace the step's own error
            _log.exception(
                "counts of %r failed, so the error counts", self, extra=facts(breaker=self.name)
            )
            return True

    def _change(self, state: CircuitState, error: object = None) -> _Phase:
        before, self._phase = self._phase, _Phase(state)
        if state != "closed":
            self._phase.since = asyncio.get_running_loop().time()
        self._record.clear()
        if before.state != state:
            self._report(before.state, state)
        if self._on_state_change is not None and before.state != state:
            try:
                _ = self._on_state_change(CircuitEvent(self.name, state, error))
            except Exception:  # noqa: BLE001  # it must not become the step's
                _log.exception("on_state_change of %r failed", self, extra=facts(breaker=self.name))
        return self._phase

    def _report(self, before: CircuitState, state: CircuitState) -> None:
        if (observed := observing.opened()) is None:
            return
        event = telemetry.BreakerChanged(
            pipeline=observed.pipeline,
            breaker=self.name,
            before=before,
            state=state,
            at=asyncio.get_running_loop().time(),
        )
        observed.report(event)

    def __repr__(self) -> str:
        return self._written
