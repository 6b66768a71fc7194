"""Policies that are values: `RetryPolicy`, `Timeout`, and their combinations by ``|``.

>>> RetryPolicy(attempts=3) | Timeout(2.0)
RetryPolicy(attempts=3) | Timeout(2.0)

Such a stack reads from the outside in: each of the three attempts may take two seconds.
``Timeout(10.0) | RetryPolicy(attempts=3)`` allows ten seconds for all of them together, and
``Timeout(10.0) | RetryPolicy(attempts=3) | Timeout(2.0)`` has both limits.
`returns_pipeline.policies.with_policy` applies them to a step.

`RetryPolicy` and `Timeout` can be fields of a model of pydantic or msgspec, so that they can be
read from a configuration; for pydantic ``PolicyStack[RetryPolicy, Timeout]`` is a list of the two.
The JSON schema of such a model has ``null`` where only a function fits.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, field, fields
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    Protocol,
    TypeAlias,
    TypeVarTuple,
    cast,
    overload,
)

from typing_extensions import TypeVar

from returns_pipeline._engine import checks
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.frozen import allow_type_arguments
from returns_pipeline._engine.pydantic_fields import PydanticField, stack_schema
from returns_pipeline._engine.retry_loop import RetryEvent, RetryOn, check_errors
from returns_pipeline.errors import InvalidArgument

if TYPE_CHECKING:
    from tenacity import RetryCallState

    Wait: TypeAlias = Seconds | Callable[[RetryCallState], float]
    _RetryOn: TypeAlias = RetryOn
    _Limit: TypeAlias = float
else:
    # The annotations that tools see at run time. msgspec refuses a union that includes a class or a
    # function; a JSON document has null for "no limit"; and tenacity is loaded only when needed.
    Wait = Any
    _RetryOn = Any
    _Limit = float | None

__all__ = ["PolicyStack", "RetryEvent", "RetryPolicy", "Timeout"]

Ts = TypeVarTuple("Ts")

# The default wait, in seconds: doubled from the first to the longest, plus as much jitter.
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 30.0
_JITTER = 0.1


class _Breaker(Protocol):
    """A `returns_pipeline.policies.CircuitBreaker`, whose room is above this one."""

    @property
    def state(self) -> Literal["closed", "open", "half open"]: ...
    def reset(self) -> None: ...


B = TypeVar("B", bound=_Breaker)


A_contra = TypeVar("A_contra", contravariant=True, default=object)


@allow_type_arguments
@dataclass(frozen=True, slots=True, repr=False, init=False)
class RetryPolicy(PydanticField, Generic[A_contra]):
    """How often something that fails is tried, and how long to wait before the next attempt.

    It is a value: frozen, compared by its fields (a wait strategy of tenacity by its parts, a
    function by identity), safe to share, and picklable if its parts are. Pass it to
    `returns_pipeline.policies.with_policy`, to a step of a saga, or to a compensation.
    ``RetryPolicy() | Timeout(2.0)`` limits each attempt, ``Timeout(2.0) | RetryPolicy()`` all of
    them together.

    Attributes:
        attempts: How often it is tried at most, the first time included; at least 1.
        wait: Seconds before the next attempt: a number or a `timedelta`, or any wait strategy of
            tenacity (``tenacity.wait_fixed(1) + tenacity.wait_random(0, 2)``, ...). By default
            0.1 s, doubled each time up to 30 s, plus up to 0.1 s of random jitter, so that steps
            that failed at the same time are not all tried again at the same time.
        retry_on: Which errors are retried: classes of errors and exceptions, or a function of the
            error. Its parameter is the type argument of the policy: it has to take the errors of
            the step. It is called with exceptions of the step and `StepTimeout`, too; if it raises
            for one, that is not retried. An exception that is retried is treated like a failure;
            others propagate at once. By default every failure, and no exception; for a
            compensation, both.
        total_timeout: Seconds, from the first attempt on, after which no further attempt begins;
            above 0. An attempt under way is not cut off. The deadline of the context that a step
            runs in is such a limit, too, if it comes first.
        on_retry: Called with a `RetryEvent` when an attempt has failed and been undone, before the
            wait for the next. If it is a coroutine function, it is awaited as a part of this wait.
            Its exceptions propagate.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.

    >>> RetryPolicy(attempts=5, wait=0.5).attempts
    5
    """

    _policy_kind: ClassVar = "retry"  # for `PolicyStack`

    attempts: int = 3
    wait: Wait | None = None
    retry_on: _RetryOn | None = None
    total_timeout: _Limit = math.inf
    on_retry: Callable[[RetryEvent], object] | None = None

    @overload
    def __init__(
        self: RetryPolicy[object],
        attempts: int = 3,
        wait: Wait | None = None,
        retry_on: type | tuple[type, ...] | None = None,
        total_timeout: Seconds = math.inf,
        on_retry: Callable[[RetryEvent], object] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        attempts: int = 3,
        wait: Wait | None = None,
        *,
        retry_on: Callable[[A_contra], bool],
        total_timeout: Seconds = math.inf,
        on_retry: Callable[[RetryEvent], object] | None = None,
    ) -> None: ...
    def __init__(
        self,
        attempts: int = 3,
        wait: Wait | None = None,
        retry_on: Any = None,
        total_timeout: Seconds = math.inf,
        on_retry: Callable[[RetryEvent], object] | None = None,
    ) -> None:
        _set(self, attempts=attempts, wait=wait, retry_on=retry_on)
        _set(self, total_timeout=total_timeout, on_retry=on_retry)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Check and convert the fields; a library that reads a model calls this alone."""
        limit = cast("Seconds | None", self.total_timeout)
        _set(
            self,
            attempts=checks.count("attempts", self.attempts),
            total_timeout=math.inf if limit is None else checks.seconds("total_timeout", limit),
        )
        wait: object = self.wait
        if wait is not None and not callable(wait):
            _set(self, wait=checks.seconds("wait", cast("Seconds", wait), zero=True, finite=True))
        check_errors("retry_on", self.retry_on)
        on_retry: object = self.on_retry
        if on_retry is not None and not callable(on_retry):
            raise InvalidArgument(f"on_retry must be a function, not {on_retry!r}")

    @overload
    def __or__(self, inner: Timeout) -> PolicyStack[RetryPolicy, Timeout]: ...
    @overload
    def __or__(self, inner: PolicyStack[B, Timeout]) -> PolicyStack[RetryPolicy, B, Timeout]: ...
    def __or__(self, inner: Any) -> Any:
        """Limit each attempt."""
        return _nested(self, inner)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RetryPolicy):
            return NotImplemented
        return self._facts() == other._facts()

    def __hash__(self) -> int:
        # The parts of a strategy need not be hashable.
        wait = type(self.wait) if _is_strategy(self.wait) else self.wait
        return hash((self.attempts, wait, self.retry_on, self.total_timeout, self.on_retry))

    def _facts(self) -> tuple[object, ...]:
        return tuple(_facts(getattr(self, each.name)) for each in fields(self))

    def __repr__(self) -> str:
        """Show the fields that differ from their default."""
        shown = [f"attempts={self.attempts!r}"]
        for each in fields(self)[1:]:
            value: object = getattr(self, each.name)
            if value != each.default:
                shown.append(f"{each.name}={_shown(value)}")
        return f"RetryPolicy({', '.join(shown)})"

    def delay(self, attempt: int, outcome: object) -> float:
        """Return the seconds to wait after an attempt failed.

        Args:
            attempt: The number of that attempt, counted from 1.
            outcome: The exception, or the error of the failure.

        Raises:
            InvalidArgument: The wait strategy returned something that is not a time.
        """
        wait = self.wait
        if wait is not None and not callable(wait):
            return cast("float", wait)  # see `__post_init__`
        # tenacity is loaded by the first retry that needs it: most programs never do.
        import tenacity  # noqa: PLC0415

        if wait is None:
            wait = tenacity.wait_exponential(_FIRST_WAIT, _LONGEST_WAIT)
            wait += tenacity.wait_random(0, _JITTER)
        state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
        state.attempt_number = attempt
        if isinstance(outcome, BaseException):
            state.set_exception((type(outcome), outcome, outcome.__traceback__))
        else:
            state.set_result(outcome)
        return checks.seconds("a wait", wait(state), zero=True, finite=True)


