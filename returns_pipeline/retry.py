"""Policies that are values: `RetryPolicy`, `Timeout`, and what ``|`` makes of them.

>>> RetryPolicy(attempts=3) | Timeout(2.0)
RetryPolicy(attempts=3) | Timeout(2.0)

Such a stack reads from the outside in: each of the three attempts may take two seconds.
``Timeout(10.0) | RetryPolicy(attempts=3)`` gives ten seconds to all of them together, and
``Timeout(10.0) | RetryPolicy(attempts=3) | Timeout(2.0)`` says both.
`returns_pipeline.policies.with_policy` puts them around a step.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVarTuple, cast, overload

from returns_pipeline._engine.retry_loop import RetryEvent, RetryOn
from returns_pipeline.errors import InvalidArgument

if TYPE_CHECKING:
    from tenacity import RetryCallState
    from tenacity.wait import wait_base

    Wait: TypeAlias = "float | wait_base | Callable[[RetryCallState], float]"

__all__ = ["PolicyStack", "RetryEvent", "RetryPolicy", "Timeout"]

Ts = TypeVarTuple("Ts")

# The default wait, in seconds: doubled from the first to the most, with as much jitter on top.
_FIRST_WAIT = 0.1
_MOST_WAIT = 30.0
_JITTER = 0.1


@dataclass(frozen=True, slots=True, repr=False)
class RetryPolicy:
    """How often something that fails is tried, and how long to wait before the next attempt.

    It is a value: frozen, compared by its fields (a wait strategy of tenacity by what it was made
    of, a function by being the same), shared freely, picklable if its parts are. It goes to
    `returns_pipeline.policies.with_policy`, a saga's step, or a compensation. With a `Timeout`
    behind ``|``, each attempt has that limit; behind a `Timeout`, all together have it.

    Attributes:
        attempts: How often it is tried at most, the first time included; at least 1.
        wait: Seconds before the next attempt: a number, or any wait strategy of tenacity
            (``tenacity.wait_fixed(1) + tenacity.wait_random(0, 2)``, ...). By default 0.1 s,
            doubled each time up to 30 s, with up to 0.1 s of random jitter on top, so that many
            that failed together do not come back together.
        retry_on: What is tried again: classes of errors and exceptions, or a function that looks
            at the error or exception. An exception it names is retried like a failure; others go
            on at once. By default every failure, and no exception; for a compensation, both.
        total_timeout: Seconds, from the first attempt on, after which no further attempt begins;
            above 0. An attempt under way is not cut off. The deadline of the context that a step
            runs in is such a time too, if it comes first.
        on_retry: Called with a `RetryEvent` when an attempt has failed and been undone, and before
            the wait for the next; if it is a coroutine function, it is awaited, and the wait goes
            on meanwhile. What it raises goes on.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.

    >>> RetryPolicy(attempts=5, wait=0.5).attempts
    5
    """

    attempts: int = 3
    wait: Wait | None = None
    retry_on: RetryOn | None = None
    total_timeout: float = math.inf
    on_retry: Callable[[RetryEvent], object] | None = None

    def __post_init__(self) -> None:
        """Refuse what could never be carried out."""
        if self.attempts < 1:
            raise InvalidArgument(f"attempts must be at least 1, not {self.attempts!r}")
        if isinstance(self.wait, int | float) and not 0 <= self.wait < math.inf:
            raise InvalidArgument(f"wait must be 0 seconds or more, not {self.wait!r}")
        if not self.total_timeout > 0:
            raise InvalidArgument(
                f"total_timeout must be above 0 seconds, not {self.total_timeout!r}"
            )

    def __or__(self, inner: Timeout) -> PolicyStack[RetryPolicy, Timeout]:
        """Limit each attempt."""
        made: PolicyStack[RetryPolicy, Timeout] = _stack(self, inner)
        return made

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RetryPolicy):
            return NotImplemented
        return self._facts() == other._facts()

    def __hash__(self) -> int:
        # What a strategy is made of need not be hashable.
        wait = type(self.wait) if _is_strategy(self.wait) else self.wait
        return hash((self.attempts, wait, self.retry_on, self.total_timeout, self.on_retry))

    def _facts(self) -> tuple[object, ...]:
        return tuple(_facts(getattr(self, each.name)) for each in fields(self))

    def __repr__(self) -> str:
        """Show what is not as it is by default."""
        given = [f"attempts={self.attempts!r}"]
        for each in fields(self)[1:]:
            value: object = getattr(self, each.name)
            if value != each.default:
                given.append(f"{each.name}={_shown(value)}")
        return f"RetryPolicy({', '.join(given)})"

    def delay(self, attempt: int, outcome: object) -> float:
        """Give the seconds to wait after an attempt failed.

        Args:
            attempt: Which attempt it was, counted from 1.
            outcome: What came of it: the exception, or the value that stands for a failure.

        Raises:
            InvalidArgument: The wait strategy gave something else than a time to wait.
        """
        if isinstance(self.wait, int | float):
            return self.wait
        # tenacity is loaded with the first retry that needs it: most runs never do.
        import tenacity  # noqa: PLC0415

        wait = self.wait
        if wait is None:
            wait = tenacity.wait_exponential(_FIRST_WAIT, _MOST_WAIT)
            wait += tenacity.wait_random(0, _JITTER)
        state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
        state.attempt_number = attempt
        if isinstance(outcome, BaseException):
            state.set_exception((type(outcome), outcome, outcome.__traceback__))
        else:
            state.set_result(outcome)
        seconds = wait(state)
        if not 0 <= seconds < math.inf:
            raise InvalidArgument(f"a wait must be 0 seconds or more, not {seconds!r}")
        return seconds


@dataclass(frozen=True, slots=True, repr=False)
class Timeout:
    """How long a step may take. It is a value, as `RetryPolicy` is.

    Attributes:
        seconds: Until the step is cancelled, above 0.
        grace: Seconds that it may then take to heed that, 0 or more. It is left behind after them,
            with an error in the log.

    Raises:
        InvalidArgument: At the call, if a time is out of range.
    """

    seconds: float
    grace: float = field(default=5.0, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what could never be carried out."""
        if not self.seconds > 0:
            raise InvalidArgument(f"a timeout must be above 0 seconds, not {self.seconds!r}")
        if not self.grace >= 0:
            raise InvalidArgument(f"grace must be 0 seconds or more, not {self.grace!r}")

    @overload
    def __or__(self, inner: RetryPolicy) -> PolicyStack[Timeout, RetryPolicy]: ...
    @overload
    def __or__(
        self, inner: PolicyStack[RetryPolicy, Timeout]
    ) -> PolicyStack[Timeout, RetryPolicy, Timeout]: ...
    def __or__(
        self, inner: RetryPolicy | PolicyStack[RetryPolicy, Timeout]
    ) -> PolicyStack[Timeout, RetryPolicy] | PolicyStack[Timeout, RetryPolicy, Timeout]:
        """Limit all attempts together."""
        made: PolicyStack[Timeout, RetryPolicy] = _stack(self, inner)
        return made

    def __repr__(self) -> str:
        """Show the grace only if it is not the usual one."""
        grace = "" if self.grace == 5.0 else f", grace={self.grace!r}"
        return f"Timeout({self.seconds!r}{grace})"


