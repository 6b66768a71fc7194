# mypy: disable-error-code="unused-awaitable"
"""Never run. What mypy and pyright infer for streams that are put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, assert_type

from aiostream import Stream
from returns.result import Result

from returns_pipeline.combine import (
    TimedOut,
    concat,
    distinct_until_changed,
    merge,
    merge_prioritized,
    prefetch,
    scan,
    select,
    take_until,
    zip_results,
)
from returns_pipeline.errors import UnevenSources

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterable


def total(sofar: float, n: int) -> float:
    return sofar + n


def joined(
    ints: Stream[int], words: AsyncIterable[str], raw: AsyncIterator[bytes], flags: Stream[bool]
) -> None:
    """Sources of several types give the union of them."""
    assert_type(merge(ints), Stream[int])
    assert_type(merge(ints, ints), Stream[int])
    assert_type(merge(ints, words), Stream[int | str])
    assert_type(merge(ints, words, raw), Stream[int | str | bytes])
    assert_type(merge(ints, words, raw, flags), Stream[int | str | bytes | bool])
    assert_type(merge(ints, words, raw, flags, ints), Stream[int | str | bytes | bool])
    assert_type(merge(*[ints, ints], buffer=3), Stream[int])
    assert_type(merge.raw(ints, words), AsyncIterator[int | str])
    assert_type(ints | merge.pipe(words), Stream[int | str])
    assert_type(ints | merge.pipe(words, raw), Stream[int | str | bytes])
    assert_type(concat(ints, words), Stream[int | str])
    assert_type(ints | concat.pipe(words), Stream[int | str])
    assert_type(concat.raw(words, raw), AsyncIterator[str | bytes])
    merge(ints, [1])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    merge(ints, words, buffer="3")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    concat(1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def prioritized(ints: Stream[int], words: AsyncIterable[str]) -> None:
    """Each source has a number."""
    assert_type(merge_prioritized((1, ints), (0.5, words)), Stream[int | str])
    assert_type(merge_prioritized((1, ints), starvation_limit=None), Stream[int])
    assert_type(merge_prioritized.raw((1, ints), (2, ints)), AsyncIterator[int])
    merge_prioritized(ints, words)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    merge_prioritized(("high", ints))  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]


def selected(ints: Stream[int], more: Stream[int]) -> None:
    """There is a `TimedOut` only where there is a time-out."""
    assert_type(select({"a": ints, "b": more}), Stream[tuple[str, int]])
    assert_type(select({1: ints}, timeout=2.0), Stream[tuple[int, int] | TimedOut])
    assert_type(select.raw({1: ints}, timeout=2), AsyncIterator[tuple[int, int] | TimedOut])
    assert_type(TimedOut(2.0).after, float)
    select([ints])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    select({1: ints}, timeout="2")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    TimedOut("2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def zipped(
    left: Stream[Result[int, KeyError]],
    right: AsyncIterable[Result[str, OSError]],
    third: Stream[Result[bytes, ValueError]],
    plain: Stream[int],
) -> None:
    """The values stand in a tuple, the errors in a union."""
    assert_type(zip_results(left, right), Stream[Result[tuple[int, str], KeyError | OSError]])
    assert_type(
        zip_results(left, right, third, strict=True),
        Stream[Result[tuple[int, str, bytes], KeyError | OSError | ValueError]],
    )
    assert_type(left | zip_results.pipe(right), Stream[Result[tuple[int, str], KeyError | OSError]])
    assert_type(zip_results.raw(left, left), AsyncIterator[Result[tuple[int, int], KeyError]])
    assert_type(UnevenSources((0,)).ended, tuple[int, ...])
    zip_results(left, plain)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    UnevenSources(0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def relayed(ints: Stream[int], words: AsyncIterable[str], stop: asyncio.Event) -> None:
    """Lambdas infer in the calls."""
    assert_type(scan(ints, 0.5, lambda sofar, n: sofar + n), Stream[float])
    assert_type(scan(words, b"", lambda sofar, word: sofar + word.encode()), Stream[bytes])
    assert_type(ints | scan.pipe(0.5, total), Stream[float])
    assert_type(scan.raw(ints, 0.5, total), AsyncIterator[float])
    assert_type(distinct_until_changed(words, lambda word: word.lower()), Stream[str])
    assert_type(distinct_until_changed.raw(ints), AsyncIterator[int])
    assert_type(ints | distinct_until_changed.pipe(), Stream[int])
    assert_type(prefetch(words, 3), Stream[str])
    assert_type(ints | prefetch.pipe(n=3), Stream[int])
    assert_type(take_until(ints, stop), Stream[int])
    assert_type(take_until(words, ints), Stream[str])
    assert_type(ints | take_until.pipe(stop), Stream[int])
    scan(ints, 0.5, lambda sofar, n: str(n))  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType, reportReturnType]
    distinct_until_changed(ints, lambda n: n.upper())  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownLambdaType]
    prefetch(ints)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    take_until(ints, 2.0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
