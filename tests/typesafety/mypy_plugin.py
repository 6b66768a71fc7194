# mypy: disable-error-code="unused-awaitable"
# pyright: reportUnusedExpression=false, reportUnusedCoroutine=false
# ruff: noqa: B018, E731, PLC3002, PLW0120, PLW0131, PLW0603, PYI055, SIM114
"""Never run. What `returns_pipeline.mypy_plugin` says, and what it does not.

Needs the plugin, unlike the other files here. Pyright finds the same types without one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, AnyStr, Generic, ParamSpec, TypeVar, assert_type, overload

import pytest
from aiostream import Stream, pipe, stream
from pytest import raises  # noqa: PT013
from returns.future import Future, FutureResult, future_safe
from returns.io import IO, IOResult, impure_safe
from returns.maybe import Maybe, Some
from returns.result import Failure, Result, Success, safe

from returns_pipeline import ResultStream, RetryPolicy, Saga, StepContext, combine, to_result
from returns_pipeline import pipe as result_pipe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from concurrent.futures import ThreadPoolExecutor

    from returns.context import RequiresContext

T = TypeVar("T")
P = ParamSpec("P")
Outcome = TypeVar("Outcome", bound=Result[int, str])


class NoStock(Exception):
    """An error."""


class Refused(Exception):
    """An error that has nothing but `Exception` in common with the other."""


class Repository(Generic[T]):
    """Returns a Result in every way there is."""

    def save(self, item: T) -> Result[T, str]:
        return Success(item)

    async def save_async(self, item: T) -> Result[T, str]:
        return Success(item)

    @property
    def last(self) -> Result[T, str]:
        raise NotImplementedError

    def __call__(self) -> Result[T, str]:
        raise NotImplementedError

    def __or__(self, other: int) -> Result[T, str]:
        raise NotImplementedError

    def __getitem__(self, other: int) -> Result[T, str]:
        raise NotImplementedError

    def same(self) -> Repository[T]:
        return self


class Named(Result[T, str]):
    """A Result of one's own."""


@overload
def load(x: int) -> Result[int, str]: ...
@overload
def load(x: str) -> str: ...
def load(x: int | str) -> Result[int, str] | str:
    return x if isinstance(x, str) else Success(x)


@safe
def half(n: int) -> float:
    return n / 2


@future_safe
async def half_later(n: int) -> float:
    return n / 2


async def reserve(n: int) -> Result[int, str]:
    return Success(n)


def io(n: int) -> IOResult[int, str]:
    raise NotImplementedError


def maybe(n: int) -> Maybe[int]:
    return Some(n)


def optional(n: int) -> Result[int, str] | None:
    return Success(n) if n else None


def named(n: int) -> Named[int]:
    raise NotImplementedError


def reader(n: int) -> RequiresContext[int, str]:
    raise NotImplementedError


def maker() -> Callable[[], Result[int, str]]:
    raise NotImplementedError


def same(x: T) -> T:
    return x


def logged(function: Callable[P, T]) -> Callable[P, T]:
    return function


@logged
def decorated(n: int) -> Result[int, str]:
    return Success(n)


half(0)  # type: ignore[must-use]


def calls(
    repository: Repository[int], table: dict[str, Callable[[], Result[int, str]]], n: int
) -> None:
    """However the value came about, it is its type that counts."""
    half(n)  # type: ignore[must-use]
    decorated(n)  # type: ignore[must-use]
    repository.save(n)  # type: ignore[must-use]
    repository.same().same().save(n)  # type: ignore[must-use]
    repository.save(n).map(str).bind(lambda s: Success(s))  # type: ignore[must-use]
    repository()  # type: ignore[must-use]
    repository[n]  # type: ignore[must-use]
    repository | n  # type: ignore[must-use]
    repository.last  # type: ignore[must-use]
    load(n)  # type: ignore[must-use]
    load("text")
    maker()()  # type: ignore[must-use]
    maker()
    table["half"]()  # type: ignore[must-use]
    (lambda: half(n))()  # type: ignore[must-use]
    functools.partial(half, n)()  # type: ignore[must-use]
    Success(n)  # type: ignore[must-use]
    Failure(n)  # type: ignore[must-use]
    same(half(n))  # type: ignore[must-use]
    # fmt: off
    half(  # type: ignore[must-use]
        n
    )
    # fmt: on


