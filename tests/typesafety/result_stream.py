# mypy: disable-error-code="unused-awaitable"
"""Never run. What mypy and pyright infer for `ResultStream`, and what they refuse."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Never, TypeVar, assert_type

from aiostream import Stream
from returns.future import Future, FutureResult
from returns.io import IOSuccess
from returns.result import Failure, Result, Success
from typing_extensions import TypeIs

from returns_pipeline import (
    Counts,
    FailedItems,
    ItemError,
    ResultStream,
    StepContext,
    StreamEmpty,
    cases,
    err,
    ok,
    pipe,
    to_result,
    with_item,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable


E = TypeVar("E")


class NoStock(Exception):
    """An error of one step."""


class Refused(Exception):
    """An error of another."""


def reserve(n: int) -> Result[str, NoStock]:
    return Success(str(n)) if n else Failure(NoStock())


async def charge(item: str) -> Result[float, Refused]:
    return Success(float(item))


def charge_future(item: str) -> FutureResult[float, Refused]:
    return FutureResult(charge(item))


async def double(n: int) -> int:
    return 2 * n


def many(n: int) -> AsyncIterator[Result[bytes, KeyError]]:
    raise KeyError(n)


def recover(error: NoStock) -> Result[bool, Refused]:
    return Success(True) if error.args else Failure(Refused())


async def recover_async(error: NoStock) -> Result[bool, Refused]:
    return recover(error)


async def note(value: object) -> None:
    print(value)


async def append(text: str, n: int) -> str:
    return text + str(n)


def of(
    source: AsyncIterable[int],
    results: AsyncIterable[Result[int, NoStock]],
    batches: AsyncIterable[list[int]] | AsyncIterable[tuple[int, ...]],
) -> None:
    """Plain values cannot fail; Results are taken as they are."""
    assert_type(ResultStream.of(source), ResultStream[int, Never])
    assert_type(ResultStream.from_results(results), ResultStream[int, NoStock])
    assert_type(ResultStream.from_batches(batches), ResultStream[int, Never])
    assert_type(ResultStream.from_batches(batches).map(lambda n: n / 2), ResultStream[float, Never])
    assert_type(ResultStream.from_batches(batches).or_failure(OSError), ResultStream[int, OSError])
    assert_type(ResultStream.of(source).or_failure(OSError), ResultStream[int, OSError])
    assert_type(
        ResultStream.of(source).or_failure(OSError, KeyError), ResultStream[int, OSError | KeyError]
    )
    ResultStream.of([1, 2])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ResultStream.from_results(source)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ResultStream.from_batches(source)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ResultStream.from_batches([[1]])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ResultStream.of(source).or_failure()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    ResultStream.of(source).or_failure("x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def values(s: ResultStream[int, ValueError], stop: asyncio.Event) -> None:
    """Each step's type follows from the one before, lambdas included; errors widen."""
    assert_type(s.map(lambda n: n / 2), ResultStream[float, ValueError])
    assert_type(s.bind(reserve), ResultStream[str, ValueError | NoStock])
    assert_type(
        s.bind(reserve).bind_async(charge), ResultStream[float, ValueError | NoStock | Refused]
    )
    assert_type(
        s.bind(reserve).bind_future_result(charge_future, concurrency=4, ordered=False),
        ResultStream[float, ValueError | NoStock | Refused],
    )
    assert_type(s.map_async(double, concurrency=8), ResultStream[int, ValueError])
    assert_type(s.filter(lambda n: n > 1), ResultStream[int, ValueError])
    assert_type(
        s.ensure(lambda n: n > 1, lambda n: KeyError(n)), ResultStream[int, ValueError | KeyError]
    )
    assert_type(s.tap(lambda n: print(n + 1)), ResultStream[int, ValueError])
    assert_type(s.ensure(bool, error=str), ResultStream[int, ValueError | str])
    assert_type(s.tap_async(note), ResultStream[int, ValueError])
    assert_type(s.tap_async(note, concurrency=2, ordered=False), ResultStream[int, ValueError])
    assert_type(s.flat_map(many, concurrency=2), ResultStream[bytes, ValueError | KeyError])
    assert_type(s.chunks_or_timeout(500, 2.0), ResultStream[list[int], ValueError])
    assert_type(s.drain_on(stop), ResultStream[int, ValueError])
    assert_type(s.progress(), ResultStream[int, ValueError])
    assert_type(s.progress(9, description="orders", file=sys.stderr), ResultStream[int, ValueError])
    assert_type(s.progress(total=9), ResultStream[int, ValueError])
    assert_type(s.drain_on(stop=stop), ResultStream[int, ValueError])
    assert_type(s.successes(), Stream[int])
    s.map(str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.bind(str)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.bind(charge)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.bind_async(reserve)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.bind_future_result(double)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.map_async(abs)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.filter(lambda n: n.upper())  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownLambdaType]
    s.ensure(bool, str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.tap(str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.tap_async(print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.flat_map(reserve)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.chunks_or_timeout("500", 2.0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.progress(2.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.progress(file="log")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.drain_on(2.0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.map_async(double, 8)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def attempts(s: ResultStream[str, NoStock]) -> None:
    """Listed exceptions are errors, each of them by name."""
    assert_type(s.attempt(int, ValueError), ResultStream[int, NoStock | ValueError])
    assert_type(
        s.attempt(lambda item: item.encode(), ValueError, KeyError),
        ResultStream[bytes, NoStock | ValueError | KeyError],
    )
    assert_type(
        s.attempt(int, ValueError, KeyError, OSError),
        ResultStream[int, NoStock | ValueError | KeyError | OSError],
    )
    assert_type(
        s.attempt_async(note, OSError, concurrency=3), ResultStream[None, NoStock | OSError]
    )
    s.attempt(int)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    s.attempt(int, "ValueError")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    s.attempt_async(int, OSError)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]


def failures(s: ResultStream[int, NoStock]) -> None:
    """Steps about failures replace the error type or recover from it."""
    assert_type(s.alt(lambda error: str(error)), ResultStream[int, str])
    assert_type(s.bimap(str, lambda error: len(error.args)), ResultStream[str, int])
    assert_type(s.lash(recover), ResultStream[int | bool, Refused])
    assert_type(s.lash_async(recover_async), ResultStream[int | bool, Refused])
    assert_type(s.lash_async(recover_async, concurrency=2), ResultStream[int | bool, Refused])
    assert_type(s.tap_failure(print), ResultStream[int, NoStock])
    assert_type(s.tap_failure_async(note), ResultStream[int, NoStock])
    assert_type(s.tap_failure_async(note, concurrency=2), ResultStream[int, NoStock])
    assert_type(s.failures(), Stream[NoStock])
    s.alt(str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.bimap(str.upper, str)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.lash(str)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.lash_async(recover)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.tap_failure(str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.tap_failure_async(print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def terminals(s: ResultStream[int, NoStock]) -> None:
    """What is returned at the end."""
    assert_type(s.collect(), FutureResult[list[int], NoStock])
    assert_type(s.collect_all(), FutureResult[list[int], FailedItems[int, NoStock]])
    assert_type(s.partition(), Future[tuple[list[int], list[NoStock]]])
    assert_type(s.for_each(print), FutureResult[int, NoStock])
    assert_type(s.for_each(note), FutureResult[int, NoStock])
    assert_type(s.map(str).for_each(charge), FutureResult[int, NoStock | Refused])
    assert_type(s.map(str).for_each(charge_future), FutureResult[int, NoStock | Refused])
    assert_type(s.run_all(), Future[Counts])
    assert_type(s.fold("", lambda text, n: text + str(n)), FutureResult[str, NoStock])
    assert_type(s.fold("", append), FutureResult[str, NoStock])
    assert_type(s.fold("", lambda text, n: append(text, n)), FutureResult[str, NoStock])
    assert_type(s.first(), FutureResult[int, NoStock | StreamEmpty])
    assert_type(s.last(), FutureResult[int, NoStock | StreamEmpty])
    assert_type(s.run(), FutureResult[int, NoStock])
    s.collect(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    s.collect_all(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    s.partition(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    s.first(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    s.last(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    s.run(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    s.successes(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    s.failures(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    s.stream(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    cases(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.run_all(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Counts(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    s.for_each(str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.fold(0, append)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.fold("", lambda n, text: n + text)  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownLambdaType, reportArgumentType]


async def as_stream(
    s: ResultStream[int, NoStock], other: ResultStream[str, Refused], plain: Stream[bytes]
) -> None:
    """It is an aiostream stream of Results."""
    async with s.stream() as items:
        async for item in items:
            assert_type(item, Result[int, NoStock])
            match cases(item):
                case Success(n):
                    assert_type(n, int)
                case Failure(error):
                    assert_type(error, NoStock)
    assert_type(await s, Result[int, NoStock])
    assert_type(s[1:3], ResultStream[int, NoStock])
    assert_type(s[1], ResultStream[int, NoStock])
    assert_type(s + other, ResultStream[int | str, NoStock | Refused])
    assert_type(s + plain, Stream[Result[int, NoStock] | bytes])
    _ = s["1"]  # type: ignore[index]  # pyright: ignore[reportArgumentType]
    _ = s + 1  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]


def variance(s: ResultStream[bool, NoStock]) -> ResultStream[int, Exception]:
    """A stream of a narrower type can be used as one of a wider type."""
    return s


def wrong_variance(s: ResultStream[int, Exception]) -> ResultStream[bool, NoStock]:
    """But not the other way round."""
    return s  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


async def to_a_value(
    step: FutureResult[int, ValueError], coroutine: Awaitable[Result[str, KeyError]]
) -> None:
    """A step of either form, and a terminal, return the plain Result."""
    assert_type(await to_result(step), Result[int, ValueError])
    assert_type(await to_result(coroutine), Result[str, KeyError])
    await to_result(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def effects_that_can_fail(s: ResultStream[int, ValueError]) -> None:
    """A failure of the effect widens the error; the value stays as it is."""
    assert_type(s.tap_result(reserve), ResultStream[int, ValueError | NoStock])
    assert_type(s.map(str).tap_result_async(charge), ResultStream[str, ValueError | Refused])
    assert_type(s.map(str).tap_result_async(charge_future), ResultStream[str, ValueError | Refused])
    s.tap_result(str)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.tap_result_async(double)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def halves(s: ResultStream[int, ValueError]) -> ResultStream[list[int], ValueError]:
    return s.chunks_or_timeout(2, 1.0)


def own_stages(s: ResultStream[int, ValueError], words: ResultStream[str, ValueError]) -> None:
    """A function of a stream is a stage."""
    assert_type(s.through(halves), ResultStream[list[int], ValueError])
    assert_type(s | halves, ResultStream[list[int], ValueError])
    assert_type(s.through(lambda t: t.map(str)), ResultStream[str, ValueError])
    words.through(halves)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    _ = words | halves  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]


def constructors(s: ResultStream[int, ValueError]) -> None:
    """The other side of the Result is `Never`, also in a lambda."""
    assert_type(ok(1), Result[int, Never])
    assert_type(err("no"), Result[Never, str])
    assert_type(s.bind(lambda n: ok(str(n))), ResultStream[str, ValueError])
    assert_type(s.bind(lambda _: err(NoStock())), ResultStream[Never, ValueError | NoStock])
    ok()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    err()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def what_await_gave(s: ResultStream[int, NoStock]) -> str:
    """The outcome of a terminal is matched exactly, and exhaustively."""
    match cases(await s.collect()):
        case Success(values):
            assert_type(values, list[int])
            return "a"
        case Failure(error):
            assert_type(error, NoStock)
            return "b"


async def persist(n: int, step: StepContext, *, twice: bool = False) -> Result[str, NoStock]:
    return Success(step.path) if twice else Failure(NoStock())


def with_their_items(s: ResultStream[int, ValueError], ctx: StepContext) -> None:
    """The step's first argument is the item; its other parameters stay."""
    assert_type(s.bind(with_item(reserve)), ResultStream[str, ValueError | ItemError[int, NoStock]])
    assert_type(
        s.map(str).bind_async(with_item(charge)),
        ResultStream[float, ValueError | ItemError[str, Refused]],
    )
    assert_type(
        s.map(str).bind_async(with_item(charge_future)),
        ResultStream[float, ValueError | ItemError[str, Refused]],
    )
    assert_type(
        s.bind_step(with_item(persist), ctx, name="store"),
        ResultStream[str, ValueError | ItemError[int, NoStock]],
    )
    assert_type(with_item(persist)(1, ctx, twice=True), FutureResult[str, ItemError[int, NoStock]])
    assert_type(ItemError(1, "odd").item, int)
    with_item(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    with_item(persist)("1", ctx)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ItemError(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(s.for_each_all(reserve), Future[Counts])
    s.for_each_all(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def success_and_failure_in_lambdas(s: ResultStream[int, ValueError]) -> None:
    """The side that is not there is ``Never``, and not ``Any``."""
    assert_type(s.bind(lambda n: Success(str(n))), ResultStream[str, ValueError])
    assert_type(
        s.bind(lambda n: Success(n) if n else Failure(NoStock())),
        ResultStream[int, ValueError | NoStock],
    )
    assert_type(s.bind(lambda n: Failure(NoStock())), ResultStream[Never, ValueError | NoStock])
    assert_type(s.lash(lambda error: Success(0)), ResultStream[int, Never])
    assert_type(s.lash(lambda error: Failure(str(error))), ResultStream[int, str])
    assert_type(s.tap_result(lambda n: Failure(n)), ResultStream[int, ValueError | int])
    wrong: ResultStream[str, NoStock] = s.bind(lambda n: Success(str(n)))  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    s.bind(lambda n: IOSuccess(n))  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType, reportReturnType]
    print(wrong)


def is_text(value: object) -> TypeIs[str]:
    return isinstance(value, str)


async def is_wanted(value: object) -> bool:
    return bool(value)


def predicates(s: ResultStream[int | str, ValueError]) -> None:
    """A predicate returns a bool, or narrows."""
    assert_type(s.filter(is_text), ResultStream[str, ValueError])
    assert_type(s.ensure(is_text, KeyError), ResultStream[str, ValueError | KeyError])
    assert_type(s.filter(lambda value: value == 1), ResultStream[int | str, ValueError])
    assert_type(s.filter(bool), ResultStream[int | str, ValueError])
    assert_type(pipe.filter_result(is_text)(s), ResultStream[str, ValueError])
    s.filter(is_wanted)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    s.filter(repr)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    s.ensure(is_wanted, KeyError)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    s.filter(lambda value: value.missing)  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownLambdaType]


async def the_end_of_a_program(s: ResultStream[int, NoStock]) -> str:
    """What a terminal gives is matched exactly, whether it is awaited plainly or by `to_result`."""
    match cases(await s.collect()):
        case Success(values):
            assert_type(values, list[int])
        case Failure(error):
            assert_type(error, NoStock)
    match cases(await to_result(s.collect_all())):
        case Success(values):
            return str(values)
        case Failure(failed):
            assert_type(failed, FailedItems[int, NoStock])
            return str(failed.errors)


def not_the_end(s: ResultStream[int, NoStock]) -> None:
    """A terminal that is not awaited has no cases."""
    cases(s.collect())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def save(n: int) -> Result[None, Refused]:
    return Failure(Refused(n))


def save_future(n: int) -> FutureResult[None, Refused]:
    return FutureResult(save(n))


def failures_of_a_terminals_function(s: ResultStream[int, NoStock]) -> None:
    """Its failures widen the error of the terminal."""
    assert_type(s.for_each(save), FutureResult[int, NoStock | Refused])
    assert_type(s.for_each(save_future), FutureResult[int, NoStock | Refused])
    assert_type(s.for_each(reserve), FutureResult[int, NoStock])
    assert_type(s.for_each(print), FutureResult[int, NoStock])
    s.for_each(charge)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]


def by_three(source: ResultStream[int, E]) -> ResultStream[list[int], E]:
    return source.chunks_or_timeout(3, 1.0)


def half(n: int) -> Result[int, ZeroDivisionError]:
    return Success(n // 2)


def stages_of_any_error(s: ResultStream[int, NoStock]) -> None:
    """A stage that is generic in the error keeps it, also after piped steps."""
    assert_type(by_three(s), ResultStream[list[int], NoStock])
    assert_type(s | by_three, ResultStream[list[int], NoStock])
    assert_type(
        s | pipe.bind_result(half) | by_three, ResultStream[list[int], NoStock | ZeroDivisionError]
    )
    _ = s.map(str) | by_three  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
