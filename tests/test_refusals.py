"""What a hurried newcomer gets wrong is refused: at the call, or by name where it shows."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest
from aiostream import stream
from returns.future import FutureResult
from returns.result import Result, Success

from returns_pipeline import (
    CompensationRegistry,
    ResultStream,
    StepContext,
    combine,
    err,
    pipe,
    results,
    to_result,
)
from returns_pipeline.journal import recover
from returns_pipeline.policies import (
    RetryPolicy,
    Timeout,
    all_of,
    circuit_breaker,
    race,
    with_policy,
    with_retry,
    with_timeout,
)
from returns_pipeline.saga import Saga
from returns_pipeline.sources import from_iterable
from returns_pipeline.testing import run
from returns_pipeline.windows import TumblingWindows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def numbers() -> ResultStream[int, Any]:
    return ResultStream.of(stream.range(4, interval=0.0))


async def save(n: Any) -> Result[int, str]:
    return Success(n)


async def lines(n: Any) -> AsyncIterator[Result[int, str]]:
    yield Success(n)


def parse(n: Any) -> Any:
    return n


def parse_result(n: Any) -> Result[int, str]:
    return Success(n)


async def read(n: Any) -> Any:
    return n


async def parse_later(n: Any) -> Any:
    return n


async def slowly(n: Any) -> Any:
    return n


class Saving:
    """Is called like a coroutine function."""

    async def __call__(self, n: Any) -> Result[int, str]:
        return Success(n)


S = ResultStream[Any, Any]
context_run: Any = StepContext("shop").run

AT_THE_CALL: dict[str, Callable[[S], object]] = {
    "map() does not await save(): use map_async()": lambda s: s.map(save),
    "bind() does not await save(): use bind_async()": lambda s: s.bind(save),  # type: ignore[arg-type]
    "filter() does not await save(): use bind_async()": lambda s: s.filter(save),  # type: ignore[arg-type]
    "ensure() does not await save(): use bind_async()": lambda s: s.ensure(save, str),  # type: ignore[arg-type]
    "tap() does not await save(): use tap_async()": lambda s: s.tap(save),  # type: ignore[deprecated]
    "tap_result() does not await save(): use tap_result_async()": lambda s: s.tap_result(save),  # type: ignore[arg-type]
    "tap_failure() does not await save(): use tap_failure_async()": lambda s: s.tap_failure(save),  # type: ignore[deprecated]
    "attempt() does not await save(): use attempt_async()": lambda s: s.attempt(save, OSError),
    "alt() does not await save(): use lash_async()": lambda s: s.alt(save),
    "lash() does not await save(): use lash_async()": lambda s: s.lash(save),  # type: ignore[arg-type]
    "bimap() does not await save(): use map_async()": lambda s: s.bimap(save, str),
    "flat_map() does not await save(): use bind_async()": lambda s: s.flat_map(save),  # type: ignore[arg-type]
    "scan() does not await save(): use map_async()": lambda s: s.scan(0, save),  # type: ignore[arg-type]
    "map() does not await Saving(): use map_async()": lambda s: s.map(Saving()),
    "filter() does not await Saving(): use bind_async()": lambda s: s.filter(Saving()),  # type: ignore[arg-type]
    "fold() takes a function, not 3": lambda s: s.fold(0, 3),  # type: ignore[call-overload]
    "key= does not await save(): use map_async() before": lambda s: s.keyed_chunks(
        3, 1.0, key=save
    ),
    "key= does not await read(): use": lambda s: s.sessions(1.0, key=read),
    "key= does not await parse_later(): use": lambda s: s.distinct_until_changed(parse_later),
    "key= takes a function, not 'id'": lambda s: s.distinct_until_changed("id"),  # type: ignore[arg-type]
    "key= does not await slowly(): use": lambda s: s.route(slowly, lines),  # type: ignore[arg-type]
    "weight= does not await save(): use": lambda s: s.chunks_by_weight(3, 1.0, weight=save),  # type: ignore[arg-type]
    "timestamp= does not await save(): use": lambda s: s.event_windows(
        TumblingWindows(1.0),
        timestamp=save,  # type: ignore[arg-type]
    ),
    "partition= takes a function, not 3": lambda s: s.event_windows(
        TumblingWindows(1.0),
        timestamp=float,
        partition=3,  # type: ignore[arg-type]
    ),
    "key= does not await save(): use map_async()": lambda s: combine.distinct_until_changed(
        s, save
    ),
    "split() does not await save(): use ResultStream.map_async()": lambda s: combine.split(s, save),  # type: ignore[arg-type]
    "map() takes a function, not 3": lambda s: s.map(3),  # type: ignore[arg-type]
    "bind_async() takes a function, not 'save'": lambda s: s.bind_async("save"),  # type: ignore[arg-type]
    "bind_async() does not iterate over lines(): use flat_map()": lambda s: s.bind_async(lines),  # type: ignore[arg-type]
    "bind_step() takes a step, then its context: bind_step(persist, ctx)": lambda s: s.bind_step(
        StepContext("shop"),  # type: ignore[arg-type]
        save,  # type: ignore[arg-type]
    ),
    "run() was given a ResultStream: it has no outcome of its own": context_run,
    "to_result() was given a ResultStream: it has no outcome of its own": to_result,
    "with_policy() takes a step and then a policy, not save": lambda s: with_policy(
        circuit_breaker(1, 1.0),
        save,  # type: ignore[arg-type]
    ),
    "retry_on must be a class, a tuple of classes or a function (write a tuple": lambda s: (
        RetryPolicy(  # type: ignore[call-overload]
            retry_on=[OSError]
        )
    ),
    "wait must be at least 0 seconds and finite, not '1'": lambda s: RetryPolicy(wait="1"),  # type: ignore[call-overload]
    "a timeout must be above 0 seconds, not '1'": lambda s: Timeout("1"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("message", AT_THE_CALL)
def test_the_call_names_the_function_and_the_remedy(message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        _ = AT_THE_CALL[message](numbers())


def test_the_operators_of_results_and_pipe_refuse_the_same() -> None:
    message = re.escape("bind() does not await save(): use bind_async()")
    with pytest.raises(TypeError, match=message):
        _ = results.bind_result(numbers(), save)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=message):
        _ = pipe.bind_result(save)  # type: ignore[arg-type]


NO_RESULT: dict[str, Callable[[S], S]] = {
    "bind(parse), step 2 of the chain, returned 0 and no Result: did it mean Success(0)?": (
        lambda s: s.map(abs).bind(parse).map(str)
    ),
    "tap_result(parse), step 1 of the chain, returned 0 and no Result": (
        lambda s: s.tap_result(parse)
    ),
    "lash(parse), step 3 of the chain, returned 0 and no Result": (
        lambda s: s.chunks_or_timeout(1, 9.0).bind(lambda n: err(n[0])).lash(parse)
    ),
    "bind_async(read), step 2 of the chain, returned 0 and no Result": (
        lambda s: s.prefetch(3).bind_async(read)
    ),
    "bind_async(read), step 1 of the chain, returned 0 and no Result": (
        lambda s: s.bind_async(read, concurrency=3)
    ),
    "tap_result_async(read), step 1 of the chain, returned 0 and no Result": (
        lambda s: s.tap_result_async(read, concurrency=3)
    ),
    "lash_async(read), step 2 of the chain, returned 0 and no Result": (
        lambda s: s.bind(err).lash_async(read)
    ),
    "bind_async(parse), step 1 of the chain, returned 0, which is not awaited: use bind()": (
        lambda s: s.bind_async(parse)
    ),
    "map_async(parse), step 1 of the chain, returned 0, which is not awaited: use map()": (
        lambda s: s.map_async(parse, concurrency=2)
    ),
    "step 1 of the chain, returned 0, which is not awaited: use tap_result()": (
        lambda s: s.tap_result_async(parse)
    ),
}


@pytest.mark.parametrize("message", NO_RESULT)
def test_a_step_that_forgot_success_is_named_with_its_place(message: str) -> None:
    with pytest.raises(TypeError, match=re.escape(message)):
        run(NO_RESULT[message](numbers()).collect())


def test_a_step_in_a_context_that_forgot_success_is_named_too() -> None:
    async def persist(n: int, step: StepContext) -> Any:
        return n

    message = r"^a step returned 0 and no Result: did it mean Success\(0\)\?"
    with pytest.raises(TypeError, match=message) as caught:
        run(StepContext("shop").run(numbers().bind_step(persist, StepContext("shop")).collect()))
    assert caught.value.__notes__ == ["in step shop/persist[0]"]


def stream_of(n: Any) -> Any:
    return numbers()


@pytest.mark.parametrize(
    "step",
    [
        with_retry(stream_of, RetryPolicy(2)),
        with_timeout(stream_of, 2.0),
        with_policy(stream_of, RetryPolicy(2) | Timeout(2.0)),
        race(stream_of),
        all_of(stream_of),
        circuit_breaker(2, 2.0)(stream_of),
        lambda n: Saga("shop").step("read", stream_of).run(n),
        lambda n: numbers().bind_async(stream_of).collect(),
    ],
    ids=range(8),
)
def test_a_stream_without_terminal_is_not_an_outcome_of_a_step(
    step: Callable[[Any], FutureResult[Any, Any]],
) -> None:
    with pytest.raises(TypeError, match="returned a ResultStream: it has no outcome"):
        run(step(0))


def test_the_repr_of_a_stream_is_its_chain_as_written() -> None:
    async def readings() -> AsyncIterator[int]:
        yield 1

    ctx = StepContext("shop")
    stop = asyncio.Event()
    s = (
        ResultStream.of(readings())
        .or_failure(OSError)
        .bind(parse)
        .tap(print)
        .merge(ResultStream.from_results(lines(1)))
        .bind_step(save, ctx, concurrency=3, name="save")  # type: ignore[arg-type]
        .chunks_or_timeout(500, timeout=2.0)
        .drain_on(stop)
    )
    assert repr(s) == (
        "ResultStream.of(readings()).or_failure(OSError).bind(parse).tap(print)"
        ".merge(ResultStream.from_results(lines()))"
        f".bind_step(save, {ctx!r}, concurrency=3, name='save')"
        f".chunks_or_timeout(500, timeout=2.0).drain_on({stop!r})"
    )


@pytest.mark.parametrize(
    "step", [parse_result, lambda n: save(n), lambda n: FutureResult(save(n))], ids=range(3)
)
def test_a_result_in_a_result_is_not_swallowed_by_run(step: Callable[[Any], Any]) -> None:
    message = r"the last step returned a .*, which would be ignored: use bind\(\) or bind_async"
    for terminal in (numbers().map(step).run, numbers().map(step).run_all):
        with pytest.raises(TypeError, match=message):
            run(terminal())


def test_flat_map_says_how_to_make_a_stream_of_a_list() -> None:
    """Both steps of it: the second one is needed when the first one is made."""
    made: Any = numbers().flat_map
    with pytest.raises(TypeError, match=r"not 'list': use .*from_iterable\(\).*, and ResultStream"):
        run(made(lambda n: [n]).run())
    with pytest.raises(TypeError, match=r"not 0: ResultStream\.of\(\) makes Results of values"):
        run(made(lambda n: from_iterable([n])).run())
    single = numbers().flat_map(lambda n: ResultStream.of(from_iterable([n])))
    assert run(to_result(single.collect())) == Success([0, 1, 2, 3])


def test_an_undo_without_a_name_is_refused_where_it_is_written() -> None:
    """It would be taken for a decorator's own function, and a rollback would undo nothing."""
    decorator: Any = CompensationRegistry().compensation

    async def delete(key: str) -> None: ...

    with pytest.raises(TypeError, match=r"takes a name: @registry\.compensation\('delete'\)"):
        decorator(delete)


def test_a_recovery_whose_arguments_are_swapped_says_which_is_first() -> None:
    swapped: Any = recover
    with pytest.raises(TypeError, match=r"recover\(journal, registry\)"):
        run(swapped(CompensationRegistry(), None))
