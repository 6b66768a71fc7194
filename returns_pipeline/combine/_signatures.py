"""The signatures of the operators over several streams, for type checkers and editors.

Python cannot spell "the union of what each of these has", so the first few numbers of sources are
spelled out; more than that have to agree in one type.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any, Literal, TypeVar, overload

from aiostream import Stream
from returns.future import FutureResult
from returns.result import Result

from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.fan_in import BUFFER
from returns_pipeline._engine.operator import Operator
from returns_pipeline.combine._worker import KeyFailed
from returns_pipeline.context import StepContext

__all__ = ["JoinOperator", "RouteOperator"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
H = TypeVar("H")
K = TypeVar("K")
T = TypeVar("T")
U = TypeVar("U")


class JoinOperator(Operator):
    """Sources to a stream, with the union of their items."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.__doc__ = type(self).raw.__doc__  # one for all overloads, where the work is done

    # Results first: mypy would join a union of them, where it has to read one type from it.
    @overload
    def __call__(
        self,
        a: AsyncIterable[Result[A, E]],
        b: AsyncIterable[Result[B, F]],
        /,
        *,
        buffer: int = BUFFER,
    ) -> Stream[Result[A | B, E | F]]: ...
    @overload
    def __call__(
        self,
        a: AsyncIterable[Result[A, E]],
        b: AsyncIterable[Result[B, F]],
        c: AsyncIterable[Result[C, G]],
        /,
        *,
        buffer: int = BUFFER,
    ) -> Stream[Result[A | B | C, E | F | G]]: ...
    @overload
    def __call__(
        self,
        a: AsyncIterable[Result[A, E]],
        b: AsyncIterable[Result[B, F]],
        c: AsyncIterable[Result[C, G]],
        d: AsyncIterable[Result[D, H]],
        /,
        *,
        buffer: int = BUFFER,
    ) -> Stream[Result[A | B | C | D, E | F | G | H]]: ...
    @overload
    def __call__(self, a: AsyncIterable[A], /, *, buffer: int = BUFFER) -> Stream[A]: ...
    @overload
    def __call__(
        self, a: AsyncIterable[A], b: AsyncIterable[B], /, *, buffer: int = BUFFER
    ) -> Stream[A | B]: ...
    @overload
    def __call__(
        self,
        a: AsyncIterable[A],
        b: AsyncIterable[B],
        c: AsyncIterable[C],
        /,
        *,
        buffer: int = BUFFER,
    ) -> Stream[A | B | C]: ...
    @overload
    def __call__(
        self,
        a: AsyncIterable[A],
        b: AsyncIterable[B],
        c: AsyncIterable[C],
        d: AsyncIterable[D],
        /,
        *,
        buffer: int = BUFFER,
    ) -> Stream[A | B | C | D]: ...
    @overload
    def __call__(
        self,
        a: AsyncIterable[A],
        b: AsyncIterable[B],
        c: AsyncIterable[C],
        d: AsyncIterable[D],
        e: AsyncIterable[E],
        /,
        *,
        buffer: int = BUFFER,
    ) -> Stream[A | B | C | D | E]: ...
    @overload
    def __call__(self, *sources: AsyncIterable[T], buffer: int = BUFFER) -> Stream[T]: ...
    def __call__(self, *sources: AsyncIterable[Any], buffer: int = BUFFER) -> Stream[Any]:
        return self._stream(*sources, buffer=buffer)

    @overload
    def pipe(self, *, buffer: int = BUFFER) -> Callable[[AsyncIterable[A]], Stream[A]]: ...
    @overload
    def pipe(
        self, b: AsyncIterable[B], /, *, buffer: int = BUFFER
    ) -> Callable[[AsyncIterable[A]], Stream[A | B]]: ...
    @overload
    def pipe(
        self, b: AsyncIterable[B], c: AsyncIterable[C], /, *, buffer: int = BUFFER
    ) -> Callable[[AsyncIterable[A]], Stream[A | B | C]]: ...
    @overload
    def pipe(
        self,
        b: AsyncIterable[B],
        c: AsyncIterable[C],
        d: AsyncIterable[D],
        /,
        *,
        buffer: int = BUFFER,
    ) -> Callable[[AsyncIterable[A]], Stream[A | B | C | D]]: ...
    @overload
    def pipe(
        self,
        b: AsyncIterable[B],
        c: AsyncIterable[C],
        d: AsyncIterable[D],
        e: AsyncIterable[E],
        /,
        *,
        buffer: int = BUFFER,
    ) -> Callable[[AsyncIterable[A]], Stream[A | B | C | D | E]]: ...
    @overload
    def pipe(
        self, *more: AsyncIterable[T], buffer: int = BUFFER
    ) -> Callable[[AsyncIterable[A]], Stream[A | T]]: ...
    def pipe(
        self, *more: AsyncIterable[Any], buffer: int = BUFFER
    ) -> Callable[[AsyncIterable[Any]], Stream[Any]]:
        return self._piped(*more, buffer=buffer)


