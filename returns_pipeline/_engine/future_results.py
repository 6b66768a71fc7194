"""Results as `match` statements and `await` see them, with exact types."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import CoroutineType
from typing import Any, Never, TypeAlias, TypeVar, cast

from returns.future import FutureResult
from returns.io import IOFailure, IOResult, IOSuccess
from returns.primitives.container import BaseContainer
from returns.result import Failure, Result, Success

__all__ = [
    "LOST",
    "AsyncResult",
    "cases",
    "discard",
    "err",
    "failure_in",
    "future_result",
    "given_by",
    "ok",
    "refuse_lost",
    "result_of",
    "to_result",
    "unpacked",
]

T = TypeVar("T")
E = TypeVar("E")

AsyncResult: TypeAlias = FutureResult[T, E] | Awaitable[Result[T, E]]
"""What an asynchronous step returns: a `FutureResult`, or a coroutine of a `Result`."""


def cases(result: Result[T, E] | IOResult[T, E]) -> Success[T] | Failure[E]:
    """Return the Result, typed as what it can be, for a ``match`` that is exact and exhaustive.

    Type checkers do not know that a `Result` is one of two classes: in a bare ``match result``
    mypy makes every value ``Any`` and misses that all cases are there (python/mypy#17589).
    The ``IOResult`` of an awaited `FutureResult` is unpacked: ``match cases(await s.collect())``.

    >>> def describe(result: Result[int, str]) -> str:
    ...     match cases(result):
    ...         case Success(number):
    ...             return f"got {number}"
    ...         case Failure(error):
    ...             return f"failed: {error}"
    >>> describe(Success(1)), describe(Failure("no"))
    ('got 1', 'failed: no')
    """
    return cast("Success[T] | Failure[E]", unpacked(result))


def ok(value: T) -> Result[T, Never]:
    """Return a `Success` that cannot be a failure: in a lambda, ``Success(value)`` could be any."""
    return Success(value)


def err(error: E) -> Result[Never, E]:
    """Return a `Failure` that cannot be a success: in a lambda, ``Failure(error)`` could be any."""
    return Failure(error)


def refuse_lost(given: object, use: str) -> None:
    """Refuse a result that would be ignored, though it may be a failure or was never awaited.

    Raises:
        TypeError: It is a Result, a `FutureResult` or a coroutine.
    """
    if given.__class__ in LOST:
        discard(given)
        kind = type(given).__name__.removeprefix("_")
        raise TypeError(f"a {kind} would be ignored here: use {use}")


def failure_in(given: object) -> Failure[Any] | None:
    """Return the failure that a step returned, plain or awaited, if it returned one."""
    if given.__class__ in _RESULTS:
        inner: Any = unpacked(given)
        if inner.__class__ is Failure:
            failure: Failure[Any] = inner
            return failure
    return None


async def to_result(step: AsyncResult[T, E]) -> Result[T, E]:
    """Await a step of either form, and give its `Result`.

    Awaiting a `FutureResult` gives an ``IOResult``; its public unpacking is typed ``Never``.

    Raises:
        TypeError: What was awaited gave something else.
    """
    return result_of(await given_by(step))


def given_by(
    step: AsyncResult[T, E],
) -> Awaitable[IOResult[T, E] | Result[T, E]]:
    """Return what is to be awaited for the outcome of a step, which `result_of` then takes.

    A `FutureResult` would wrap its Result in an ``IOResult``, only for us to unwrap it again.
    """
    given: Any = step  # `cast` costs as much as a third of this function
    kind = step.__class__
    if kind is _FutureResult or kind is FutureResult:
        given = given._inner_value
    found: Awaitable[Result[T, E]] = given
    return found


def result_of(given: IOResult[T, E] | Result[T, E]) -> Result[T, E]:
    """Return the `Result` that awaiting a step gave in either form.

    Raises:
        TypeError: It gave something else.
    """
    kind = given.__class__  # both are final, and asking an abstract class costs more than the rest
    if kind is Success or kind is Failure:
        plain: Any = given
        found: Result[T, E] = plain
        return found
    inner = unpacked(given)
    if isinstance(inner, Success | Failure):
        return cast("Result[T, E]", inner)
    raise TypeError(f"expected a Result, not {given!r}")


def unpacked(given: object) -> object:
    """Return the `Result` inside an ``IOResult``, and anything else as it is."""
    if isinstance(given, IOResult):
        return cast("object", given._inner_value)  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
    return given


def discard(step: object) -> None:
    """Close a coroutine that will not be run, which would be warned about."""
    if isinstance(step, _FutureResult):
        step._work.close()  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
        return
    inner: object = getattr(step, "_inner_value", step)  # of a FutureResult,
    inner = getattr(inner, "_coro", inner)  # which keeps it in a ReAwaitable
    if inspect.iscoroutine(inner):
        inner.close()


def future_result(work: Coroutine[Any, Any, Result[T, E]], /) -> FutureResult[T, E]:
    """Return ``FutureResult(work)``, made and awaited for half of what that costs.

    It can be awaited again, combined by its methods and awaits to an ``IOResult``, as any other.
    """
    made: _FutureResult[T, E] = _new(_FutureResult)
    _set_work(made, work)
    _set_result(made, None)
    return made


class _FutureResult(FutureResult[T, E]):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    """A `FutureResult` that keeps its outcome itself.

    The class is final so that nobody changes what it does; this one only does it with one coroutine
    in place of two and with no Result made anew. `__repr__` leaves the underscore out.
    """

    __slots__ = ("_result", "_work")

    _work: Coroutine[Any, Any, Result[T, E]]
    _result: Result[T, E] | None

    @property
    def _inner_value(self) -> Awaitable[Result[T, E]]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the methods build upon: gives the Result, any number of times."""
        return _Again(self)

    async def settle(self) -> Result[T, E]:
        """Await the work, once, and keep what came of it."""
        result = self._result
        if result is None:
            result = await self._work
            _set_result(self, result)
        return result

    async def awaitable(self) -> IOResult[T, E]:
        """Do what ``await`` does, as a coroutine."""
        result = self._result
        if result is None:
            result = await self._work
            _set_result(self, result)
        # As IOResult.from_result() does, which makes the Result anew.
        given: IOResult[T, E] = _new(IOSuccess if result.__class__ is Success else IOFailure)
        _set_inner(given, result)
        return given

    def __await__(self) -> Generator[Any, None, IOResult[T, E]]:
        return self.awaitable().__await__()


class _Again:
    """Awaits a `_FutureResult` to its Result."""

    __slots__ = ("_future",)

    def __init__(self, future: _FutureResult[Any, Any]) -> None:
        self._future = future

    def __await__(self) -> Generator[Any, None, Result[Any, Any]]:
        return self._future.settle().__await__()

    def __repr__(self) -> str:
        return repr(self._future._work)  # pyright: ignore[reportPrivateUsage]


# Containers are immutable, also for themselves: their slots are filled from outside.
_new: Callable[[type], Any] = object.__new__
_set_work: Callable[[object, object], None] = vars(_FutureResult)["_work"].__set__
_set_result: Callable[[object, object], None] = vars(_FutureResult)["_result"].__set__
_set_inner: Callable[[object, object], None] = vars(BaseContainer)["_inner_value"].__set__

# By class: they are final, and asking an abstract class takes a microsecond.
_RESULTS: frozenset[type] = frozenset(
    {Success, Failure, IOSuccess, IOFailure, FutureResult, _FutureResult}
)
LOST: frozenset[type] = _RESULTS | {CoroutineType}
"""Classes whose objects `refuse_lost` refuses, for a loop that cannot afford the call."""
