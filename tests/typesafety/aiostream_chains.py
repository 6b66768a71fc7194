# mypy: disable-error-code="unused-awaitable"
# pyright: reportUnusedExpression=false
"""Never run. What mypy and pyright infer for aiostream's own operators, and what they refuse.

Each operator is called, piped and used raw. Pyright reads a lambda after ``|`` as of unknown type,
and mypy knows no more: functions there are named.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, Never, assert_type

import aiostream
from aiostream import (
    Stream,
    async_,
    await_,
    pipable_operator,
    pipe,
    sources_operator,
    stream,
    streamcontext,
)
from aiostream.core import Streamer
from aiostream.stream import advanced, create, select
from typing_extensions import TypeIs

if TYPE_CHECKING:
    from collections.abc import AsyncIterable


def half(n: int) -> float:
    return n / 2


async def half_async(n: int) -> float:
    return n / 2


def awaitable(n: int) -> Awaitable[float]:
    return half_async(n)


def describe(n: int, name: str) -> bytes:
    return f"{n} {name}".encode()


async def describe_async(n: int, name: str) -> bytes:
    return describe(n, name)


def total(*numbers: int) -> float:
    return sum(numbers) / 2


async def total_async(*numbers: int) -> float:
    return total(*numbers)


def is_even(n: int) -> bool:
    return n % 2 == 0


async def is_even_async(n: int) -> bool:
    return is_even(n)


def is_text(value: int | str) -> TypeIs[str]:
    return isinstance(value, str)


def add(x: int, y: int) -> int:
    return x + y


async def add_async(x: int, y: int) -> int:
    return x + y


def append(text: str, n: int) -> str:
    return f"{text}{n}"


async def append_async(text: str, n: int) -> str:
    return append(text, n)


def digits(n: int) -> Stream[str]:
    return stream.iterate(str(n))


async def digits_async(n: int) -> Stream[str]:
    return digits(n)


async def generated(n: int) -> AsyncIterator[str]:
    yield str(n)


def joined(n: int, name: str) -> Stream[bytes]:
    return stream.just(describe(n, name))


def spread(*numbers: int) -> Stream[int]:
    return stream.iterate(numbers)


def creation(word: str, it: AsyncIterable[int]) -> None:
    """Streams out of values, iterables and functions."""
    assert_type(stream.iterate([1]), Stream[int])
    assert_type(stream.iterate(it), Stream[int])
    assert_type(stream.iterate.raw({"a": 1}), AsyncIterator[str])
    assert_type(stream.preserve(it), Stream[int])
    assert_type(create.from_iterable([word]), Stream[str])
    assert_type(create.from_async_iterable.raw(it), AsyncIterator[int])
    assert_type(stream.just(word), Stream[str])
    assert_type(stream.just(half_async(1)), Stream[float])
    assert_type(stream.call(half, 1), Stream[float])
    assert_type(stream.call(half_async, n=1), Stream[float])
    assert_type(stream.call.raw(describe, 1, name=word), AsyncIterator[bytes])
    assert_type(stream.throw(ValueError), Stream[Never])
    assert_type(stream.throw(ValueError("no")), Stream[Never])
    assert_type(stream.empty(), Stream[Never])
    assert_type(stream.never(), Stream[Never])
    assert_type(stream.repeat(word, 3, interval=0.5), Stream[str])
    assert_type(stream.range(3), Stream[int])
    assert_type(stream.range(1, 9, 2, interval=0.5), Stream[int])
    assert_type(stream.range.raw(1, 9), AsyncIterator[int])
    assert_type(stream.count(1, step=2, interval=0.5), Stream[int])
    stream.iterate(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stream.preserve([3])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stream.just()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    stream.call(half, "1")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    stream.throw("no")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stream.empty(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    stream.repeat(word, 3, 0.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    stream.range()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    stream.range(0.5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    stream.count("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def selection(ints: Stream[int], mixed: Stream[int | str], plain: AsyncIterable[int]) -> None:
    """Fewer items of the same type; a `TypeIs` narrows it."""
    assert_type(stream.take(ints, 2), Stream[int])
    assert_type(stream.take(plain, n=2), Stream[int])
    assert_type(ints | pipe.take(2), Stream[int])
    assert_type(stream.take.raw(ints, 2), AsyncIterator[int])
    assert_type(ints | stream.take.pipe(2), Stream[int])
    assert_type(stream.takelast(ints, 2), Stream[int])
    assert_type(mixed | pipe.takelast(2), Stream[int | str])
    assert_type(stream.skip(ints, 2), Stream[int])
    assert_type(ints | pipe.skip(2), Stream[int])
    assert_type(stream.skiplast(ints, 2), Stream[int])
    assert_type(ints | pipe.skiplast(2), Stream[int])
    assert_type(stream.getitem(ints, slice(1, 2)), Stream[int])
    assert_type(ints | pipe.getitem(2), Stream[int])
    assert_type(select.item(ints, -1), Stream[int])
    assert_type(select.filterindex(ints, is_even), Stream[int])
    assert_type(ints | select.filterindex.pipe(is_even), Stream[int])
    assert_type(select.slice.raw(ints, 1, None, 2), AsyncIterator[int])
    assert_type(ints | select.slice.pipe(None), Stream[int])
    assert_type(stream.filter(ints, lambda n: n > 1), Stream[int])
    assert_type(ints | pipe.filter(is_even), Stream[int])
    assert_type(ints | pipe.filter(is_even_async), Stream[int])
    assert_type(stream.filter(mixed, is_text), Stream[str])
    assert_type(mixed | pipe.filter(is_text), Stream[str])
    assert_type(stream.filter.raw(mixed, is_text), AsyncIterator[str])
    assert_type(stream.until(ints, lambda n: n > 1), Stream[int])
    assert_type(ints | pipe.until(is_even_async), Stream[int])
    assert_type(stream.takewhile(ints, lambda n: n > 1), Stream[int])
    assert_type(ints | pipe.takewhile(is_even), Stream[int])
    assert_type(stream.dropwhile(ints, lambda n: n > 1), Stream[int])
    assert_type(ints | pipe.dropwhile(is_even), Stream[int])
    stream.take([1], 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stream.take(ints)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    stream.take(source=ints, n=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    stream.take(ints, "2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pipe.take(ints, 2)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
    stream.takelast(ints, 0.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stream.skip(ints, None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stream.skiplast(ints, None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stream.getitem(ints, "0")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    select.item(ints, slice(1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    select.filterindex(ints, half)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    select.slice(ints)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    stream.filter(ints, str.isdigit)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    mixed | pipe.filter(is_even)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    stream.filter(ints, half)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stream.until(ints, str.isdigit)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stream.takewhile(ints, half)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stream.dropwhile(ints, half_async)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def transformation(ints: Stream[int], names: Stream[str]) -> None:
    """Functions of items; coroutine functions are awaited, other awaitables are items."""
    assert_type(stream.map(ints, half), Stream[float])
    assert_type(stream.map(ints, half_async, ordered=False, task_limit=2), Stream[float])
    assert_type(stream.map(ints, lambda n: n / 2), Stream[float])
    assert_type(stream.map(ints, awaitable), Stream[Awaitable[float]])
    assert_type(stream.map(ints, async_(awaitable)), Stream[float])
    assert_type(stream.map(ints, describe, names), Stream[bytes])
    assert_type(stream.map(ints, describe_async, names, task_limit=2), Stream[bytes])
    assert_type(stream.map(ints, total, ints, ints), Stream[float])
    assert_type(stream.map(ints, total_async, ints, ints, ordered=False), Stream[float])
    assert_type(stream.map.raw(ints, half), AsyncIterator[float])
    assert_type(stream.map.raw(ints, half_async, task_limit=1), AsyncIterator[float])
    assert_type(ints | pipe.map(half), Stream[float])
    assert_type(ints | pipe.map(half_async, task_limit=1), Stream[float])
    assert_type(ints | pipe.map(describe, names), Stream[bytes])
    assert_type(ints | pipe.map(describe_async, names), Stream[bytes])
    assert_type(ints | pipe.map(total, ints, ints), Stream[float])
    assert_type(stream.smap(ints, awaitable), Stream[Awaitable[float]])
    assert_type(stream.smap(ints, lambda n: str(n)), Stream[str])
    assert_type(ints | pipe.smap(describe, names), Stream[bytes])
    assert_type(stream.amap(ints, half_async, task_limit=2), Stream[float])
    assert_type(stream.amap(ints, awaitable), Stream[float])
    assert_type(ints | pipe.amap(describe_async, names, ordered=False), Stream[bytes])
    assert_type(stream.enumerate(names, 1), Stream[tuple[int, str]])
    assert_type(names | pipe.enumerate(step=2), Stream[tuple[int, str]])
    assert_type(stream.enumerate.raw(names), AsyncIterator[tuple[int, str]])
    assert_type(stream.starmap(stream.zip(ints, names), describe), Stream[bytes])
    assert_type(ints | pipe.zip(names) | pipe.starmap(describe_async, task_limit=2), Stream[bytes])
    assert_type(
        stream.starmap(stream.zip(ints, names), lambda n, s: (s, n)), Stream[tuple[str, int]]
    )
    assert_type(names | pipe.cycle(), Stream[str])
    assert_type(stream.cycle(names), Stream[str])
    assert_type(stream.chunks(names, 2), Stream[list[str]])
    assert_type(names | pipe.chunks(2), Stream[list[str]])
    stream.map(ints, str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    stream.map(ints, half, task_limit=2)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    stream.map(ints, describe)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    stream.map(names, describe, ints)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    names | pipe.map(half)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    stream.smap(ints, half, ordered=False)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    stream.amap(ints, half)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    stream.enumerate(names, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stream.starmap(stream.zip(names, ints), describe)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    names | pipe.starmap(describe)  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
    stream.cycle(names, 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    names | pipe.chunks("2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def combination(ints: Stream[int], names: Stream[str], rates: AsyncIterable[float]) -> None:
    """Sources of different types: each keeps its own."""
    assert_type(stream.chain(ints, names), Stream[int | str])
    assert_type(ints | pipe.chain(names, names), Stream[int | str])
    assert_type(stream.chain.raw(ints, ints), AsyncIterator[int])
    assert_type(stream.chain(ints), Stream[int])
    assert_type(stream.merge(ints, names), Stream[int | str])
    assert_type(ints | pipe.merge(names), Stream[int | str])
    assert_type(stream.merge(*[names, names]), Stream[str])
    assert_type(stream.zip(ints, names), Stream[tuple[int, str]])
    assert_type(stream.zip(ints, names, rates, strict=True), Stream[tuple[int, str, float]])
    assert_type(ints | pipe.zip(names), Stream[tuple[int, str]])
    assert_type(stream.zip.raw(ints, names), AsyncIterator[tuple[int, str]])
    assert_type(stream.zip(*[ints, ints]), Stream[tuple[int, ...]])
    assert_type(stream.ziplatest(ints, names), Stream[tuple[int | None, str | None]])
    assert_type(stream.ziplatest(ints, names, partial=False), Stream[tuple[int, str]])
    assert_type(stream.ziplatest(ints, names, default=b""), Stream[tuple[int | bytes, str | bytes]])
    assert_type(ints | pipe.ziplatest(names, rates, partial=False), Stream[tuple[int, str, float]])
    assert_type(ints | pipe.ziplatest(names), Stream[tuple[int | None, str | None]])
    assert_type(ints + names, Stream[str | int])
    stream.chain(ints, [1])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    stream.merge(ints, 1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    stream.zip(ints, "ab")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    stream.zip(ints, names, stop=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    stream.ziplatest(ints, [1])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def aggregation(ints: Stream[int], names: Stream[str]) -> None:
    """Folds: of the items' type, or of the first value's."""
    assert_type(stream.accumulate(ints), Stream[int])
    assert_type(stream.accumulate(ints, operator.mul), Stream[int])
    assert_type(stream.accumulate(ints, add_async), Stream[int])
    assert_type(stream.accumulate(ints, lambda x, y: x + y), Stream[int])
    assert_type(stream.accumulate(ints, append, ""), Stream[str])
    assert_type(stream.accumulate(ints, append_async, initializer=""), Stream[str])
    assert_type(stream.accumulate(ints, initializer=1), Stream[int])
    assert_type(ints | pipe.accumulate(add), Stream[int])
    assert_type(ints | pipe.accumulate(append, ""), Stream[str])
    assert_type(ints | pipe.accumulate(), Stream[int])
    assert_type(stream.accumulate.raw(ints, append, ""), AsyncIterator[str])
    assert_type(stream.reduce(ints, max), Stream[int])
    assert_type(stream.reduce(ints, add_async), Stream[int])
    assert_type(stream.reduce(ints, lambda x, y: x * y), Stream[int])
    assert_type(ints | pipe.reduce(add), Stream[int])
    assert_type(ints | pipe.reduce(append_async, ""), Stream[str])
    assert_type(stream.list(names), Stream[list[str]])
    assert_type(names | pipe.list(), Stream[list[str]])
    stream.accumulate(ints, append)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    stream.accumulate(ints, append, 1)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    stream.reduce(ints)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    names | pipe.reduce(add)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    stream.list(names, 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def time(names: Stream[str]) -> None:
    """The items as they were, at another time."""
    assert_type(stream.spaceout(names, 0.5), Stream[str])
    assert_type(names | pipe.spaceout(interval=1), Stream[str])
    assert_type(stream.delay(names, 0.5), Stream[str])
    assert_type(names | pipe.delay(delay=1), Stream[str])
    assert_type(stream.timeout(names, 0.5), Stream[str])
    assert_type(names | pipe.timeout(timeout=1), Stream[str])
    assert_type(stream.timeout.raw(names, 0.5), AsyncIterator[str])
    stream.spaceout(names, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stream.delay(names)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    names | pipe.timeout(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def misc(names: Stream[str]) -> None:
    """Side effects; the items are unchanged."""
    assert_type(stream.action(names, print), Stream[str])
    assert_type(names | pipe.action(str.upper, ordered=False, task_limit=1), Stream[str])
    assert_type(stream.print(names, "{}!", end="", file=sys.stderr, flush=True), Stream[str])
    assert_type(names | pipe.print("{}!"), Stream[str])
    stream.action(names, half)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    names | pipe.action(half)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    stream.print(names, file=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def higher_order(ints: Stream[int], names: Stream[str], nested: Stream[Stream[int]]) -> None:
    """Streams of streams."""
    assert_type(stream.concat(nested, 2), Stream[int])
    assert_type(nested | pipe.concat(task_limit=2), Stream[int])
    assert_type(stream.flatten(nested), Stream[int])
    assert_type(nested | pipe.flatten(), Stream[int])
    assert_type(stream.switch(nested), Stream[int])
    assert_type(nested | pipe.switch(), Stream[int])
    assert_type(advanced.base_combine(nested, ordered=True), Stream[int])
    assert_type(stream.flatmap(ints, digits), Stream[str])
    assert_type(stream.flatmap(ints, digits_async, task_limit=2), Stream[str])
    assert_type(stream.flatmap(ints, generated), Stream[str])
    assert_type(stream.flatmap(ints, lambda n: stream.just(n / 2)), Stream[float])
    assert_type(stream.flatmap(ints, joined, names), Stream[bytes])
    assert_type(stream.flatmap(ints, spread, ints, ints), Stream[int])
    assert_type(stream.flatmap.raw(ints, digits), AsyncIterator[str])
    assert_type(ints | pipe.flatmap(digits, task_limit=2), Stream[str])
    assert_type(ints | pipe.flatmap(joined, names), Stream[bytes])
    assert_type(stream.concatmap(ints, digits), Stream[str])
    assert_type(ints | pipe.concatmap(generated), Stream[str])
    assert_type(stream.switchmap(ints, digits), Stream[str])
    assert_type(ints | pipe.switchmap(digits_async), Stream[str])
    stream.concat(ints)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ints | pipe.flatten()  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
    stream.switch(nested, 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    advanced.base_combine(ints)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stream.flatmap(ints, half)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    names | pipe.concatmap(digits)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    stream.switchmap(ints, digits, task_limit=2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def streams(ints: Stream[int], names: Stream[str]) -> None:
    """A chain from its source to its last item."""
    assert_type(await ints, int)
    assert_type(ints[1:3], Stream[int])
    assert_type(ints[-1], Stream[int])
    assert_type(streamcontext(ints), Streamer[int])
    async with ints.stream() as items:
        assert_type(items, Streamer[int])
        async for item in items:
            assert_type(item, int)
    assert_type(
        await (
            ints
            | pipe.skip(1)
            | pipe.map(half_async, task_limit=4)
            | pipe.zip(names)
            | pipe.chunks(10)
            | pipe.takelast(1)
        ),
        list[tuple[float, str]],
    )
    assert_type(await await_(ints), int)
    ints["1"]  # type: ignore[index]  # pyright: ignore[reportArgumentType]
    ints | half  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]


@aiostream.operator
async def letters(n: int) -> AsyncIterator[str]:
    yield "a" * n


@pipable_operator
async def halves(source: AsyncIterable[int], digits: int = 0) -> AsyncIterator[float]:
    async with streamcontext(source) as items:
        async for item in items:
            yield round(item / 2, digits)


@sources_operator
async def longest(*sources: AsyncIterable[int]) -> AsyncIterator[int]:
    for source in sources:
        async for item in source:
            yield item


def own_operators(ints: Stream[int], names: Stream[str]) -> None:
    """The decorators of aiostream, on functions without type variables."""
    assert_type(letters(3), Stream[str])
    assert_type(halves(ints, 2), Stream[float])
    assert_type(ints | halves.pipe(digits=2), Stream[float])
    assert_type(longest(ints, ints), Stream[int])
    letters("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    halves(names)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    longest(names)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
