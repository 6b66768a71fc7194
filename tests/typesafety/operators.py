# mypy: disable-error-code="unused-awaitable"
"""Never run. An operator of one's own keeps its types, type variables among them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING, TypeVar, assert_type

from aiostream import Stream, streamcontext

from returns_pipeline import chunks_or_timeout
from returns_pipeline._engine.operator import Operator, operator

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@operator
async def pairs(source: AsyncIterable[T], fill: T) -> AsyncIterator[tuple[T, T]]:
    async with streamcontext(source) as items:
        async for item in items:
            yield item, fill


class Halves:
    @property
    def op(self) -> Operator[Callable[[AsyncIterable[int]], Stream[float]], None, None]:
        raise NotImplementedError


def own(ints: Stream[int], words: AsyncIterable[str], halves: Halves) -> None:
    """In the call, behind ``|`` and raw."""
    assert_type(pairs(ints, 0), Stream[tuple[int, int]])
    assert_type(pairs(words, "-"), Stream[tuple[str, str]])
    assert_type(ints | pairs.pipe(0), Stream[tuple[int, int]])
    assert_type(pairs.raw(words, "-"), AsyncIterator[tuple[str, str]])
    assert_type(halves.op(ints), Stream[float])
    pairs(ints)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pairs([1], 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    _ = ints | pairs.pipe()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    halves.op(words)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    operator(len)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Operator(pairs)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def windows(ints: Stream[int], words: AsyncIterable[str]) -> None:
    """A window is a list of what came in."""
    assert_type(chunks_or_timeout(ints, 500, 2.0), Stream[list[int]])
    assert_type(chunks_or_timeout(words, n=500, timeout=2), Stream[list[str]])
    assert_type(ints | chunks_or_timeout.pipe(500, 2.0), Stream[list[int]])
    assert_type(chunks_or_timeout.raw(words, 500, 2.0), AsyncIterator[list[str]])
    chunks_or_timeout([1], 500, 2.0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chunks_or_timeout(ints, 500)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    chunks_or_timeout(ints, 0.5, 2.0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chunks_or_timeout.pipe(ints, 500, 2.0)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