class RouteOperator(Operator):
    """A source, the key of its items, and a worker, to a stream of what the workers emit."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.__doc__ = type(self).raw.__doc__  # one for all overloads, where the work is done

    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], FutureResult[U, F]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: Seconds = math.inf,
        failing: Literal["raise"] = "raise",
    ) -> Stream[Result[U, F]]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], FutureResult[U, F]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: Seconds = math.inf,
        failing: Literal["isolate"],
    ) -> Stream[Result[U, F] | KeyFailed[K, T]]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], AsyncIterable[U] | Awaitable[U]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: Seconds = math.inf,
        failing: Literal["raise"] = "raise",
    ) -> Stream[U]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], AsyncIterable[U] | Awaitable[U]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: Seconds = math.inf,
        failing: Literal["isolate"],
    ) -> Stream[U | KeyFailed[K, T]]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[
            [K, AsyncIterator[T], StepContext], FutureResult[U, F] | Awaitable[Result[U, F]]
        ],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: Seconds = math.inf,
        failing: Literal["raise"] = "raise",
        ctx: StepContext,
        hold: bool = False,
    ) -> Stream[Result[U, F]]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[
            [K, AsyncIterator[T], StepContext], FutureResult[U, F] | Awaitable[Result[U, F]]
        ],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: Seconds = math.inf,
        failing: Literal["isolate"],
        ctx: StepContext,
        hold: bool = False,
    ) -> Stream[Result[U, F] | KeyFailed[K, T]]: ...
    def __call__(
        self,
        source: AsyncIterable[Any],
        /,
        key: Callable[[Any], Any],
        worker: Callable[..., Any],
        **options: Any,
    ) -> Stream[Any]:
        return self._stream(source, key, worker, **options)

    @overload
    def pipe(
        self,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], FutureResult[U, F]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: Seconds = math.inf,
        failing: Literal["raise"] = "raise",
    ) -> Callable[[AsyncIterable[T]], Stream[Result[U, F]]]: ...
    @overload
    def pipe(
        self,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], FutureResult[U, F]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: Seconds = math.inf,
        failing: Literal["isolate"],
    ) -> Callable[[AsyncIterable[T]], Stream[Result[U, F] | KeyFailed[K, T]]]: ...
    @overload
    def pipe(
        self,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], AsyncIterable[U] | Awaitable[U]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: Seconds = math.inf,
        failing: Literal["raise"] = "raise",
    ) -> Callable[[AsyncIterable[T]], Stream[U]]: ...
    @overload
    def pipe(
        self,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], AsyncIterable[U] | Awaitable[U]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: Seconds = math.inf,
        failing: Literal["isolate"],
    ) -> Callable[[AsyncIterable[T]], Stream[U | KeyFailed[K, T]]]: ...
    @overload
    def pipe(
        self,
        key: Callable[[T], K],
        worker: Callable[
            [K, AsyncIterator[T], StepContext], FutureResult[U, F] | Awaitable[Result[U, F]]
        ],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: Seconds = math.inf,
        failing: Literal["raise"] = "raise",
        ctx: StepContext,
        hold: bool = False,
    ) -> Callable[[AsyncIterable[T]], Stream[Result[U, F]]]: ...
    @overload
    def pipe(
        self,
        key: Callable[[T], K],
        worker: Callable[
            [K, AsyncIterator[T], StepContext], FutureResult[U, F] | Awaitable[Result[U, F]]
        ],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: Seconds = math.inf,
        failing: Literal["isolate"],
        ctx: StepContext,
        hold: bool = False,
    ) -> Callable[[AsyncIterable[T]], Stream[Result[U, F] | KeyFailed[K, T]]]: ...
    def pipe(
        self, key: Callable[[Any], Any], worker: Callable[..., Any], **options: Any
    ) -> Callable[[AsyncIterable[Any]], Stream[Any]]:
        return self._piped(key, worker, **options)
