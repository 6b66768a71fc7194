"""The failures at an edge are those that annotations name; nothing else is guessed."""

# ruff: noqa: TC003  # annotations are read while the program runs

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, Literal, Never, TypeVar

import pytest
from returns.future import FutureResult, future_safe
from returns.io import IOResult, impure_safe
from returns.result import Result, Success, safe
from typing_extensions import TypeIs

from returns_pipeline import ResultStream, StepContext, combine, pipe, with_item
from returns_pipeline._engine.error_types import errors_of
from returns_pipeline.inspection import diagram
from returns_pipeline.policies import (
    Timeout,
    all_of,
    bulkhead,
    circuit_breaker,
    hedge,
    race,
    rate_limit,
    with_policy,
    with_retry,
    with_timeout,
)
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.sources import from_iterable

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers

T = TypeVar("T")
E = TypeVar("E")


class Bad(Exception): ...


class Worse(Exception): ...


class Boxed(Exception, Generic[T]): ...


Either = Bad | Worse


def plain(_: object) -> Result[int, Bad]: ...  # type: ignore[empty-body]
def either(_: object) -> Result[int, Either]: ...  # type: ignore[empty-body]
def boxed(_: object) -> Result[int, Boxed[Bad]]: ...  # type: ignore[empty-body]
def literal(_: object) -> Result[int, Literal["late", "early"]]: ...  # type: ignore[empty-body]
def other(_: object) -> Result[int, Worse]: ...  # type: ignore[empty-body]
def io(_: object) -> IOResult[int, Bad]: ...  # type: ignore[empty-body]
def future(_: object) -> FutureResult[int, Worse]: ...  # type: ignore[empty-body]
def awaited(_: object) -> Awaitable[Result[int, Worse]]: ...  # type: ignore[empty-body]
def two(_: object) -> Result[int, Bad] | Result[str, Worse]: ...  # type: ignore[empty-body]
def cannot(_: object) -> Result[int, Never]: ...  # type: ignore[empty-body]
def anything(_: object) -> Result[int, Any]: ...  # type: ignore[empty-body]
def any_object(_: object) -> Result[int, object]: ...  # type: ignore[empty-body]
def generic(_: E) -> Result[int, E]: ...  # type: ignore[empty-body]
def unwritten(_): ...  # type: ignore[no-untyped-def]
def no_result(_: object) -> int: ...  # type: ignore[empty-body]
def missing(_: object) -> Result[OnlyForCheckers, Bad]: ...  # type: ignore[empty-body]
def misspelt(_: object) -> Result[int, NoSuchName]: ...  # type: ignore[name-defined,empty-body]  # noqa: F821
def missing_argument(_: OnlyForCheckers) -> Result[int, Bad]: ...  # type: ignore[empty-body]
async def coroutine(_: object) -> Result[int, Bad]: ...  # type: ignore[empty-body]
async def nested(_: object) -> Coroutine[Any, Any, int]: ...  # type: ignore[empty-body]
def narrows(_: object) -> TypeIs[int]: ...  # type: ignore[empty-body]
def to_bad(_: object) -> Bad: ...  # type: ignore[empty-body]


async def streamed(_: object) -> AsyncIterator[Result[int, Worse]]:
    yield Success(1)


def of_stream(_: object) -> ResultStream[int, Bad]: ...  # type: ignore[empty-body]


class Steps:
    def method(self, _: object) -> Result[int, Bad]: ...  # type: ignore[empty-body]
    def __call__(self, _: object) -> Result[int, Worse]: ...  # type: ignore[empty-body]


