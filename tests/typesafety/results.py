# mypy: disable-error-code="unused-awaitable"
"""Never run. What mypy and pyright infer for the operators on streams of Results."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from aiostream import Stream
from returns.future import FutureResult
from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream, pipe, results

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator


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


def half(n: int) -> float:
    return n / 2


def positive(n: int) -> bool:
    return n > 0


def negative(n: int) -> KeyError:
    return KeyError(n)


def many(n: int) -> AsyncIterator[Result[bytes, KeyError]]:
    raise KeyError(n)


async def count(n: int) -> Result[bool, Refused]:
    return Success(bool(n))


def recover(error: ValueError) -> Result[bool, Refused]:
    return Success(True) if error.args else Failure(Refused())


async def recover_async(error: ValueError) -> Result[bool, Refused]:
    return recover(error)


def say(error: ValueError) -> str:
    return str(error)


def look(n: int) -> None:
    print(n)


async def note(n: int) -> None:
    print(n)


def look_at(error: ValueError) -> None:
    print(error)


async def note_error(error: ValueError) -> None:
    print(error)


def source_first(s: ResultStream[int, ValueError], stop: asyncio.Event) -> None:
    """The source comes first, so lambdas infer."""
    assert_type(results.map_result(s, lambda n: n / 2), ResultStream[float, ValueError])
    assert_type(results.filter_result(s, lambda n: n > 1), ResultStream[int, ValueError])
    assert_type(results.bind_result(s, reserve), ResultStream[str, ValueError | NoStock])
    reserved = results.bind_result(s, reserve)
    assert_type(
        results.bind_async_result(reserved, charge, concurrency=2),
        ResultStream[float, ValueError | NoStock | Refused],
    )
    assert_type(
        results.bind_future_result(reserved, charge_future),
        ResultStream[float, ValueError | NoStock | Refused],
    )
    assert_type(results.map_async(s, double), ResultStream[int, ValueError])
    assert_type(results.attempt(s, half, OSError), ResultStream[float, ValueError | OSError])
    assert_type(
        results.attempt_async(s, double, OSError, KeyError),
        ResultStream[int, ValueError | OSError | KeyError],
    )
    assert_type(results.flat_map(s, many), ResultStream[bytes, ValueError | KeyError])
    assert_type(
        results.ensure(s, positive, lambda n: KeyError(n)), ResultStream[int, ValueError | KeyError]
    )
    assert_type(results.tap(s, print), ResultStream[int, ValueError])
    assert_type(results.tap_async(s, note), ResultStream[int, ValueError])
    assert_type(results.tap_result(s, reserve), ResultStream[int, ValueError | NoStock])
    assert_type(results.tap_result_async(s, count), ResultStream[int, ValueError | Refused])
    assert_type(results.alt(s, lambda error: str(error)), ResultStream[int, str])
    assert_type(results.alt(s, say), ResultStream[int, str])
    assert_type(results.bimap(s, half, say), ResultStream[float, str])
    assert_type(results.lash(s, recover), ResultStream[int | bool, Refused])
    assert_type(results.lash_async(s, recover_async), ResultStream[int | bool, Refused])
    assert_type(results.tap_failure(s, print), ResultStream[int, ValueError])
    assert_type(results.tap_failure_async(s, note_error), ResultStream[int, ValueError])
    assert_type(results.drain_on(s, stop), ResultStream[int, ValueError])
    assert_type(results.progress(s, 9), ResultStream[int, ValueError])
    assert_type(results.drain_on(s, stop=stop), ResultStream[int, ValueError])
    assert_type(results.ensure(s, positive, error=str), ResultStream[int, ValueError | str])
    assert_type(results.tap_async(s, note, concurrency=2), ResultStream[int, ValueError])
    assert_type(
        results.lash_async(s, recover_async, concurrency=2), ResultStream[int | bool, Refused]
    )
    assert_type(
        results.tap_failure_async(s, note_error, ordered=False), ResultStream[int, ValueError]
    )
    assert_type(results.successes(s), Stream[int])
    assert_type(results.failures(s), Stream[ValueError])
    results.map_result(s, str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.bind_result(s, half)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.bind_async_result(s, charge)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.attempt(s, half)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    results.attempt_async(s, half, OSError)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    results.filter_result(s, str.isdigit)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.bind_future_result(s, charge_future)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.map_async(s, half)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.flat_map(s, reserve)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.ensure(s, positive, str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.tap(s, str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.tap_result(s, half)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.tap_result_async(s, half)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.tap_async(s, look)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.alt(s, str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.bimap(s, say, half)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.lash(s, say)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.lash_async(s, recover)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.tap_failure(s, str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.tap_failure_async(s, look_at)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.progress(s, 2.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.drain_on(s, 2.0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.successes(results.successes(s))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.failures(results.successes(s))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def piped(s: ResultStream[int, ValueError], stop: asyncio.Event) -> None:
    """Named functions keep every type after ``|``."""
    assert_type(s | pipe.map_result(half), ResultStream[float, ValueError])
    assert_type(s | pipe.filter_result(positive), ResultStream[int, ValueError])
    assert_type(s | pipe.bind_result(reserve), ResultStream[str, ValueError | NoStock])
    assert_type(
        s | pipe.bind_result(reserve) | pipe.bind_async_result(charge, concurrency=2),
        ResultStream[float, ValueError | NoStock | Refused],
    )
    assert_type(
        s | pipe.bind_result(reserve) | pipe.bind_future_result(charge_future),
        ResultStream[float, ValueError | NoStock | Refused],
    )
    assert_type(s | pipe.map_async(double), ResultStream[int, ValueError])
    assert_type(s | pipe.attempt(half, OSError), ResultStream[float, ValueError | OSError])
    assert_type(
        s | pipe.attempt_async(double, OSError, KeyError, concurrency=2),
        ResultStream[int, ValueError | OSError | KeyError],
    )
    assert_type(s | pipe.flat_map(many), ResultStream[bytes, ValueError | KeyError])
    assert_type(s | pipe.ensure(positive, negative), ResultStream[int, ValueError | KeyError])
    assert_type(s | pipe.tap(look), ResultStream[int, ValueError])
    assert_type(s | pipe.tap(print), ResultStream[int, ValueError])
    assert_type(s | pipe.tap_failure(print), ResultStream[int, ValueError])
    assert_type(s | pipe.tap_async(note), ResultStream[int, ValueError])
    assert_type(s | pipe.tap_result(reserve), ResultStream[int, ValueError | NoStock])
    assert_type(s | pipe.tap_result_async(count), ResultStream[int, ValueError | Refused])
    assert_type(s | pipe.alt(say), ResultStream[int, str])
    assert_type(s | pipe.bimap(half, say), ResultStream[float, str])
    assert_type(s | pipe.lash(recover), ResultStream[int | bool, Refused])
    assert_type(s | pipe.lash_async(recover_async), ResultStream[int | bool, Refused])
    assert_type(s | pipe.tap_failure(look_at), ResultStream[int, ValueError])
    assert_type(s | pipe.tap_failure_async(note_error), ResultStream[int, ValueError])
    assert_type(s | pipe.drain_on(stop), ResultStream[int, ValueError])
    assert_type(s | pipe.progress(9, description="orders"), ResultStream[int, ValueError])
    assert_type(s | pipe.ensure(positive, error=negative), ResultStream[int, ValueError | KeyError])
    assert_type(s | pipe.tap_async(note, concurrency=2), ResultStream[int, ValueError])
    assert_type(
        s | pipe.lash_async(recover_async, concurrency=2), ResultStream[int | bool, Refused]
    )
    assert_type(
        s | pipe.tap_failure_async(note_error, ordered=False), ResultStream[int, ValueError]
    )
    assert_type(s | pipe.successes(), Stream[int])
    assert_type(s | pipe.failures(), Stream[ValueError])
    assert_type(s | pipe.chunks_or_timeout(500, 2.0), Stream[list[Result[int, ValueError]]])
    _ = s | pipe.map_result(str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.bind_async_result(charge)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.filter_result(str.isdigit)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.bind_result(charge)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.bind_future_result(charge_future)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.map_async(half)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.attempt(str.upper, OSError)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.attempt_async(note_error, OSError)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.flat_map(reserve)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.ensure(positive, str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.tap(str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    pipe.tap_result(half)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pipe.tap_result_async(half)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    _ = s | pipe.tap_async(note_error)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.alt(str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.bimap(say, half)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.lash(reserve)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.lash_async(recover)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.tap_failure(look)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.tap_failure_async(note)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.successes() | pipe.failures()  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.failures() | pipe.successes()  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.progress(2.5)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.drain_on(2.0)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
    _ = s | pipe.chunks_or_timeout("500", 2.0)  # type: ignore[arg-type]  # pyright: ignore[reportOperatorIssue]
