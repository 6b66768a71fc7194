"""Results as `match` statements and `await` see them, with exact types."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import CoroutineType
from typing import Any, Final, Never, Protocol, TypeAlias, TypeVar, cast, overload

from aiostream.core import BaseStream
from returns.future import FutureResult
from returns.io import IOFailure, IOResult, IOSuccess
from returns.primitives.container import BaseContainer
from returns.result import Failure, Result, Success
from typing_extensions import deprecated

from returns_pipeline._engine.tracebacks import shorten

__all__ = [
    "FUTURE_RESULTS",
    "LOST",
    "NO_TERMINAL",
    "AsyncResult",
    "AwaitedLost",
    "Lost",
    "ResultLike",
    "StepAwaitable",
    "StreamWithoutTerminal",
    "awaitable_of",
    "cases",
    "discard",
    "err",
    "failure_in",
    "failure_of",
    "future_result",
    "no_result",
    "ok",
    "outcome_of",
    "refuse_lost",
    "refuse_stream",
    "result_of",
    "to_result",
    "unpacked",
]

T = TypeVar("T")
E = TypeVar("E")
T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)


class ResultLike(Protocol[T_co, E_co]):
    """A `Result` by what its methods return, for the parameters of functions that take steps.

    Checkers read ``Success(1)`` as a ``Result[int, Any]``. In a lambda that ``Any`` would silently
    become the error type of a stream. But its method ``failure()`` returns ``Never``, so it is a
    ``ResultLike[int, Never]``. An ``IOResult`` or a ``Maybe`` is none.
    """

    @property
    def _trace(self) -> object: ...  # in a Result alone
    def unwrap(self) -> T_co: ...
    def failure(self) -> E_co: ...


class StreamWithoutTerminal:
    """The type that checkers see if a stream is used as an outcome: it has no methods."""


NO_TERMINAL: Final = "it has no outcome of its own: end it in collect(), run(), for_each(), ..."


class StepAwaitable(Protocol[T_co]):
    """An ``Awaitable`` that may be the outcome of a step: any, except a `ResultStream`.

    A `ResultStream` can be awaited, too, but to its last item alone. For type checkers its
    ``__await__`` takes what no event loop sends, so that it is not accepted here.
    """

    def __await__(self) -> Generator[Any, None, T_co]: ...


AsyncResult: TypeAlias = FutureResult[T, E] | StepAwaitable[Result[T, E]]
"""What an asynchronous step returns: a `FutureResult`, or a coroutine of a `Result`."""

Lost: TypeAlias = Result[Any, Any] | IOResult[Any, Any] | Awaitable[Any]
"""What no function may return whose result is ignored: a failure, or work that would not run."""

AwaitedLost: TypeAlias = FutureResult[Any, Any] | Awaitable[Result[Any, Any] | IOResult[Any, Any]]
"""The same for one that is awaited."""


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
    """Return a `Success` that cannot be a failure: in a lambda, ``Success(value)`` could be any.

    >>> ok(1)
    <Success: 1>
    """
    return Success(value)


def err(error: E) -> Result[Never, E]:
    """Return a `Failure` that cannot be a success: in a lambda, ``Failure(error)`` could be any.

    >>> err("no")
    <Failure: no>
    """
    return Failure(error)


def refuse_lost(given: object, step: object, use: str) -> None:
    """Refuse a result that would be ignored, though it may be a failure or was never awaited.

    Args:
        given: What the step returned.
        step: The step, for the message.
        use: What takes such a step.

    Raises:
        TypeError: It is a Result, a `FutureResult` or a coroutine.
    """
    if given.__class__ in LOST:
        discard(given)
        kind = type(given).__name__.removeprefix("_")
        raise TypeError(f"{step} returned a {kind}, which would be ignored: use {use}")


def failure_in(given: object) -> Failure[Any] | None:
    """Return the failure that a step returned, plain or awaited, if it returned one."""
    if given.__class__ in _RESULTS:
        inner: Any = unpacked(given)
        if inner.__class__ is Failure:
            failure: Failure[Any] = inner
            return failure
    return None


async def failure_of(given: object) -> Failure[Any] | None:
    """Return the failure that a function for effects returned, plain or awaited, if it did."""
    if inspect.isawaitable(given):
        refuse_stream(given, "a function returned")
        given = await given
        # A coroutine function may return what it has not awaited: else that would never run.
        while given.__class__ in _UNAWAITED:
            given = await cast("Awaitable[object]", given)
    return failure_in(given)


@overload
@deprecated("a stream has no outcome of its own: end it in collect(), run(), for_each(), ...")
def to_result(step: BaseStream[Any]) -> StreamWithoutTerminal: ...
@overload
def to_result(step: AsyncResult[T, E]) -> Coroutine[Any, Any, Result[T, E]]: ...
def to_result(step: AsyncResult[Any, Any]) -> Any:
    """Await a step of either form, and return its `Result`.

    Awaiting a `FutureResult` returns an ``IOResult``, whose public unpacking is typed ``Never``.

    Raises:
        TypeError: At the call, if it is a stream, which has no outcome before one of its terminals
            is called. When awaited, if the step returned something else.

    >>> from aiostream import stream
    >>> from returns_pipeline import ResultStream
    >>> from returns_pipeline.testing import run
    >>> run(to_result(ResultStream.of(stream.range(3)).collect()))
    <Success: [0, 1, 2]>
    """
    refuse_stream(step, "to_result() was given")
    return outcome_of(step)


async def outcome_of(step: AsyncResult[T, E]) -> Result[T, E]:
    """Do as `to_result`, which users call."""
    return result_of(await awaitable_of(step))


def refuse_stream(step: object, what: str) -> None:
    """Refuse a stream in the place of a step: awaiting it would return only its last item.

    Raises:
        TypeError: It is a stream.
    """
    if isinstance(step, BaseStream):
        kind = type(cast("object", step)).__name__
        raise TypeError(f"{what} a {kind}: {NO_TERMINAL}")


def awaitable_of(
    step: AsyncResult[T, E],
) -> Awaitable[IOResult[T, E] | Result[T, E]]:
    """Return the awaitable for the outcome of a step; `result_of` then takes its result.

    A `FutureResult` would wrap its Result in an ``IOResult``, which would be unwrapped again here.

    Raises:
        TypeError: It is a stream, or cannot be awaited.
    """
    given: Any = step  # `cast` costs as much as a third of this function
    kind: object = given.__class__
    if kind is _FutureResult or kind is FutureResult:
        given = given._inner_value
    elif kind is not CoroutineType:
        refuse_stream(step, "a step returned")
        if not hasattr(step, "__await__"):
            raise TypeError(f"a step returned {step!r}, which is not awaited: make it an async def")
    found: Awaitable[Result[T, E]] = given
    return found


def result_of(given: IOResult[T, E] | Result[T, E]) -> Result[T, E]:
    """Return the `Result` in the awaited outcome of a step of either form.

    Raises:
        TypeError: It is something else.
    """
    kind = given.__class__  # both are final, and asking an abstract class costs more than the rest
    if kind is Success or kind is Failure:
        plain: Any = given
        found: Result[T, E] = plain
        return found
    inner = unpacked(given)
    if isinstance(inner, Success | Failure):
        return cast("Result[T, E]", inner)
    raise no_result("a step", given)


def no_result(step: str, given: object) -> TypeError:
    """Return an error for a step that returned no Result."""
    text = f"{step} returned {given!r} and no Result"
    if not isinstance(given, BaseContainer):
        text += f": did it mean Success({given!r})?"
    return TypeError(text)


def unpacked(given: object) -> object:
    """Return the `Result` inside an ``IOResult``, and anything else as it is."""
    if isinstance(given, IOResult):
        return cast("object", given._inner_value)  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
    return given


def discard(step: object) -> None:
    """Close a coroutine that will not be run, so that Python does not warn about it."""
    if isinstance(step, _FutureResult):
        step._work.close()  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
        return
    inner: object = getattr(step, "_inner_value", step)  # of a FutureResult,
    inner = getattr(inner, "_coro", inner)  # which keeps it in a ReAwaitable
    if inspect.iscoroutine(inner):
        inner.close()


def future_result(work: Coroutine[Any, Any, Result[T, E]], /) -> FutureResult[T, E]:
    """Return ``FutureResult(work)``, at half the cost of making and awaiting one.

    Like any other it can be awaited again, to an ``IOResult``, and combined by its methods.
    """
    made: _FutureResult[T, E] = _new(_FutureResult)
    _set_work(made, work)
    _set_result(made, None)
    return made


class _FutureResult(FutureResult[T, E]):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    """A `FutureResult` that keeps its outcome itself.

    The class is final, so that its behaviour does not change. This one does not change it: it has
    one coroutine in place of two, and makes no second Result. `__repr__` omits the underscore.
    """

    __slots__ = ("_result", "_work")

    _work: Coroutine[Any, Any, Result[T, E]]
    _result: Result[T, E] | None

    @property
    def _inner_value(self) -> Awaitable[Result[T, E]]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """The awaitable on which the methods build: it returns the Result any number of times."""
        return _Again(self)

    async def settle(self) -> Result[T, E]:
        """Await the work, once, and keep its Result."""
        result = self._result
        if result is None:
            try:
                result = await self._work
            except Exception as error:
                shorten(error)
                raise
            _set_result(self, result)
        return result

    async def awaitable(self) -> IOResult[T, E]:
        """Do what ``await`` does, as a coroutine."""
        result = self._result
        if result is None:
            try:
                result = await self._work
            except Exception as error:
                shorten(error)
                raise
            _set_result(self, result)
        # As IOResult.from_result() does, which would make a second Result.
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


# Containers are immutable, also for their own methods: their slots are set from outside.
_new: Callable[[type], Any] = object.__new__
_set_work: Callable[[object, object], None] = vars(_FutureResult)["_work"].__set__
_set_result: Callable[[object, object], None] = vars(_FutureResult)["_result"].__set__
_set_inner: Callable[[object, object], None] = vars(BaseContainer)["_inner_value"].__set__

FUTURE_RESULTS: Final[frozenset[type]] = frozenset({FutureResult, _FutureResult})
"""The classes of `FutureResult`, whose ``_inner_value`` is awaited to the Result."""

# By class: they are final, and asking an abstract class takes a microsecond.
_RESULTS: frozenset[type] = FUTURE_RESULTS | {Success, Failure, IOSuccess, IOFailure}
_UNAWAITED: Final[frozenset[type]] = FUTURE_RESULTS | {CoroutineType}
LOST: frozenset[type] = _RESULTS | {CoroutineType}
"""Classes whose objects `refuse_lost` refuses, for a loop that cannot afford the call."""