def changing(func: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function, and return something else, as a decorator may."""

    @functools.wraps(func)
    def call(*args: Any) -> Any:
        return Success(func(*args))

    return call


@future_safe
async def all_caught(_: object) -> int: ...  # type: ignore[empty-body]


@future_safe(exceptions=(Bad, Worse))
async def caught(_: object, step: object = None) -> int: ...  # type: ignore[empty-body]


@safe(exceptions=(Bad,))
def safely(_: object) -> int: ...  # type: ignore[empty-body]


@impure_safe
def impure(_: object) -> int: ...  # type: ignore[empty-body]


CASES: list[tuple[Any, str]] = [
    (plain, "Bad"),
    (either, "Bad | Worse"),
    (boxed, "Boxed[Bad]"),
    (literal, "Literal['late', 'early']"),
    (io, "Bad"),
    (future, "Worse"),
    (awaited, "Worse"),
    (two, "Bad | Worse"),
    (cannot, ""),
    (anything, ""),
    (any_object, ""),
    (generic, ""),
    (unwritten, ""),
    (no_result, ""),
    (missing, ""),
    (misspelt, ""),
    (missing_argument, "Bad"),
    (coroutine, "Bad"),
    (nested, ""),
    (streamed, "Worse"),
    (of_stream, "Bad"),
    (Steps().method, "Bad"),
    (Steps(), "Worse"),
    (functools.partial(plain, 1), "Bad"),
    (changing(plain), ""),
    (all_caught, "Exception"),
    (caught, "Bad | Worse"),
    (safely, "Bad"),
    (impure, "Exception"),
    (changing(caught), ""),
    (lambda _: Success(1), ""),
    (int, ""),
    (with_item(plain), ""),
    (with_timeout(coroutine, 1.0), "Bad | StepTimeout"),
    (with_retry(coroutine, RetryPolicy(2)), "RetriesExhausted[Bad]"),
    (
        with_policy(coroutine, RetryPolicy(2) | Timeout(1.0)),
        "RetriesExhausted[Bad | StepTimeout]",
    ),
    (
        with_timeout(with_retry(caught, RetryPolicy(2)), 1.0),
        "RetriesExhausted[Bad | Worse] | StepTimeout",
    ),
    (with_timeout(unwritten, 1.0), "StepTimeout | ?"),
    (rate_limit(1, 1.0)(coroutine), "Bad"),
    (bulkhead(1)(coroutine), "Bad | BulkheadFull"),
    (circuit_breaker(3, 1.0)(coroutine), "Bad | CircuitOpen"),
    (hedge(coroutine, after=1.0), "AllFailed[Bad]"),
]  # fmt: skip


@pytest.mark.parametrize(("func", "names"), CASES, ids=range(len(CASES)))
def test_a_function_fails_as_its_annotation_says(func: Any, names: str) -> None:
    assert str(errors_of(func)) == names


@pytest.mark.parametrize("make", [race, all_of])
def test_a_policy_of_several_steps_is_not_guessed(make: Any) -> None:
    assert set(str(errors_of(make(coroutine, future))).split(" | ")) <= {
        "", "?", "AllFailed[Bad | Worse]", "Bad", "Worse"
    }  # fmt: skip


def test_a_class_of_the_function_is_known() -> None:
    class Local(Exception): ...

    def fails(_: object) -> Result[int, Local]:
        raise Local

    assert str(errors_of(fails)) == "Local"


def anything_from() -> ResultStream[Any, Any]:
    source: Any = from_iterable([1])
    return ResultStream.from_results(source)


def start() -> ResultStream[Any, Any]:
    return ResultStream.of(from_iterable([1])).bind(plain)


def last(stream: Any) -> str:
    """Return the label of the edge to the reader."""
    *_, edge = diagram(stream).mermaid().splitlines()
    _, bar, label = edge.partition('|"')
    return label.partition('"|')[0] if bar else ""


STREAMS: dict[str, tuple[Callable[[], Any], str]] = {
    "values cannot fail": (lambda: ResultStream.of(from_iterable([plain(1)])), ""),
    "results may fail by anything": (anything_from, ""),
    "and by what is added": (
        lambda: anything_from().bind(plain),
        "Bad | ?",
    ),
    "or_failure": (lambda: ResultStream.of(from_iterable([1])).or_failure(OSError), "OSError"),
    "map": (lambda: start().map(plain), "Bad"),
    "filter": (lambda: start().filter(narrows), "Bad"),
    "bind": (lambda: start().bind(other), "Bad | Worse"),
    "bind of a lambda": (lambda: start().bind(lambda n: plain(n)), "Bad | ?"),
    "bind_async": (lambda: start().bind_async(future, concurrency=2), "Bad | Worse"),
    "bind_step": (lambda: start().bind_step(caught, StepContext("a")), "Bad | Worse"),
    "attempt": (lambda: start().attempt(int, ValueError, KeyError), "Bad | ValueError | KeyError"),
    "attempt, many": (
        lambda: start().attempt(int, ValueError, KeyError, OSError, TypeError),
        "Bad | ValueError | KeyError | OSError | TypeError",
    ),
    "attempt_async": (lambda: start().attempt_async(coroutine, OSError), "Bad | OSError"),
    "ensure": (lambda: start().ensure(bool, lambda _: 1), "Bad | ?"),
    "ensure by name": (lambda: start().ensure(bool, error=Worse), "Bad | Worse"),
    "alt": (lambda: start().alt(Worse), "Worse"),
    "alt to text": (lambda: start().alt(str), "str"),
    "alt of a lambda": (lambda: start().alt(lambda error: error), ""),
    "alt of a decorated function": (lambda: start().alt(changing(to_bad)), ""),
    "alt of one that narrows by name": (lambda: start().alt(to_bad), "Bad"),
    "bimap": (lambda: start().bimap(str, Worse), "Worse"),
    "lash": (lambda: start().lash(lambda _: Success(1)), ""),
    "lash to another": (lambda: start().lash(other), "Worse"),
    "lash to none": (lambda: start().lash(cannot), ""),
    "tap": (lambda: start().tap(print), "Bad"),
    "tap_result": (lambda: start().tap_result(other), "Bad | Worse"),
    "flat_map": (lambda: start().flat_map(streamed), "Bad | Worse"),
    "flat_map to streams": (lambda: start().flat_map(of_stream), "Bad"),
    "scan": (lambda: start().scan(0, max), "Bad"),
    "a window": (lambda: start().chunks_or_timeout(2, 1.0), "Bad"),
    "merge": (lambda: start().merge(start().alt(Worse), start().alt(str)), "Bad | Worse | str"),
    "merge of six": (lambda: start().merge(*[start().alt(Worse)] * 5), "Bad | Worse"),
    "merge with what is unknown": (lambda: start().merge(anything_from()), "Bad | ?"),
    "zip": (lambda: start().zip(start().alt(Worse)), "Bad | Worse"),
    "concat": (lambda: start().concat(start().alt(Worse)), "Bad | Worse"),
    "a sum": (lambda: start() + start().alt(Worse), "Bad | Worse"),
    "a slice": (lambda: start()[:2], "Bad"),
    "a slice after a task": (lambda: start().prefetch(2)[:2], "Bad"),
    "broadcast": (lambda: start().broadcast(2)[1], "Bad"),
    "route": (lambda: start().route(int, lambda _, items: streamed(items)), "Bad | ?"),
    "route, isolated": (
        lambda: start().route(int, streamed, failing="isolate"),  # type: ignore[call-overload]
        "Bad | Worse | KeyFailed",
    ),
    "split": (lambda: ResultStream.from_results(combine.split(start(), bool)[0]), "Bad"),
    "split by one that narrows": (lambda: combine.split(start(), narrows)[0], ""),
    "piped": (lambda: start() | pipe.bind_result(other), "Bad | Worse"),
    "piped merge": (lambda: start() | pipe.merge(start().alt(Worse)), "Bad | Worse"),
    "a piped window of Results": (lambda: start() | pipe.chunks_or_timeout(2, 1.0), ""),
    "values alone": (lambda: start().successes(), ""),
    "joined by priority": (
        lambda: combine.merge_prioritized((2, start()), (1, start().alt(Worse))),
        "Bad | Worse",
    ),
    "what is folded is not a failure": (lambda: combine.scan(start(), 0, lambda a, _: a), ""),
    "lifted": (lambda: ResultStream.of(start()), ""),
}


@pytest.mark.parametrize("name", STREAMS)
def test_an_operator_changes_the_failures_as_its_signature_says(name: str) -> None:
    make, label = STREAMS[name]
    assert last(make()) == label