def kinds(n: int, saga: Saga[int, int, str]) -> None:
    """Every class that holds a failure or has yet to run, and whatever inherits from one."""
    io(n)  # type: ignore[must-use]
    maybe(n)  # type: ignore[must-use]
    optional(n)  # type: ignore[must-use]
    named(n)  # type: ignore[must-use]
    reader(n)  # type: ignore[must-use]
    half_later(n)  # type: ignore[must-use]
    Future.from_value(n)  # type: ignore[must-use]
    stream.range(n)  # type: ignore[must-use]
    saga.pivot()  # type: ignore[must-use]
    [half(m) for m in range(n)]  # type: ignore[must-use]
    (half(n), n)  # type: ignore[must-use]
    IO(half(n))  # type: ignore[must-use]
    IO(n)


def conditions(repository: Repository[int], sure: bool, n: int) -> None:
    """In either branch."""
    half(n) if sure else None  # type: ignore[must-use]
    None if sure else half(n)  # type: ignore[must-use]
    sure and half(n)  # type: ignore[must-use]
    sure or repository.save(n)  # type: ignore[must-use]
    sure and print(n)


def streams(source: ResultStream[int, str]) -> None:
    """Nothing reads them."""
    source.map(lambda n: n + 1)  # type: ignore[must-use]
    source.attempt(str, ValueError)  # type: ignore[must-use]
    source.run()  # type: ignore[must-use]
    source | result_pipe.map_result(str)  # type: ignore[must-use]
    stream.range(3) | pipe.take(2)  # type: ignore[must-use]
    source[1:2]  # type: ignore[must-use]


async def awaits(
    repository: Repository[int],
    source: ResultStream[int, str],
    later: FutureResult[int, str],
    future: Future[int],
) -> None:
    """The value of an ``await`` is dropped as well."""
    await later  # type: ignore[must-use]
    await half_later(1)  # type: ignore[must-use]
    await reserve(1)  # type: ignore[must-use]
    await repository.save_async(1)  # type: ignore[must-use]
    await source.map(str).run()  # type: ignore[must-use]
    await source  # type: ignore[must-use]
    await FutureResult.from_value(1).bind(FutureResult.from_value)  # type: ignore[must-use]
    await future
    await asyncio.sleep(1)
    async with source.stream() as items:
        async for item in items:
            item.map(str)  # type: ignore[must-use]


async def tasks() -> None:
    """A task that is not kept is lost with the Result in it."""
    await asyncio.gather(reserve(1), reserve(2))  # type: ignore[must-use]
    await asyncio.gather(*[reserve(1)])  # type: ignore[must-use]
    async with asyncio.TaskGroup() as group:
        group.create_task(reserve(1))  # type: ignore[must-use]
        group.create_task(asyncio.sleep(1))
        task = group.create_task(reserve(2))
    await asyncio.wait({task})
    await task  # type: ignore[must-use]
    # mypy's own word for it: a coroutine is not a Result yet.
    reserve(1)  # type: ignore[unused-coroutine]


def results_of(n: int) -> Iterator[Result[float, Exception]]:
    yield half(n)


def results_by_name(n: int) -> dict[str, Result[float, Exception]]:
    return {"half": half(n)}


async def later_results(n: int) -> AsyncIterator[Result[float, Exception]]:
    yield half(n)


def holders(executor: ThreadPoolExecutor, numbers: list[int], n: int) -> None:
    """An iterator, a mapping or the future of a thread is lost with the Results in it."""
    map(half, numbers)  # type: ignore[must-use]
    (half(m) for m in numbers)  # type: ignore[must-use]
    results_of(n)  # type: ignore[must-use]
    later_results(n)  # type: ignore[must-use]
    results_by_name(n)  # type: ignore[must-use]
    results_by_name(n).values()  # type: ignore[must-use]
    {half(n)}  # type: ignore[must-use]
    executor.submit(half, n)  # type: ignore[must-use]
    executor.map(half, numbers)  # type: ignore[must-use]
    executor.submit(print, n)
    map(str, numbers)
    {half(n): n}


def raising(n: int) -> None:
    """What is expected to raise returns nothing that could be dropped."""
    with pytest.raises(ValueError, match="n"):
        half(n)
    with raises(KeyError), contextlib.suppress(KeyError):
        if n:
            half(n)
    with contextlib.suppress(ValueError):
        half(n)  # type: ignore[must-use]


def side_effects(source: ResultStream[int, str]) -> None:
    """A function whose Result would be dropped is not a side effect."""
    print(source.tap(half))  # type: ignore[must-use]
    print(source.tap(lambda n: half(n)))  # type: ignore[must-use]
    print(source.tap(print))
    print(source.tap_async(reserve))  # type: ignore[must-use]
    print(source.tap_async(asyncio.sleep))
    print(source.tap_failure(lambda text: half(len(text))))  # type: ignore[must-use]