@dataclass(frozen=True, slots=True, repr=False)
class PolicyStack(Generic[*Ts]):
    """Policies around one another: what ``|`` makes of a `RetryPolicy` and one or two `Timeout`.

    It is a value, as they are: frozen, compared by its layers, picklable if they are.

    Attributes:
        layers: The outermost first.

    Raises:
        InvalidArgument: At the call, if `with_policy` could not give its type.

    >>> each = RetryPolicy() | Timeout(2.0)
    >>> (Timeout(9.0) | each) == (Timeout(9.0) | RetryPolicy() | Timeout(2.0))
    True
    """

    layers: tuple[*Ts]

    def __post_init__(self) -> None:
        """Refuse what `with_policy` could give no type to."""
        kinds = tuple(type(layer) for layer in self.layers)
        if kinds not in _STACKS:
            raise InvalidArgument(f"policies do not make a stack: {self!r}")

    def __or__(
        self: PolicyStack[Timeout, RetryPolicy], inner: Timeout
    ) -> PolicyStack[Timeout, RetryPolicy, Timeout]:
        """Limit each attempt, too."""
        made: PolicyStack[Timeout, RetryPolicy, Timeout] = _stack(self, inner)
        return made

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.layers))


_STACKS = {
    (RetryPolicy, Timeout),
    (Timeout, RetryPolicy),
    (Timeout, RetryPolicy, Timeout),
}


def _is_strategy(value: object) -> bool:
    """Say whether it is a wait strategy of tenacity that is equal only to itself."""
    loaded: Any = sys.modules.get("tenacity.wait")  # if it is not, there is none
    kind: Any = type(value)
    return (
        loaded is not None and isinstance(value, loaded.wait_base) and kind.__eq__ is object.__eq__
    )


def _facts(value: object) -> object:
    """Give what stands for a value when it is compared."""
    if isinstance(value, list | tuple):
        return [_facts(part) for part in cast("list[object] | tuple[object, ...]", value)]
    if _is_strategy(value):
        return type(value), {name: _facts(part) for name, part in vars(value).items()}
    return value


def _shown(value: object) -> str:
    """Show classes and functions by name, and a strategy by what it is made of."""
    if isinstance(value, tuple):
        parts = [_shown(part) for part in cast("tuple[object, ...]", value)]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
    if _is_strategy(value):
        made_of = [f"{name}={_shown(part)}" for name, part in vars(value).items()]
        return f"{type(value).__name__}({', '.join(made_of)})"
    name: object = getattr(value, "__qualname__", None)  # an instance has none
    return name if isinstance(name, str) else repr(value)


def _stack(outer: object, inner: object) -> Any:
    """Put one around the other; Python says what it says of operands that do not fit."""
    layers: list[object] = []
    for part in (outer, inner):
        layers += getattr(part, "layers", [part])
    return PolicyStack(tuple(layers)) if tuple(map(type, layers)) in _STACKS else NotImplemented
