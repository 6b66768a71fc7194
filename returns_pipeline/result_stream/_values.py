"""The steps of a `ResultStream` that work on its values; failures pass them untouched."""

# See _chained.
# pyright: reportImportCycles=false

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from returns.result import Success
from typing_extensions import TypeIs, deprecated

from returns_pipeline._engine import checks, steps
from returns_pipeline._engine.future_results import Lost, ResultLike
from returns_pipeline._engine.written import written
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.result_stream._chained import Chained

if TYPE_CHECKING:
    from returns_pipeline.result_stream import ResultStream

__all__ = ["ValueSteps", "check_exceptions"]

A = TypeVar("A")
F = TypeVar("F")
U = TypeVar("U")
T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)
X1 = TypeVar("X1", bound=Exception)
X2 = TypeVar("X2", bound=Exception)
X3 = TypeVar("X3", bound=Exception)
X4 = TypeVar("X4", bound=Exception)


class ValueSteps(Chained[T_co, E_co], Generic[T_co, E_co]):
    """Those of one value at a time."""

    @written
    def map(self, func: Callable[[T_co], U], /) -> ResultStream[U, E_co]:
        """Replace each value by ``func`` of it.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2, 3])).map(str).collect())
        <IOResult: <Success: ['1', '2', '3']>>
        """
        checks.function("map", func, use="map_async")
        return self._step(steps.MAP, func)

    @written
    def bind(self, func: Callable[[T_co], ResultLike[U, F]], /) -> ResultStream[U, E_co | F]:
        """Replace each value by the Result that ``func`` returns for it.

        Raises:
            TypeError: At the call, if ``func`` is a coroutine function. While reading, if it
                returns no Result; the error names it, and its place in the chain.

        >>> from returns_pipeline import ResultStream, err, ok
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> s = ResultStream.of(from_iterable([1, 2, 3]))
        >>> run(s.bind(lambda n: ok(n) if n > 1 else err("too few")).partition())
        <IO: ([2, 3], ['too few'])>
        """
        checks.function("bind", func, use="bind_async")
        return self._step(steps.BIND, func, self._place("bind", func))

    # Mypy names the first overload when none fits: not the narrowing one, which few have in mind.
    @overload
    def filter(self, predicate: Callable[[T_co], Literal[True]], /) -> ResultStream[T_co, E_co]: ...
    @overload
    def filter(self, predicate: Callable[[T_co], TypeIs[U]], /) -> ResultStream[U, E_co]: ...
    @overload
    def filter(self, predicate: Callable[[T_co], bool], /) -> ResultStream[T_co, E_co]: ...
    @written
    def filter(self, predicate: Callable[[T_co], bool], /) -> ResultStream[Any, E_co]:
        """Keep the values for which ``predicate`` is true, and every failure.

        A predicate that is typed as a ``TypeIs`` narrows the type of the values.

        Raises:
            TypeError: At the call, if ``predicate`` is a coroutine function. While reading, if it
                returns no ``bool``.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2, 3])).filter(lambda n: n > 1).collect())
        <IOResult: <Success: [2, 3]>>
        """
        checks.function("filter", predicate, use="bind_async")
        return self._step(steps.FILTER, predicate)

    @overload
    def ensure(
        self, predicate: Callable[[T_co], Literal[True]], /, error: Callable[[T_co], F]
    ) -> ResultStream[T_co, E_co | F]: ...
    @overload
    def ensure(
        self, predicate: Callable[[T_co], TypeIs[U]], /, error: Callable[[T_co], F]
    ) -> ResultStream[U, E_co | F]: ...
    @overload
    def ensure(
        self, predicate: Callable[[T_co], bool], /, error: Callable[[T_co], F]
    ) -> ResultStream[T_co, E_co | F]: ...
    @written
    def ensure(
        self, predicate: Callable[[T_co], bool], /, error: Callable[[T_co], F]
    ) -> ResultStream[Any, E_co | F]:
        """Turn the values for which ``predicate`` is false into a failure: ``error`` of them.

        A predicate that is typed as a ``TypeIs`` narrows the type of the values.

        Raises:
            TypeError: At the call, if a function is a coroutine function. While reading, if the
                predicate returns no ``bool``.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2, 3])).ensure(lambda n: n > 1, str).partition())
        <IO: ([2, 3], ['1'])>
        """
        checks.function("ensure", predicate, use="bind_async")
        checks.function("ensure", error, use="bind_async")
        return self._step(steps.ENSURE, predicate, error)

    @overload
    def tap(self, func: Callable[[T_co], None], /) -> ResultStream[T_co, E_co]: ...
    @overload
    @deprecated("its failure would be ignored: use tap_result() or tap_async()")
    def tap(self, func: Callable[[T_co], Lost], /) -> ResultStream[T_co, E_co]: ...
    @overload
    def tap(self, func: Callable[[T_co], object], /) -> ResultStream[T_co, E_co]: ...
    @written
    def tap(self, func: Callable[[T_co], object], /) -> ResultStream[T_co, E_co]:
        """Call ``func`` with each value for its effect; the item is unchanged.

        The effect cannot fail by value. What could is refused, because its failure would be lost:
        see `tap_result`.

        Raises:
            TypeError: At the call, if ``func`` is a coroutine function. While reading, if it
                returns a Result or a coroutine.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2, 3])).tap(print).run())
        1
        2
        3
        <IOResult: <Success: 3>>
        """
        checks.function("tap", func, use="tap_async")
        return self._step(steps.TAP, func, self._place("tap", func))

    @written
    def tap_result(
        self, func: Callable[[T_co], ResultLike[object, F]], /
    ) -> ResultStream[T_co, E_co | F]:
        """Call ``func`` with each value for an effect; its failure replaces the value.

        Raises:
            TypeError: As `bind`.

        >>> from returns_pipeline import ResultStream, err, ok
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> s = ResultStream.of(from_iterable([1, 2, 3]))
        >>> run(s.tap_result(lambda n: ok("saved") if n > 1 else err("lost")).partition())
        <IO: ([2, 3], ['lost'])>
        """
        checks.function("tap_result", func, use="tap_result_async")
        place = self._place("tap_result", func)

        def keep(value: Any) -> Any:
            made = func(value)
            return Success(value) if isinstance(made, Success) else made

        return self._step(steps.BIND, keep, place)

    @overload
    def attempt(self, func: Callable[[T_co], U], x1: type[X1], /) -> ResultStream[U, E_co | X1]: ...
    @overload
    def attempt(
        self, func: Callable[[T_co], U], x1: type[X1], x2: type[X2], /
    ) -> ResultStream[U, E_co | X1 | X2]: ...
    @overload
    def attempt(
        self, func: Callable[[T_co], U], x1: type[X1], x2: type[X2], x3: type[X3], /
    ) -> ResultStream[U, E_co | X1 | X2 | X3]: ...
    @overload
    def attempt(
        self,
        func: Callable[[T_co], U],
        x1: type[X1],
        x2: type[X2],
        x3: type[X3],
        /,
        *more: type[X4],
    ) -> ResultStream[U, E_co | X1 | X2 | X3 | X4]: ...
    @written
    def attempt(
        self, func: Callable[[T_co], U], /, *exceptions: type[Exception]
    ) -> ResultStream[U, Any]:
        """Replace each value by ``func`` of it; a listed exception becomes the failure.

        Others propagate.

        Raises:
            InvalidArgument: At the call, if no exception is listed.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> s = ResultStream.of(from_iterable(["1", "x"]))
        >>> run(s.attempt(int, ValueError).alt(type).partition())
        <IO: ([1], [<class 'ValueError'>])>
        """
        checks.function("attempt", func, use="attempt_async")
        check_exceptions(exceptions)
        return self._step(steps.ATTEMPT, func, exceptions)

    @written
    def scan(self, initial: A, func: Callable[[A, T_co], A], /) -> ResultStream[A, E_co]:
        """Replace each value by the fold so far, as `combine.scan`, but in the reader's own task.

        Like `map` it needs no task, reads nothing ahead, and is ended by a cancelled read unless a
        step before it is cancel-safe.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> s = ResultStream.of(from_iterable([1, 2, 3]))
        >>> run(s.scan(0, lambda total, n: total + n).collect())
        <IOResult: <Success: [1, 3, 6]>>
        """
        checks.function("scan", func, use="map_async")
        self._refuse_repeats("scan")
        from returns_pipeline.combine._transform import folding

        return self._stateful(lambda: (steps.MAP, folding(initial, func), None))

    @written
    def distinct_until_changed(
        self, key: Callable[[T_co], object] | None = None
    ) -> ResultStream[T_co, E_co]:
        """Drop values equal to the value before them, as `combine.distinct_until_changed`.

        In the reader's own task, like `scan`.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 1, 2])).distinct_until_changed().collect())
        <IOResult: <Success: [1, 2]>>
        """
        from returns_pipeline.combine._transform import differing

        checks.item_function("key", key, optional=True)
        return self._stateful(lambda: (steps.FILTER, differing(key), None))


def check_exceptions(exceptions: tuple[object, ...]) -> None:
    """Refuse an empty list of exceptions, and anything that is not an exception class."""
    if not exceptions:
        raise InvalidArgument("name at least one exception")
    for exception in exceptions:
        if not (isinstance(exception, type) and issubclass(exception, Exception)):
            raise InvalidArgument(f"expected an exception class, not {exception!r}")
