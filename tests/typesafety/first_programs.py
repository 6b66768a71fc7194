# mypy: disable-error-code="unused-awaitable, unused-coroutine"
# pyright: reportUnusedCoroutine=false
"""Never run. What newcomers write first is exact in both checkers, without a cast or a plugin."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Never, ParamSpec, TypeVar, assert_type

from returns.future import FutureResult, future_safe
from returns.io import IO
from returns.result import Failure, Result, Success
from returns.unsafe import unsafe_perform_io

from returns_pipeline import (
    CompensationRegistry,
    Counts,
    FailedItems,
    ItemError,
    ResultStream,
    RetryPolicy,
    Saga,
    StepContext,
    StreamEmpty,
    cases,
    combine,
    err,
    ok,
    pipe,
    results,
    sources,
    to_result,
    with_item,
)
from returns_pipeline.errors import AllFailed, CircuitOpen, RetriesExhausted, StepTimeout
from returns_pipeline.policies import (
    Tier,
    all_of,
    circuit_breaker,
    hedge,
    race,
    with_policy,
    with_retry,
    with_timeout,
)
from returns_pipeline.windows import EventWindow, TumblingWindows

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterable, Awaitable, Callable

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
E = TypeVar("E")


class Bad(Exception):
    """A record that is none."""


class WriteError(Exception):
    """A window that was not written."""


class PublishError(Exception):
    """A window that was not announced."""


@dataclass(frozen=True)
class Event:
    """A record."""

    id: int
    amount: float
    at: float


registry = CompensationRegistry()


def parse(text: str) -> Result[Event, Bad]:
    return Success(Event(int(text), 1.0, 0.0)) if text.isdigit() else Failure(Bad(text))


@registry.compensation("delete")
async def delete(key: str) -> bool:
    return bool(key)


@future_safe(exceptions=(WriteError,))
async def persist(batch: list[Event], step: StepContext) -> int:
    await step.register(delete, step.key)
    return len(batch)


async def publish(n: int) -> Result[str, PublishError]:
    return ok(str(n)) if n else err(PublishError())


async def announce(event: Event) -> Result[str, PublishError]:
    return await publish(event.id)


async def ingest_to_publish(lines: AsyncIterable[str]) -> int:
    """Read, validate, group, persist, publish, and tell all failures apart."""
    async with StepContext("batcher") as ctx:
        chain = (
            ResultStream.of(lines)
            .bind(parse)
            .chunks_or_timeout(500, 2.0)
            .bind_step(persist, ctx)
            .bind_async(publish, concurrency=4)
        )
        assert_type(chain, ResultStream[str, Bad | WriteError | PublishError])
        match cases(await ctx.run(chain.collect())):
            case Success(ids):
                assert_type(ids, list[str])
                return len(ids)
            case Failure(Bad() as error):
                return len(error.args)
            case Failure(WriteError() | PublishError()):
                return -1
            case Failure(_):  # mypy does not narrow by what is inside of a Failure
                return -2


async def ends(s: ResultStream[Event, Bad]) -> str:
    """The other terminals, to their values."""
    assert_type(await s.run_all(), IO[Counts])
    assert_type(unsafe_perform_io(await s.run_all()), Counts)
    events, errors = unsafe_perform_io(await s.partition())
    assert_type((events, errors), tuple[list[Event], list[Bad]])
    assert_type(await to_result(s.fold(0.0, lambda total, e: total + e.amount)), Result[float, Bad])
    match cases(await s.first()):
        case Success(event):
            assert_type(event, Event)
        case Failure(StreamEmpty()):
            return "empty"
        case Failure(_):
            return "bad"
    match cases(await to_result(s.collect_all())):
        case Success(found):
            return str(found)
        case Failure(FailedItems(good, bad)):
            assert_type((good, bad), tuple[list[Event], list[Bad]])
            return f"{len(good)} {len(bad)}"


def lambdas(s: ResultStream[Event, Bad]) -> None:
    """What a lambda returns is seen as it is."""
    assert_type(
        s.bind(lambda e: ok(e.amount) if e.amount > 0 else err(WriteError())),
        ResultStream[float, Bad | WriteError],
    )
    assert_type(s.bind(lambda e: Success(e.id)), ResultStream[int, Bad])
    assert_type(s.lash(lambda e: ok(0) if e.args else err("none")), ResultStream[Event | int, str])
    assert_type(s.lash(lambda e: Failure(str(e))), ResultStream[Event, str])
    assert_type(s.bimap(lambda e: e.id, lambda e: str(e)), ResultStream[int, str])
    assert_type(
        s.tap_result(lambda e: ok(None) if e.id else err(KeyError(e.id))),
        ResultStream[Event, Bad | KeyError],
    )
    assert_type(
        s.keyed_chunks(5, 1.0, key=lambda e: e.id).map(lambda pair: (pair[0], len(pair[1]))),
        ResultStream[tuple[int, int], Bad],
    )
    assert_type(
        s.event_windows(TumblingWindows(60.0), timestamp=lambda e: e.at, key=lambda e: e.id),
        ResultStream[EventWindow[int, Event], Bad],
    )
    assert_type(
        s.attempt(lambda e: 1 / e.id, ZeroDivisionError, OverflowError),
        ResultStream[float, Bad | ZeroDivisionError | OverflowError],
    )
    assert_type(
        s.flat_map(lambda e: ResultStream.of(sources.from_iterable([e.id]))), ResultStream[int, Bad]
    )
    assert_type(
        s.filter(lambda e: e.id > 1).ensure(lambda e: e.amount > 0, lambda e: WriteError(e.id)),
        ResultStream[Event, Bad | WriteError],
    )


def together(
    a: ResultStream[Event, Bad],
    b: ResultStream[int, WriteError],
    c: ResultStream[str, PublishError],
) -> None:
    """Streams of different types keep the union."""
    assert_type(a.merge(b), ResultStream[Event | int, Bad | WriteError])
    assert_type(a + b, ResultStream[Event | int, Bad | WriteError])
    assert_type(a.zip(b), ResultStream[tuple[Event, int], Bad | WriteError])
    assert_type(
        ResultStream.from_results(combine.concat(a, b, c)),
        ResultStream[Event | int | str, Bad | WriteError | PublishError],
    )
    assert_type(
        ResultStream.from_results(combine.merge_prioritized((2, a), (1, b), (3, c))),
        ResultStream[Event | int | str, Bad | WriteError | PublishError],
    )
    one, another = a.broadcast(2)
    assert_type((one, another), tuple[ResultStream[Event, Bad], ResultStream[Event, Bad]])


def logged(func: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """An ordinary decorator."""

    @functools.wraps(func)
    async def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        return await func(*args, **kwargs)

    return inner


@logged
async def reserve(order: int, fast: bool = False) -> Result[str, KeyError]:
    return Success(f"{order}{fast}")


async def release(reservation: str) -> None: ...


async def charge(reservation: str, step: StepContext) -> Result[float, ValueError]:
    return Success(float(reservation + step.name))


async def refund(paid: float) -> None: ...


async def saga() -> None:
    """Steps that were decorated, take their context, and have defaults."""
    made = Saga("ship").step("reserve", reserve, undo=release).step("charge", charge, undo=refund)
    assert_type(made, Saga[int, float, KeyError | ValueError])
    assert_type(await to_result(made.run(1)), Result[float, KeyError | ValueError])
    assert_type(await delete("key"), bool)
    Saga("ship").step("reserve", reserve, undo=refund)  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]


def batched(source: ResultStream[T, E]) -> ResultStream[list[T], E]:
    """A stage of one's own."""
    return source.chunks_or_timeout(10, 1.0)


