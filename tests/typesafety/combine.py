# mypy: disable-error-code="unused-awaitable"
"""Never run. What mypy and pyright infer for streams that are put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, assert_type

from aiostream import Stream
from aiostream.core import Streamer
from returns.future import future_safe
from returns.result import Result, Success
from typing_extensions import TypeIs

from returns_pipeline import ResultStream, pipe
from returns_pipeline.combine import (
    Branch,
    KeyFailed,
    TimedOut,
    broadcast,
    concat,
    debounce,
    distinct_until_changed,
    merge,
    merge_prioritized,
    prefetch,
    route,
    scan,
    select,
    split,
    take_until,
    throttle,
    zip_results,
)
from returns_pipeline.errors import BufferOverflow, ItemsRefused, StepTimeout, UnevenSources
from returns_pipeline.policies import Timeout, with_policy

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterable

    from returns.future import FutureResult

    from returns_pipeline import StepContext


def total(sofar: float, n: int) -> float:
    return sofar + n


def joined(
    ints: Stream[int], words: AsyncIterable[str], raw: AsyncIterator[bytes], flags: Stream[bool]
) -> None:
    """Sources of several types have the union of their items."""
    assert_type(merge(ints), Stream[int])
    assert_type(merge(ints, ints), Stream[int])
    assert_type(merge(ints, words), Stream[int | str])
    assert_type(merge(ints, words, raw), Stream[int | str | bytes])
    assert_type(merge(ints, words, raw, flags), Stream[int | str | bytes | bool])
    assert_type(merge(ints, words, raw, flags, ints), Stream[int | str | bytes | bool])
    assert_type(merge(*[ints, ints], buffer=3), Stream[int])
    assert_type(ints | merge.pipe(words), Stream[int | str])
    assert_type(ints | merge.pipe(words, raw), Stream[int | str | bytes])
    assert_type(concat(ints, words), Stream[int | str])
    assert_type(ints | concat.pipe(words), Stream[int | str])
    merge(ints, [1])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    merge(ints, words, buffer="3")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    concat(1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def prioritized(ints: Stream[int], words: AsyncIterable[str]) -> None:
    """Each source has a number."""
    assert_type(merge_prioritized((1, ints), (0.5, words)), Stream[int | str])
    assert_type(merge_prioritized((1, ints), starvation_limit=None), Stream[int])
    merge_prioritized(ints, words)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    merge_prioritized(("high", ints))  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]


def selected(ints: Stream[int], more: Stream[int]) -> None:
    """There is a `TimedOut` only where there is a time-out."""
    assert_type(select({"a": ints, "b": more}), Stream[tuple[str, int]])
    assert_type(select({1: ints}, timeout=2.0), Stream[tuple[int, int] | TimedOut])
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
    """The values are in a tuple, the errors in a union."""
    assert_type(zip_results(left, right), Stream[Result[tuple[int, str], KeyError | OSError]])
    assert_type(
        zip_results(left, right, third, strict=True),
        Stream[Result[tuple[int, str, bytes], KeyError | OSError | ValueError]],
    )
    assert_type(left | zip_results.pipe(right), Stream[Result[tuple[int, str], KeyError | OSError]])
    assert_type(UnevenSources((0,)).ended, tuple[int, ...])
    zip_results(left, plain)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    UnevenSources(0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def is_int(item: int | str) -> TypeIs[int]:
    return isinstance(item, int)


def shared(ints: Stream[int], either: AsyncIterable[int | str], branch: Branch[int]) -> None:
    """As many branches as requested; a side is as narrow as the predicate says."""
    assert_type(broadcast(ints, 2, buffer=8), tuple[Branch[int], Branch[int]])
    assert_type(broadcast(ints, 3, overflow="fail"), tuple[Branch[int], Branch[int], Branch[int]])
    assert_type(broadcast(ints, len("four")), tuple[Branch[int], ...])
    assert_type(split(ints, lambda n: n.bit_length() > 3), tuple[Branch[int], Branch[int]])
    assert_type(split(either, is_int), tuple[Branch[int], Branch[int | str]])
    assert_type((branch.place, branch.dropped), tuple[int, int])
    numbers: Stream[int] = branch
    overflow = BufferOverflow(1, 64)
    assert_type((overflow.branch, overflow.limit), tuple[int, int])
    del numbers
    broadcast(ints, 2, overflow="often")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    broadcast(ints)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    split(ints, lambda n: n.upper())  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownLambdaType]
    Branch(ints)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    branch.dropped = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    BufferOverflow(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def left(branch: Branch[int]) -> None:
    """Leaving takes nothing and returns nothing."""
    assert_type(branch.stream(), Streamer[int])
    await branch.aclose()
    await branch.aclose(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


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


def paced(ints: Stream[int], words: AsyncIterable[str]) -> None:
    """Items are as they were."""
    assert_type(throttle(ints, 0.5), Stream[int])
    assert_type(ints | throttle.pipe(0.5, burst=3), Stream[int])
    assert_type(debounce(words, 2), Stream[str])
    assert_type(debounce.raw(words, 2.0), AsyncIterator[str])
    throttle(ints)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    debounce(words, "2 s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def doubles(key: str, items: AsyncIterator[int]) -> AsyncIterator[float]:
    async for item in items:
        yield len(key) * item / 2


async def total_of(key: str, items: AsyncIterator[int]) -> bytes:
    return b"".join([key.encode() async for _ in items])


def booked(key: str, items: AsyncIterator[int]) -> FutureResult[bytes, OSError]:
    return write(key, items)


async def persist(
    key: str, items: AsyncIterator[int], step: StepContext
) -> Result[list[int], OSError]:
    return Success([len(key + step.name) + item async for item in items])


def routed(ints: Stream[int], failed: KeyFailed[str, int], ctx: StepContext) -> None:
    """The output is what the workers make, and, if asked for, their failures."""
    assert_type(route(ints, str, doubles), Stream[float])
    assert_type(route(ints, lambda n: str(n % 3), doubles, max_keys=3), Stream[float])
    assert_type(route(ints, str, total_of, buffer=3, idle_after=2), Stream[bytes])
    assert_type(route(ints, key=str, worker=total_of), Stream[bytes])
    assert_type(route(ints, str, doubles, failing="isolate"), Stream[float | KeyFailed[str, int]])
    assert_type(route(ints, str, persist, ctx=ctx), Stream[Result[list[int], OSError]])
    assert_type(
        route(ints, str, persist, ctx=ctx, hold=True, failing="isolate"),
        Stream[Result[list[int], OSError] | KeyFailed[str, int]],
    )
    assert_type(route(ints, str, booked), Stream[Result[bytes, OSError]])
    assert_type(
        route(ints, lambda n: str(n), booked, failing="isolate"),
        Stream[Result[bytes, OSError] | KeyFailed[str, int]],
    )
    assert_type(
        route(ints, str, with_policy(write, Timeout(2.0))),
        Stream[Result[bytes, OSError | StepTimeout]],
    )
    assert_type(ints | route.pipe(str, doubles), Stream[float])
    assert_type(ints | route.pipe(str, booked), Stream[Result[bytes, OSError]])
    assert_type(ints | pipe.route(str, booked), Stream[Result[bytes, OSError]])
    assert_type((failed.key, failed.error, failed.items), tuple[str, Exception, tuple[int, ...]])
    assert_type(ItemsRefused("key").key, object)
    route(ints, lambda n: n, doubles)  # type: ignore[arg-type, misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
    route(ints, str, persist)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    KeyFailed("key", OSError())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ItemsRefused()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def low(n: int) -> bool:
    return n < 3


def piped(
    ints: Stream[int], words: AsyncIterable[str], results: Stream[Result[int, KeyError]]
) -> None:
    """After ``|``, with named functions."""
    assert_type(ints | pipe.merge(words), Stream[int | str])
    assert_type(ints | pipe.concat(words), Stream[int | str])
    assert_type(results | pipe.zip_results(results), Stream[Result[tuple[int, int], KeyError]])
    assert_type(ints | pipe.scan(0.5, total), Stream[float])
    assert_type(ints | pipe.distinct_until_changed(), Stream[int])
    assert_type(ints | pipe.prefetch(3), Stream[int])
    assert_type(ints | pipe.take_until(words), Stream[int])
    assert_type(ints | pipe.throttle(0.5), Stream[int])
    assert_type(ints | pipe.debounce(0.5), Stream[int])
    assert_type(ints | pipe.route(str, doubles), Stream[float])
    assert_type(ints | pipe.broadcast(2), tuple[Branch[int], ...])
    assert_type(ints | pipe.split(low), tuple[Branch[int], Branch[int]])
    pipe.merge(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    pipe.concat(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    pipe.zip_results(ints)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    pipe.scan(total)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pipe.distinct_until_changed(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    pipe.prefetch("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pipe.take_until(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pipe.throttle()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pipe.debounce()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pipe.route(str)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    pipe.broadcast("2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pipe.split(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def halves(key: str, items: AsyncIterator[int]) -> AsyncIterator[Result[float, OSError]]:
    async for item in items:
        yield Success(len(key) * item / 2)


async def sum_of(_: str, items: AsyncIterator[int]) -> Result[bytes, OSError]:
    return Success(bytes([item async for item in items]))


@future_safe(exceptions=(OSError,))
async def write(_: str, items: AsyncIterator[int]) -> bytes:
    return bytes([item async for item in items])


def routed_methods(s: ResultStream[int, KeyError], ctx: StepContext) -> None:
    """A worker returns Results; its exceptions are one more error, if requested."""
    assert_type(s.route(str, halves), ResultStream[float, KeyError | OSError])
    assert_type(s.route(lambda n: str(n % 3), sum_of), ResultStream[bytes, KeyError | OSError])
    assert_type(s.route(key=str, worker=write), ResultStream[bytes, KeyError | OSError])
    assert_type(
        s.route(str, halves, failing="isolate", max_keys=3, buffer=2, idle_after=2),
        ResultStream[float, KeyError | OSError | KeyFailed[str, int]],
    )
    assert_type(s.route(str, persist, ctx=ctx), ResultStream[list[int], KeyError | OSError])
    assert_type(
        s.route(str, persist, ctx=ctx, hold=True, failing="isolate"),
        ResultStream[list[int], KeyError | OSError | KeyFailed[str, int]],
    )
    s.route(str, doubles)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    s.route(str, persist)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    s.route(str, halves, ctx=ctx)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    s.route(lambda n: n, halves)  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
    s.route(str, halves, failing="drop")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def methods(
    s: ResultStream[int, KeyError], other: ResultStream[str, OSError], stop: asyncio.Event, n: int
) -> None:
    """Values and errors widen; a failure is not what a step's function gets."""
    assert_type(s.merge(other), ResultStream[int | str, KeyError | OSError])
    assert_type(s.merge(s, buffer=3), ResultStream[int, KeyError])
    assert_type(s.concat(other), ResultStream[int | str, KeyError | OSError])
    assert_type(s.zip(other, strict=True), ResultStream[tuple[int, str], KeyError | OSError])
    assert_type(
        s.broadcast(2, buffer=3), tuple[ResultStream[int, KeyError], ResultStream[int, KeyError]]
    )
    assert_type(s.broadcast(n), tuple[ResultStream[int, KeyError], ...])
    a, b, c = s.broadcast(2)  # type: ignore[misc]  # pyright: ignore[reportAssignmentType]
    a, b, c = s.broadcast(3)
    print(a, b, c, s.broadcast(4)[3])
    assert_type(s.scan(0.5, lambda sofar, n: sofar + n), ResultStream[float, KeyError])
    assert_type(other.distinct_until_changed(lambda w: w.lower()), ResultStream[str, OSError])
    assert_type(s.prefetch(3), ResultStream[int, KeyError])
    assert_type(s.take_until(stop), ResultStream[int, KeyError])
    assert_type(s.throttle(0.5, burst=3), ResultStream[int, KeyError])
    assert_type(s.debounce(0.5), ResultStream[int, KeyError])
    s.merge(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    s.concat([1])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    s.zip(stop)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.broadcast()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    s.scan(lambda sofar, n: sofar + n)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue, reportUnknownLambdaType]
    s.distinct_until_changed(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.prefetch("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.take_until(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.throttle("1 s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.debounce("1 s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def results_of_several(
    a: ResultStream[int, KeyError],
    b: ResultStream[str, OSError],
    c: ResultStream[bytes, ValueError],
) -> None:
    """Several streams of Results keep the unions of their values and of their errors."""
    assert_type(merge(a, b), Stream[Result[int | str, KeyError | OSError]])
    assert_type(concat(a, b), Stream[Result[int | str, KeyError | OSError]])
    assert_type(
        ResultStream.from_results(merge(a, b, c)),
        ResultStream[int | str | bytes, KeyError | OSError | ValueError],
    )
    assert_type(
        ResultStream.from_results(merge_prioritized((9, a), (1, b))),
        ResultStream[int | str, KeyError | OSError],
    )
    assert_type(
        ResultStream.from_results(merge_prioritized((9, a), (1, b), (0, c))),
        ResultStream[int | str | bytes, KeyError | OSError | ValueError],
    )
    assert_type(a.merge(b, c), ResultStream[int | str | bytes, KeyError | OSError | ValueError])
    assert_type(a.concat(b, c), ResultStream[int | str | bytes, KeyError | OSError | ValueError])
    merged = a.merge(b, c)
    wrong: ResultStream[int, KeyError] = merged  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(wrong)
