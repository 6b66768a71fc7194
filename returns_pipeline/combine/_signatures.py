"""What the operators over several streams take and give, for type checkers.

Python cannot say "the union of what each of these has", so the first few numbers of sources are
spelled out; more than that have to agree in one type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar, overload

from returns_pipeline._engine.fan_in import BUFFER

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

    from aiostream import Stream
    from returns.result import Result

__all__ = [
    "JoinCall",
    "JoinPipe",
    "JoinRaw",
    "PrioritizedCall",
    "PrioritizedRaw",
    "ZipCall",
    "ZipPipe",
    "ZipRaw",
]

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


class JoinCall(Protocol):
    """Sources to a stream, with the union of their items."""

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


class JoinRaw(Protocol):
    """The same, to the bare iterator."""

    @overload
    def __call__(self, a: AsyncIterable[A], /, *, buffer: int = BUFFER) -> AsyncIterator[A]: ...
    @overload
    def __call__(
        self, a: AsyncIterable[A], b: AsyncIterable[B], /, *, buffer: int = BUFFER
    ) -> AsyncIterator[A | B]: ...
    @overload
    def __call__(
        self,
        a: AsyncIterable[A],
        b: AsyncIterable[B],
        c: AsyncIterable[C],
        /,
        *,
        buffer: int = BUFFER,
    ) -> AsyncIterator[A | B | C]: ...
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
    ) -> AsyncIterator[A | B | C | D]: ...
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
    ) -> AsyncIterator[A | B | C | D | E]: ...
    @overload
    def __call__(self, *sources: AsyncIterable[T], buffer: int = BUFFER) -> AsyncIterator[T]: ...


class JoinPipe(Protocol):
    """The same, the first source coming through ``|``."""

    @overload
    def __call__(self, *, buffer: int = BUFFER) -> Callable[[AsyncIterable[A]], Stream[A]]: ...
    @overload
    def __call__(
        self, b: AsyncIterable[B], /, *, buffer: int = BUFFER
    ) -> Callable[[AsyncIterable[A]], Stream[A | B]]: ...
    @overload
    def __call__(
        self, b: AsyncIterable[B], c: AsyncIterable[C], /, *, buffer: int = BUFFER
    ) -> Callable[[AsyncIterable[A]], Stream[A | B | C]]: ...
    @overload
    def __call__(
        self,
        b: AsyncIterable[B],
        c: AsyncIterable[C],
        d: AsyncIterable[D],
        /,
        *,
        buffer: int = BUFFER,
    ) -> Callable[[AsyncIterable[A]], Stream[A | B | C | D]]: ...
    @overload
    def __call__(
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
    def __call__(
        self, *more: AsyncIterable[T], buffer: int = BUFFER
    ) -> Callable[[AsyncIterable[A]], Stream[A | T]]: ...


class ZipCall(Protocol):
    """Streams of Results to a stream of Results of tuples."""

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


class ZipRaw(Protocol):
    """The same, to the bare iterator."""

    @overload
    def __call__(
        self, a: AsyncIterable[Result[A, E1]], /, *, strict: bool = False
    ) -> AsyncIterator[Result[tuple[A], E1]]: ...
    @overload
    def __call__(
        self,
        a: AsyncIterable[Result[A, E1]],
        b: AsyncIterable[Result[B, E2]],
        /,
        *,
        strict: bool = False,
    ) -> AsyncIterator[Result[tuple[A, B], E1 | E2]]: ...
    @overload
    def __call__(
        self,
        a: AsyncIterable[Result[A, E1]],
        b: AsyncIterable[Result[B, E2]],
        c: AsyncIterable[Result[C, E3]],
        /,
        *,
        strict: bool = False,
    ) -> AsyncIterator[Result[tuple[A, B, C], E1 | E2 | E3]]: ...
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
    ) -> AsyncIterator[Result[tuple[A, B, C, D], E1 | E2 | E3 | E4]]: ...
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
    ) -> AsyncIterator[Result[tuple[A, B, C, D, E], E1 | E2 | E3 | E4 | E5]]: ...
    @overload
    def __call__(
        self, *sources: AsyncIterable[Result[T, E]], strict: bool = False
    ) -> AsyncIterator[Result[tuple[T, ...], E]]: ...


class ZipPipe(Protocol):
    """The same, the first source coming through ``|``."""

    @overload
    def __call__(
        self, b: AsyncIterable[Result[B, E2]], /, *, strict: bool = False
    ) -> Callable[[AsyncIterable[Result[A, E1]]], Stream[Result[tuple[A, B], E1 | E2]]]: ...
    @overload
    def __call__(
        self,
        b: AsyncIterable[Result[B, E2]],
        c: AsyncIterable[Result[C, E3]],
        /,
        *,
        strict: bool = False,
    ) -> Callable[[AsyncIterable[Result[A, E1]]], Stream[Result[tuple[A, B, C], E1 | E2 | E3]]]: ...
    @overload
    def __call__(
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
    def __call__(
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
    def __call__(
        self, *more: AsyncIterable[Result[T, E]], strict: bool = False
    ) -> Callable[[AsyncIterable[Result[T, E]]], Stream[Result[tuple[T, ...], E]]]: ...


class PrioritizedCall(Protocol):
    """Pairs of a priority and a source to a stream."""

    @overload
    def __call__(
        self,
        a: tuple[float, AsyncIterable[A]],
        b: tuple[float, AsyncIterable[B]],
        /,
        *,
        starvation_limit: int | None = 32,
        buffer: int = BUFFER,
    ) -> Stream[A | B]: ...
    @overload
    def __call__(
        self,
        a: tuple[float, AsyncIterable[A]],
        b: tuple[float, AsyncIterable[B]],
        c: tuple[float, AsyncIterable[C]],
        /,
        *,
        starvation_limit: int | None = 32,
        buffer: int = BUFFER,
    ) -> Stream[A | B | C]: ...
    @overload
    def __call__(
        self,
        *sources: tuple[float, AsyncIterable[T]],
        starvation_limit: int | None = 32,
        buffer: int = BUFFER,
    ) -> Stream[T]: ...


class PrioritizedRaw(Protocol):
    """The same, to the bare iterator."""

    def __call__(
        self,
        *sources: tuple[float, AsyncIterable[T]],
        starvation_limit: int | None = 32,
        buffer: int = BUFFER,
    ) -> AsyncIterator[T]: ...
