# mypy: disable-error-code="unused-awaitable"
"""Never run. An operator of one's own keeps its types, type variables among them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import TypeVar, assert_type

from aiostream import Stream

from returns_pipeline import chunks_or_timeout
from returns_pipeline._engine.operator import Operator

T = TypeVar("T")


class _Pairs(Operator):
    def __call__(self, source: AsyncIterable[T], fill: T) -> Stream[tuple[T, T]]:
        return self._stream(source, fill)

    def pipe(self, fill: T) -> Callable[[AsyncIterable[T]], Stream[tuple[T, T]]]:
        return self._piped(fill)

    def raw(self, source: AsyncIterable[T], fill: T) -> AsyncIterator[tuple[T, T]]:
        raise NotImplementedError


pairs = _Pairs("operators.pairs")


def own(ints: Stream[int], words: AsyncIterable[str]) -> None:
    """In the call, after ``|`` and raw."""
    assert_type(pairs(ints, 0), Stream[tuple[int, int]])
    assert_type(pairs(words, "-"), Stream[tuple[str, str]])
    assert_type(ints | pairs.pipe(0), Stream[tuple[int, int]])
    assert_type(pairs.raw(words, "-"), AsyncIterator[tuple[str, str]])
    pairs(ints)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pairs([1], 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    _ = ints | pairs.pipe()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Operator(pairs)  # type: ignore[abstract, arg-type]  # pyright: ignore[reportAbstractUsage, reportArgumentType]


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