def at_least(n: float) -> Callable[[ResultStream[Event, E]], ResultStream[Event, E | WriteError]]:
    """A stage with an argument."""

    def stage(source: ResultStream[Event, E]) -> ResultStream[Event, E | WriteError]:
        return source.ensure(lambda e: e.amount >= n, lambda e: WriteError(e.id))

    return stage


def stages(s: ResultStream[Event, Bad], texts: ResultStream[str, Bad]) -> None:
    """After a bar, and by `through`."""
    assert_type(s | batched, ResultStream[list[Event], Bad])
    assert_type(s | at_least(3.0), ResultStream[Event, Bad | WriteError])
    assert_type(
        s.through(at_least(3.0)).through(batched), ResultStream[list[Event], Bad | WriteError]
    )
    assert_type(
        s | pipe.bind_async_result(announce) | batched,
        ResultStream[list[str], Bad | PublishError],
    )
    assert_type(results.bind_result(texts, parse), ResultStream[Event, Bad])
    assert_type(texts | pipe.tap(print), ResultStream[str, Bad])
    texts | at_least(3.0)  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnusedExpression]


async def near(order: int) -> Result[str, KeyError]:
    return Success(str(order))


async def far(order: int, *, fast: bool = True) -> Result[bytes, OSError]:
    return Success(bytes(order if fast else 0))