def steps(s: ResultStream[int, str], ctx: StepContext) -> None:
    """A stream is not an outcome, and nothing awaits the coroutines of `map`."""
    print(s.map(reserve))  # type: ignore[must-use]
    print(s.broadcast(2, on_drop=lambda place, count: half(count)))  # type: ignore[must-use]
    print(RetryPolicy(on_retry=lambda event: half(event.attempt)))  # type: ignore[must-use]
    print(ctx.run(s))  # type: ignore[must-use]
    print(to_result(s))  # type: ignore[must-use]
    print(ctx.run(s.run()), to_result(s.run()))


def selected(a: ResultStream[int, KeyError], b: ResultStream[str, OSError]) -> None:
    """The items of a dictionary's streams keep their types."""
    assert_type(
        combine.select({"a": a, "b": b}),
        Stream[tuple[str, Result[int, KeyError] | Result[str, OSError]]],
    )
    assert_type(
        combine.select({"a": a, "b": b}, timeout=1.0),
        Stream[tuple[str, Result[int, KeyError] | Result[str, OSError]] | combine.TimedOut],
    )
    _ = combine.select({"a": 3})  # type: ignore[dict-item]


def looked_into(s: ResultStream[int, str], n: int, maybe: Result[int, str] | None) -> None:
    """A Result in a Result, a function that nothing calls, a condition that is always true."""
    print(s.map(half))  # type: ignore[must-use]
    print(s.map(lambda n: reserve(n)))  # type: ignore[must-use]
    print(s.map_async(reserve))  # type: ignore[must-use]
    print(s.alt(lambda text: half(len(text))))  # type: ignore[must-use]
    print(s.for_each(lambda n: half))  # type: ignore[must-use]
    if half(n):  # type: ignore[must-use, truthy-bool]
        print(n)
    while half(n):  # type: ignore[must-use, truthy-bool]
        print(n)
    if maybe:
        print(n)


def kept(n: int, results: list[Result[float, Exception]], sure: bool) -> Result[float, Exception]:
    """A value that is used, or that a name still holds, is not dropped."""
    _ = half(n)
    (known := half(n))
    sure and (known := half(n))
    known
    assert half(n).unwrap()
    assert_type(half(n), Result[float, Exception])
    print(half(n))
    results.append(half(n))
    {n: half(n)}.setdefault(n, half(n))
    f: Callable[[], object] = lambda: half(n)
    f()
    for _ in [half(n)]:
        pass
    with contextlib.suppress(half(n).failure().__class__):
        pass
    if half(n) == results[0]:
        return half(n)
    return results[0]


def places(n: int, sure: bool) -> None:
    """Wherever a statement is allowed."""
    if n > 1:
        half(n)  # type: ignore[must-use]
    elif n > 0:
        half(n)  # type: ignore[must-use]
    else:
        half(n)  # type: ignore[must-use]
    for _ in range(n):
        half(n)  # type: ignore[must-use]
    else:
        half(n)  # type: ignore[must-use]
    while sure:
        half(n)  # type: ignore[must-use]
        break
    else:
        half(n)  # type: ignore[must-use]
    try:
        half(n)  # type: ignore[must-use]
    except ValueError:
        half(n)  # type: ignore[must-use]
    else:
        half(n)  # type: ignore[must-use]
    finally:
        half(n)  # type: ignore[must-use]
    match n:
        case 1:
            half(n)  # type: ignore[must-use]
        case _:
            half(n)  # type: ignore[must-use]
    with contextlib.suppress(ValueError):
        half(n)  # type: ignore[must-use]

    class Inner:
        half(n)  # type: ignore[must-use]

        def method(self) -> None:
            half(n)  # type: ignore[must-use]

        @functools.cached_property
        def cached(self) -> None:
            half(n)  # type: ignore[must-use]

        @overload
        def many(self, m: int) -> int: ...
        @overload
        def many(self, m: str) -> str: ...
        def many(self, m: int | str) -> int | str:
            half(n)  # type: ignore[must-use]
            return m

    print(Inner)


def generic(repository: Repository[AnyStr], text: AnyStr, outcome: Outcome) -> Outcome:
    """Checked once for each type that the variable can be."""
    repository.save(text)  # type: ignore[must-use]
    same(outcome)  # type: ignore[must-use]

    def inner() -> None:
        repository.save(text)  # type: ignore[must-use]

    inner()
    return outcome