@dataclass(frozen=True, slots=True, repr=False, init=False)
class Timeout:
    """How long a step may take. It is a value, like `RetryPolicy`.

    Attributes:
        seconds: Until the step is cancelled, above 0.
        grace: Seconds that it may then take to respond to its cancellation, 0 or more. After that
            it is abandoned, with an error in the log.

    Raises:
        InvalidArgument: At the call, if a time is out of range.

    >>> Timeout(2.0) | RetryPolicy(3)
    Timeout(2.0) | RetryPolicy(attempts=3)
    """

    _policy_kind: ClassVar = "timeout"  # for `PolicyStack`

    seconds: float
    grace: float = field(default=5.0, kw_only=True)

    def __init__(self, seconds: Seconds, *, grace: Seconds = 5.0) -> None:
        _set(self, seconds=seconds, grace=grace)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Check and convert the fields; a library that reads a model calls this alone."""
        _set(
            self,
            seconds=checks.seconds("a timeout", self.seconds),
            grace=checks.seconds("grace", self.grace, zero=True),
        )

    @overload
    def __or__(self, inner: RetryPolicy) -> PolicyStack[Timeout, RetryPolicy]: ...
    @overload
    def __or__(
        self, inner: PolicyStack[RetryPolicy, Timeout]
    ) -> PolicyStack[Timeout, RetryPolicy, Timeout]: ...
    def __or__(self, inner: Any) -> Any:
        """Limit all attempts together."""
        return _nested(self, inner)

    def __repr__(self) -> str:
        """Show the grace time if it is not the default."""
        grace = "" if self.grace == 5.0 else f", grace={self.grace!r}"
        return f"Timeout({self.seconds!r}{grace})"


# The kinds of layers, outside in, that `with_policy` has a type for.
_STACKS = {
    ("retry", "timeout"),
    ("timeout", "retry"),
    ("timeout", "retry", "timeout"),
    ("breaker", "retry"),
    ("breaker", "timeout"),
    ("breaker", "retry", "timeout"),
    ("retry", "breaker"),
    ("retry", "breaker", "timeout"),
    ("timeout", "breaker"),
}


class PolicyStack(Generic[*Ts]):
    """Nested policies: a `RetryPolicy`, a `Timeout` and a `CircuitBreaker` combined by ``|``.

    It is a value, like them: frozen, compared by its layers, picklable if they are (a breaker is
    equal to itself alone, and cannot be pickled).

    Raises:
        InvalidArgument: At the call, if `with_policy` has no type for such a stack.

    >>> each = RetryPolicy() | Timeout(2.0)
    >>> (Timeout(9.0) | each) == (Timeout(9.0) | RetryPolicy() | Timeout(2.0))
    True
    """

    # Not a dataclass: pydantic would take its type arguments for those of one variable each.
    __slots__ = ("_layers",)
    __match_args__ = ("layers",)
    _layers: tuple[*Ts]

    def __init__(self, layers: tuple[*Ts]) -> None:
        _set(self, _layers=layers)
        if _kinds(layers) not in _STACKS:
            raise InvalidArgument(f"these policies cannot be combined in this way: {self!r}")

    @property
    def layers(self) -> tuple[*Ts]:
        """The policies, the outermost first."""
        return self._layers

    def __setattr__(self, name: str, _value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PolicyStack) and other._parts() == self._layers

    def __hash__(self) -> int:
        return hash(self._layers)

    def __reduce__(self) -> tuple[type[object], tuple[object, ...]]:
        return type(self), (self._layers,)

    def _parts(self) -> tuple[object, ...]:
        return self._layers

    @overload
    def __or__(
        self: PolicyStack[Timeout, RetryPolicy], inner: Timeout
    ) -> PolicyStack[Timeout, RetryPolicy, Timeout]: ...
    @overload
    def __or__(
        self: PolicyStack[B, RetryPolicy], inner: Timeout
    ) -> PolicyStack[B, RetryPolicy, Timeout]: ...
    def __or__(self: Any, inner: Timeout) -> Any:
        """Limit each attempt, too."""
        return _nested(self, inner)

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.layers))

    @classmethod
    def __get_pydantic_core_schema__(cls, annotation: object, handler: Any) -> dict[str, Any]:
        return stack_schema(cls, annotation, handler.generate_schema, _has_layers)


def _has_layers(stack: PolicyStack[*tuple[Any, ...]], classes: tuple[object, ...]) -> bool:
    return _kinds(stack.layers) == _kinds(classes)


def _kinds(layers: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(getattr(layer, "_policy_kind", None) for layer in layers)


def _set(policy: object, **values: object) -> None:
    """Set fields of a frozen dataclass."""
    for name, value in values.items():
        object.__setattr__(policy, name, value)


def _is_strategy(value: object) -> bool:
    """Whether this is a wait strategy of tenacity, which is equal only to itself."""
    loaded: Any = sys.modules.get("tenacity.wait")  # if it is not, there is none
    kind: Any = type(value)
    return (
        loaded is not None and isinstance(value, loaded.wait_base) and kind.__eq__ is object.__eq__
    )


def _facts(value: object) -> object:
    """Return the facts by which a value is compared: for a wait strategy, its parts."""
    if isinstance(value, list | tuple):
        return [_facts(part) for part in cast("list[object] | tuple[object, ...]", value)]
    if _is_strategy(value):
        return type(value), {name: _facts(part) for name, part in vars(value).items()}
    return value


def _shown(value: object) -> str:
    """Show classes and functions by name, and a strategy by its parts."""
    if isinstance(value, tuple):
        parts = [_shown(part) for part in cast("tuple[object, ...]", value)]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
    if _is_strategy(value):
        made_of = [f"{name}={_shown(part)}" for name, part in vars(value).items()]
        return f"{type(value).__name__}({', '.join(made_of)})"
    name: object = getattr(value, "__qualname__", None)  # an instance has none
    return name if isinstance(name, str) else repr(value)


def _nested(outer: object, inner: object) -> Any:
    """Nest policies, if they fit; otherwise Python raises its usual TypeError."""
    layers: list[object] = []
    for part in (outer, inner):
        layers += getattr(part, "layers", [part])
    return PolicyStack(tuple(layers)) if _kinds(tuple(layers)) in _STACKS else NotImplemented