def policies() -> None:
    """Steps with parameters that have defaults."""
    assert_type(race(near, far)(1), FutureResult[str | bytes, AllFailed[KeyError | OSError]])
    assert_type(all_of(near, far)(1), FutureResult[tuple[str, bytes], KeyError | OSError])
    assert_type(Tier("a", near, far), Tier[int, str | bytes, KeyError | OSError])
    assert_type(with_timeout(far, 1.0)(1, fast=False), FutureResult[bytes, OSError | StepTimeout])
    assert_type(
        with_retry(reserve, RetryPolicy(3))(1, fast=True),
        FutureResult[str, RetriesExhausted[KeyError]],
    )
    assert_type(
        with_policy(near, circuit_breaker(3, 1.0))(1), FutureResult[str, KeyError | CircuitOpen]
    )


def dead_letters(s: ResultStream[str, Bad]) -> None:
    """A failure has its item."""
    assert_type(s.bind(with_item(parse)), ResultStream[Event, Bad | ItemError[str, Bad]])


async def fed(queue: asyncio.Queue[int]) -> None:
    """Streams of what is at hand."""
    channel = sources.Channel[str](10)
    s = ResultStream.of(channel).bind(parse)
    assert_type(s, ResultStream[Event, Bad])
    assert_type(ResultStream.of(sources.from_queue(queue)), ResultStream[int, Never])
    assert_type(await to_result(s.for_each(announce)), Result[int, Bad | PublishError])
    assert_type(await to_result(s.for_each(print)), Result[int, Bad])


def outcomes(
    s: ResultStream[int, Bad],
    task: Callable[[int], asyncio.Task[Result[str, PublishError]]],
    awaitable: Callable[[int], Awaitable[Result[str, PublishError]]],
    nothing: Callable[[int], Awaitable[None]],
) -> None:
    """A step may return any awaitable of a Result."""
    assert_type(s.bind_async(task), ResultStream[str, Bad | PublishError])
    assert_type(s.bind_async(awaitable), ResultStream[str, Bad | PublishError])
    assert_type(s.for_each(task), FutureResult[int, Bad | PublishError])
    assert_type(s.for_each(awaitable), FutureResult[int, Bad | PublishError])
    assert_type(s.for_each(nothing), FutureResult[int, Bad])
    assert_type(
        with_retry(awaitable, RetryPolicy(2))(1), FutureResult[str, RetriesExhausted[PublishError]]
    )
    s.bind_async(nothing)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def stream_of(n: int) -> ResultStream[int, Bad]:
    raise NotImplementedError


async def no_outcomes(
    s: ResultStream[int, Bad], read: Callable[[int], ResultStream[int, Bad]]
) -> None:
    """But no stream without a terminal; it awaits to its last item, as in aiostream."""
    assert_type(await s, Result[int, Bad])
    with_retry(read, RetryPolicy(2))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with_timeout(read, 2.0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with_policy(read, RetryPolicy(2))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    race(read)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    all_of(read)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    hedge(read, after=1.0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    circuit_breaker(2, 2.0)(read)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Saga("shop").step("read", read)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    s.bind_async(read)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.bind_async(stream_of)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.bind_future_result(read)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