class GenericClass(Generic[AnyStr]):
    """The same, by a variable of the class."""

    def use(self, repository: Repository[AnyStr], text: AnyStr) -> None:
        repository.save(text)  # type: ignore[must-use]


def deferred() -> None:
    """Checked twice, for what it needs is not known the first time."""
    global later_known
    later_known = last_known
    Success(last_known)  # type: ignore[must-use]


last_known = len("text")
later_known = last_known


# Listed exceptions keep their names.


ERRORS = (NoStock, Refused)


@safe(exceptions=(NoStock, Refused))
def parse(text: str, *, base: int = 10) -> int:
    return int(text, base)


@safe((NoStock,))
def parse_one(text: str) -> int:
    return int(text)


@safe(exceptions=ERRORS)
def parse_named(text: str) -> int:
    return int(text)


@safe(exceptions=(*ERRORS, KeyError))
def parse_more(text: str) -> int:
    return int(text)


@safe(exceptions=(LookupError, KeyError, LookupError))
def parse_sub(text: str) -> int:
    return int(text)


@impure_safe(exceptions=(NoStock, Refused))
def read(path: str) -> bytes:
    return path.encode()


@future_safe(exceptions=(NoStock, Refused))
async def fetch(url: str, *, tries: int = 1) -> bytes:
    return url.encode() * tries


@safe(exceptions=(NoStock, Refused))
def first(items: list[T]) -> T:
    return items[0]


class Shop:
    """Methods of each kind."""

    @safe(exceptions=(NoStock, Refused))
    def buy(self, n: int) -> str:
        return str(n)

    @staticmethod
    @safe(exceptions=(NoStock, Refused))
    def price(n: int) -> float:
        return n / 2

    @classmethod
    @safe(exceptions=(NoStock, Refused))
    def open(cls, n: int) -> Shop:
        return cls()

    @future_safe(exceptions=(NoStock, Refused))
    async def ship(self, n: int) -> str:
        return str(n)


def errors(
    shop: Shop,
    one_of: type[NoStock] | type[Refused],
    any_length: tuple[type[NoStock | Refused], ...],
    n: int,
) -> None:
    """Error types, values and parameters are what was written."""
    assert_type(parse("1", base=2), Result[int, NoStock | Refused])
    assert_type(parse_one("1"), Result[int, NoStock])
    assert_type(parse_named("1"), Result[int, NoStock | Refused])
    assert_type(parse_more("1"), Result[int, NoStock | Refused | KeyError])
    assert_type(parse_sub("1"), Result[int, LookupError | KeyError])
    assert_type(read("file"), IOResult[bytes, NoStock | Refused])
    assert_type(fetch("url", tries=2), FutureResult[bytes, NoStock | Refused])
    assert_type(first([n]), Result[int, NoStock | Refused])
    assert_type(first(["text"]), Result[str, NoStock | Refused])
    assert_type(shop.buy(1), Result[str, NoStock | Refused])
    assert_type(shop.price(1), Result[float, NoStock | Refused])
    assert_type(Shop.price(1), Result[float, NoStock | Refused])
    assert_type(Shop.open(1), Result[Shop, NoStock | Refused])
    assert_type(shop.ship(1), FutureResult[str, NoStock | Refused])
    assert_type(safe(any_length)(str)(n), Result[str, NoStock | Refused])
    assert_type(safe(exceptions=(NoStock, Refused))(abs)(n), Result[int, NoStock | Refused])
    assert_type(
        safe(exceptions=(KeyError, OSError, one_of))(abs)(n),
        Result[int, KeyError | OSError | NoStock | Refused],
    )
    assert_type(half(n), Result[float, Exception])
    assert_type(half_later(n), FutureResult[float, Exception])
    assert_type(safe(str)(n), Result[str, Exception])
    _ = parse(n)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    _ = parse("1", 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    _ = fetch(n)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    _ = shop.buy("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(safe(exceptions=(int,)))  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
    narrow: Result[int, NoStock] = parse("1")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    wide: Result[int, Exception] = parse("1")
    print(narrow, wide)


def chained(source: ResultStream[str, KeyError]) -> None:
    """So they keep widening in a chain."""
    assert_type(source.bind(parse), ResultStream[int, KeyError | NoStock | Refused])
    assert_type(source.bind_future_result(fetch), ResultStream[bytes, KeyError | NoStock | Refused])
