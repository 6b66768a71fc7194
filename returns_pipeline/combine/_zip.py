"""`zip_results`: combines the items that have the same number."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any, Final, Generic, TypeVar, overload

from aiostream import Stream
from returns.result import Failure, Result, Success

from returns_pipeline._engine.fan_in import BUFFER, FanIn, Input, MarkedFanIn
from returns_pipeline._engine.operator import Operator
from returns_pipeline._engine.reader import Reader
from returns_pipeline.errors import UnevenSources

__all__ = ["MarkedZipPump", "ZipPump", "zip_results"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
E1 = TypeVar("E1")
E2 = TypeVar("E2")
E3 = TypeVar("E3")
E4 = TypeVar("E4")
E5 = TypeVar("E5")
T = TypeVar("T")
U = TypeVar("U")


class _ZipResults(Operator):
    @overload
    def __call__(
        self, a: AsyncIterable[Result[A, E1]], /, *, strict: bool = False
    ) -> Stream[Result[tuple[A], E1]]: ...
    @overload
    def __call__(
        self,
        a: AsyncIterable[Result[A, E1]],
        b: AsyncIterable[Result[B, E2]],
        /,
        *,
        strict: bool = False,
    ) -> Stream[Result[tuple[A, B], E1 | E2]]: ...
    @overload
    def __call__(
        self,
        a: AsyncIterable[Result[A, E1]],
        b: AsyncIterable[Result[B, E2]],
        c: AsyncIterable[Result[C, E3]],
        /,
        *,
        strict: bool = False,
    ) -> Stream[Result[tuple[A, B, C], E1 | E2 | E3]]: ...
    @overload
    def __call__(
        self,
        a: AsyncIterable[Result[A, E1]],
        b: AsyncIterable[Result[B, E2]],
        c: AsyncIterable[Result[C, E3]],
        d: AsyncIterable[Result[D, E4]],
        /,
        *,
        strict: bool = False,
    ) -> Stream[Result[tuple[A, B, C, D], E1 | E2 | E3 | E4]]: ...
    @overload
    def __call__(
        self,
        a: AsyncIterable[Result[A, E1]],
        b: AsyncIterable[Result[B, E2]],
        c: AsyncIterable[Result[C, E3]],
        d: AsyncIterable[Result[D, E4]],
        e: AsyncIterable[Result[E, E5]],
        /,
        *,
        strict: bool = False,
    ) -> Stream[Result[tuple[A, B, C, D, E], E1 | E2 | E3 | E4 | E5]]: ...
    @overload
    def __call__(
        self, *sources: AsyncIterable[Result[T, E]], strict: bool = False
    ) -> Stream[Result[tuple[T, ...], E]]: ...
    def __call__(
        self, *sources: AsyncIterable[Result[Any, Any]], strict: bool = False
    ) -> Stream[Result[Any, Any]]:
        """Combine the first items of several streams of Results, then the second, and so on.

        1. A tuple is emitted when each source has an item: a `Success` of the values if all of them
           are, else the failure that comes first by the order of the sources.
        2. The stream ends when a source has ended and all its items are emitted. The other sources
           are then stopped, and the items that were read from them are dropped. With ``strict``,
           they must have ended as well: else `UnevenSources` is raised.

        A failure takes its place in a tuple like a value: items with the same number stay together.

        Backpressure: at most 128 items of each source are held, counted like those of `merge`.

        Order of events, errors and cancel safety: as `merge`.

        Known elsewhere as: ``zip`` (Rx, fs2, Akka and Pekko, Effect, tokio-stream).

        Args:
            sources: Streams of Results; their values' types become the tuple's, their errors' a
                union.
            strict: Whether sources of different lengths are an error.

        Returns:
            A stream of Results of tuples.

        Raises:
            TypeError: At the call, if a source is not an async iterable; from a read, if an item is
                neither a Success nor a Failure.
            UnevenSources: After the last tuple, if ``strict`` and a source has more items.
            Exception: Any exception of a source, after the tuples that could still be made.

        >>> from returns.result import Failure, Success
        >>> from returns_pipeline.testing import run, timed, timeline
        >>> s = timed(Success(5), Failure("no price"), Success(7))
        >>> done = zip_results(s, timed(Success("a"), Success("b")))
        >>> run(timeline(done))
        [(0.0, <Success: (5, 'a')>), (0.0, <Failure: no price>)]
        """
        return self._stream(*sources, strict=strict)

    @overload
    def pipe(
        self, b: AsyncIterable[Result[B, E2]], /, *, strict: bool = False
    ) -> Callable[[AsyncIterable[Result[A, E1]]], Stream[Result[tuple[A, B], E1 | E2]]]: ...
    @overload
    def pipe(
        self,
        b: AsyncIterable[Result[B, E2]],
        c: AsyncIterable[Result[C, E3]],
        /,
        *,
        strict: bool = False,
    ) -> Callable[[AsyncIterable[Result[A, E1]]], Stream[Result[tuple[A, B, C], E1 | E2 | E3]]]: ...
    @overload
    def pipe(
        self,
        b: AsyncIterable[Result[B, E2]],
        c: AsyncIterable[Result[C, E3]],
        d: AsyncIterable[Result[D, E4]],
        /,
        *,
        strict: bool = False,
    ) -> Callable[
        [AsyncIterable[Result[A, E1]]], Stream[Result[tuple[A, B, C, D], E1 | E2 | E3 | E4]]
    ]: ...
    @overload
    def pipe(
        self,
        b: AsyncIterable[Result[B, E2]],
        c: AsyncIterable[Result[C, E3]],
        d: AsyncIterable[Result[D, E4]],
        e: AsyncIterable[Result[E, E5]],
        /,
        *,
        strict: bool = False,
    ) -> Callable[
        [AsyncIterable[Result[A, E1]]], Stream[Result[tuple[A, B, C, D, E], E1 | E2 | E3 | E4 | E5]]
    ]: ...
    @overload
    def pipe(
        self, *more: AsyncIterable[Result[T, E]], strict: bool = False
    ) -> Callable[[AsyncIterable[Result[T, E]]], Stream[Result[tuple[T, ...], E]]]: ...
    def pipe(
        self, *more: AsyncIterable[Result[Any, Any]], strict: bool = False
    ) -> Callable[[AsyncIterable[Any]], Stream[Any]]:
        return self._piped(*more, strict=strict)

    def raw(self, *sources: AsyncIterable[Any], strict: bool = False) -> AsyncIterator[Any]:
        pump: ZipPump[Any, Any] = ZipPump(sources, _combined, strict=strict)
        return Reader(pump)


zip_results: Final = _ZipResults("returns_pipeline.combine.zip_results")
"""Combine the first items of several streams of Results, then the second, and so on."""


def _combined(results: list[Any]) -> Result[tuple[Any, ...], Any]:
    values: list[Any] = []
    for result in results:
        if isinstance(result, Success):
            values.append(result.unwrap())
        elif isinstance(result, Failure):
            return result  # pyright: ignore[reportUnknownVariableType]  # of an item that is Any
        else:
            raise TypeError(f"expected a Success or a Failure, not {result!r}")
    return Success(tuple(values))


class ZipPump(FanIn[T, U], Generic[T, U]):
    """Takes one item of each input, and emits ``combine`` of them."""

    def __init__(
        self,
        sources: Iterable[AsyncIterable[T]],
        combine: Callable[[list[T]], U],
        *,
        strict: bool,
    ) -> None:
        super().__init__(sources, BUFFER)
        self._combine = combine
        self._strict = strict

    def has_next(self) -> bool:
        """Return whether each input has an item."""
        return bool(self.inputs) and all(input_.items for input_ in self.inputs)

    def take(self) -> U:
        """Take an item of each."""
        taken = [input_.pop() for input_ in self.inputs]
        self._check_lengths()
        try:
            return self._combine(taken)
        except BaseException:
            self.discard()
            self.finish()  # like a generator that has raised, it emits nothing after that
            raise

    def on_item(self, input_: Input[T]) -> None:  # noqa: ARG002
        """End the stream if another source ended before this item."""
        if self._strict:
            self._check_lengths()

    def on_end(self, input_: Input[T]) -> None:  # noqa: ARG002
        """End the stream if the last tuple was emitted."""
        self._check_lengths()

    def _check_lengths(self) -> None:
        """End the stream if no other tuple is possible."""
        ended = [input_.index for input_ in self.inputs if input_.ended and not input_.items]
        if self.stopping or not ended:
            return
        if not self._strict:
            self.finish()
        elif any(input_.items for input_ in self.inputs):
            self.finish(UnevenSources(tuple(ended)))


class MarkedZipPump(MarkedFanIn, ZipPump[Any, Any]):
    """Emits a mark of a source when all items that came before it have been combined."""
