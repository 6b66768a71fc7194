"""A compiled chain does what a naive interpreter of its steps does: the same calls, the same items.

Random programs of all kinds of sequential steps, over sources of values, of batches of all sizes,
of Results, and of each of them that fail, read by a loop, by a window or by any terminal.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from returns.future import FutureResult
from returns.result import Failure, Result, Success

from returns_pipeline import Counts, FailedItems, ResultStream, StreamEmpty, windows
from returns_pipeline.testing import run
from returns_pipeline.windows import TumblingWindows, chunks_or_timeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable

Item: TypeAlias = "Result[Any, Any]"


class Bug(Exception):
    """What no step declares."""


# Functions as data, so that a failing example can be read. An error may be an exception: a number
# is made of it first.


def plain(how: str, n: int) -> int:
    if how == "raise" and n % 3 == 0:
        raise Bug(n)
    if how == "key" and n % 2 == 0:
        raise KeyError(n)
    return {"inc": n + 1, "neg": -n}.get(how, n)


def arrow(how: str, n: int) -> Item:
    value = plain(how, n)
    fails = {"fail": True, "odd": n % 2 == 1}.get(how, False)
    return Failure(value) if fails else Success(value)


def holds(how: str, n: int) -> bool:
    return {"none": False, "odd": n % 2 == 1}.get(how, True) and plain(how, n) is not None


def number_of(item: Any) -> int:
    made: int = item.args[0] if isinstance(item, Exception) else item
    return made


HOWS = {
    "map": ("inc", "neg", "raise"),
    "scan": ("inc", "raise"),
    "distinct": ("odd", "inc"),
    "filter": ("odd", "none", "all", "raise"),
    "ensure": ("odd", "none", "all", "raise"),
    "tap": ("all", "raise"),
    "bind": ("inc", "fail", "odd", "raise"),
    "tap_result": ("inc", "fail", "odd", "raise"),
    "attempt": ("inc", "key", "raise"),
    "bimap": ("inc", "neg", "raise"),
    "alt": ("inc", "neg", "raise"),
    "tap_failure": ("all", "raise"),
    "lash": ("inc", "fail", "odd", "raise"),
}
ASYNC = ("map", "tap", "bind", "tap_result", "attempt", "tap_failure", "lash")


@dataclass(frozen=True)
class Step:
    name: str
    how: str
    is_async: bool = False

    @property
    def method(self) -> str:
        return f"{self.name}_async" if self.is_async else self.name


@dataclass
class World:
    """One run: what was called, and the state of the steps that have one."""

    calls: list[tuple[int, int]] = field(default_factory=list)
    totals: dict[int, int] = field(default_factory=dict)

    def call(self, at: int, func: Callable[[str, int], Any], how: str) -> Callable[[Any], Any]:
        def called(item: Any) -> Any:
            n = number_of(item)
            self.calls.append((at, n))
            return func(how, n)

        return called


def later(func: Callable[[Any], Any], *, as_future: bool) -> Callable[[Any], Awaitable[Any]]:
    async def call(item: Any) -> Any:
        if number_of(item) % 4 == 0:
            await asyncio.sleep(1)
        return func(item)

    return (lambda item: FutureResult(call(item))) if as_future else call


FUNCS: dict[str, Callable[[str, int], Any]] = {
    "filter": holds,
    "ensure": holds,
    "bind": arrow,
    "tap_result": arrow,
    "lash": arrow,
}


def add(s: ResultStream[Any, Any], at: int, step: Step, world: World) -> ResultStream[Any, Any]:
    """Add a step to a stream."""
    func = world.call(at, FUNCS.get(step.name, plain), step.how)
    if step.is_async:
        func = later(func, as_future=step.name in {"bind", "lash"} and at % 2 == 0)
    extra: list[Any] = []
    if step.name == "ensure":
        extra = [world.call(at, lambda _, n: n, "")]
    elif step.name == "bimap":
        extra = [world.call(at, plain, "neg")]
    elif step.name == "attempt":
        extra = [KeyError]
    elif step.name == "scan":
        return s.scan(0, lambda total, n: total + func(n))
    elif step.name == "distinct":
        return s.distinct_until_changed(func)
    if step.name == "tap" or step.name == "tap_failure":
        done = func
        func = (lambda item: nothing_of(done(item))) if step.is_async else done
    made: ResultStream[Any, Any] = getattr(s, step.method)(func, *extra)
    return made


async def nothing_of(work: Awaitable[Any]) -> None:
    await work


def apply(item: Item, at: int, step: Step, world: World) -> Item | None:
    """Do to an item what the step does, by the words of its docstring."""
    func = world.call(at, FUNCS.get(step.name, plain), step.how)
    if isinstance(item, Failure):
        error = item.failure()
        match step.name:
            case "alt":
                return Failure(func(error))
            case "bimap":
                return Failure(world.call(at, plain, "neg")(error))
            case "tap_failure":
                func(error)
            case "lash":
                made: Item = func(error)
                return made
            case _:
                pass
        return item
    value = item.unwrap()
    match step.name:
        case "map" | "bimap":
            return Success(func(value))
        case "scan":
            world.totals[at] = world.totals.get(at, 0) + func(value)
            return Success(world.totals[at])
        case "distinct":
            key = func(value)
            if world.totals.get(at) == key:
                return None
            world.totals[at] = key
        case "filter":
            return item if func(value) else None
        case "ensure":
            return item if func(value) else Failure(world.call(at, lambda _, n: n, "")(value))
        case "tap":
            func(value)
        case "bind":
            bound: Item = func(value)
            return bound
        case "tap_result":
            effect: Item = func(value)
            return item if isinstance(effect, Success) else effect
        case "attempt":
            try:
                return Success(func(value))
            except KeyError as error:
                return Failure(error)
        case _:
            pass
    return item


@dataclass(frozen=True)
class Program:
    items: list[Item]
    steps: list[Step]
    end: str  # "returns", "raises", "folds": the source's error is folded in
    sizes: list[int] | None = None  # of the batches, in turn; without any, the source emits Results

    @property
    def packed(self) -> bool:
        return self.sizes is None

    def interpret(self, world: World) -> Generator[Item, None, None]:
        for item in self.given():
            made: Item | None = item
            for at, step in enumerate(self.steps):
                if made is None:
                    break
                made = apply(made, at, step, world)
            if made is not None:
                yield made
        if self.end == "raises":
            raise OSError("the source")

    def given(self) -> list[Item]:
        given = [item for item in self.items if self.packed or isinstance(item, Success)]
        return [*given, Failure(OSError(5))] if self.end == "folds" else given

    def stream(self, world: World) -> ResultStream[Any, Any]:
        def finish() -> None:
            if self.end != "returns":
                raise OSError(5) if self.end == "folds" else OSError("the source")

        async def read(items: list[Any]) -> AsyncIterator[Any]:
            for item in items:
                yield item
            finish()

        async def read_batches(values: list[Any], sizes: list[int]) -> AsyncIterator[list[Any]]:
            reused: list[Any] = []
            for size in itertools.cycle([*sizes, 1]):
                if not values:
                    break
                reused[:], values = values[:size], values[size:]
                yield reused
            finish()

        values = [item.unwrap() for item in self.items if isinstance(item, Success)]
        s: ResultStream[Any, Any]
        if self.sizes is None:
            s = ResultStream.from_results(read(self.items))
        elif self.sizes:
            s = ResultStream.from_batches(read_batches(values, self.sizes))
        else:
            s = ResultStream.of(read(values))
        if self.end == "folds":
            s = s.or_failure(OSError)
        for at, step in enumerate(self.steps):
            s = add(s, at, step, world)
        return s


steps = st.sampled_from(sorted(HOWS)).flatmap(
    lambda name: st.builds(
        Step,
        st.just(name),
        st.sampled_from(HOWS[name]),
        st.booleans() if name in ASYNC else st.just(False),
    )
)
programs = st.builds(
    Program,
    st.lists(
        st.builds(Success, st.integers(0, 9)) | st.builds(Failure, st.integers(0, 9)), max_size=8
    ),
    st.lists(steps, max_size=10),
    st.sampled_from(["returns", "returns", "raises", "folds"]),
    st.none() | st.just([]) | st.lists(st.integers(0, 5), min_size=1, max_size=4),
)


def shown(outcome: Any) -> str:
    """Make exceptions comparable."""
    return repr(outcome)


# Each terminal, and what it is to a naive reader of the Results.


def naive_collect(results: Iterable[Item]) -> Item:
    values = []
    for item in results:
        if isinstance(item, Failure):
            return item
        values.append(item.unwrap())
    return Success(values)


def naive_partition(results: Iterable[Item]) -> tuple[list[Any], list[Any]]:
    values: list[Any] = []
    errors: list[Any] = []
    for item in results:
        if isinstance(item, Success):
            values.append(item.unwrap())
        else:
            errors.append(item.failure())
    return values, errors


def naive_collect_all(results: Iterable[Item]) -> Item:
    values, errors = naive_partition(results)
    return Failure(FailedItems(values, errors)) if errors else Success(values)


def naive_for_each(results: Iterable[Item], use: Callable[[Any], Item]) -> Item:
    count = 0
    for item in results:
        made = item.bind(use)
        if isinstance(made, Failure):
            return made
        count += 1
    return Success(count)


def naive_for_each_all(results: Iterable[Item], use: Callable[[Any], Item]) -> Counts:
    made = [item.bind(use) for item in results]
    successes = sum(isinstance(item, Success) for item in made)
    return Counts(successes, len(made) - successes)


def naive_last(results: Iterable[Item]) -> Item:
    item: Item = Failure(StreamEmpty())
    for item in results:
        if isinstance(item, Failure):
            break
    return item


TERMINALS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "collect": (lambda s, _: s.collect(), lambda r, _: naive_collect(r)),
    "collect_all": (lambda s, _: s.collect_all(), lambda r, _: naive_collect_all(r)),
    "partition": (lambda s, _: s.partition(), lambda r, _: naive_partition(r)),
    "run": (lambda s, _: s.run(), lambda r, _: naive_collect(r).map(len)),
    "run_all": (lambda s, _: s.run_all(), lambda r, _: Counts(*map(len, naive_partition(r)))),
    "first": (lambda s, _: s.first(), lambda r, _: next(iter(r), Failure(StreamEmpty()))),
    "last": (lambda s, _: s.last(), lambda r, _: naive_last(r)),
    "fold": (
        lambda s, _: s.fold(1, lambda a, b: a * 3 + b),
        lambda r, _: naive_collect(r).map(folded),
    ),
    "fold later": (lambda s, _: s.fold(1, fold_later), lambda r, _: naive_collect(r).map(folded)),
    "for_each": (lambda s, use: s.for_each(use), naive_for_each),
    "for_each later": (
        lambda s, use: s.for_each(later(use, as_future=True)),
        naive_for_each,
    ),
    "for_each_all": (lambda s, use: s.for_each_all(use), naive_for_each_all),
}


def folded(values: list[Any]) -> Any:
    total = 1
    for value in values:
        total = total * 3 + value
    return total


async def fold_later(total: int, value: int) -> int:
    await asyncio.sleep(0)
    return total * 3 + value


def outcome_of(work: Callable[[], Any]) -> str:
    try:
        return shown(work())
    except (Bug, KeyError, OSError) as error:
        return f"raised {error!r}"


async def bare(awaited: Awaitable[Any]) -> Any:
    made: Any = await awaited
    return made._inner_value


@given(programs)
@example(
    Program([Failure(1), Success(2)], [Step("lash", "inc"), Step("filter", "odd")], "folds", None)
)
def test_a_reader_sees_what_an_interpreter_emits_and_each_step_is_called_when_an_item_is_requested(
    program: Program,
) -> None:
    real, naive = World(), World()
    emitted: list[Any] = []

    def interpret() -> None:
        for item in program.interpret(naive):
            emitted.append((shown(item), len(naive.calls)))

    ended = outcome_of(interpret)
    seen: list[Any] = []

    async def read() -> None:
        async with program.stream(real).stream() as items:
            async for item in items:
                seen.append((shown(item), len(real.calls)))

    assert outcome_of(lambda: run(read())) == ended
    assert seen == emitted
    assert real.calls == naive.calls


@pytest.mark.parametrize("terminal", TERMINALS)
@given(programs, st.sampled_from(HOWS["bind"]))
def test_a_terminal_returns_what_a_loop_over_the_items_would(
    terminal: str, program: Program, how: str
) -> None:
    real, naive = World(), World()
    end, loop = TERMINALS[terminal]
    results = program.interpret(naive)
    expected = outcome_of(lambda: loop(results, naive.call(-1, arrow, how)))
    results.close()

    async def main() -> Any:
        return await bare(end(program.stream(real), real.call(-1, arrow, how)))

    assert outcome_of(lambda: run(main())) == expected
    assert real.calls == naive.calls


@given(programs, st.booleans())
def test_halves_are_the_values_or_the_errors_alone(program: Program, failed: bool) -> None:
    real, naive = World(), World()
    emitted: list[str] = []

    def interpret() -> None:
        for item in program.interpret(naive):
            if isinstance(item, Failure) is failed:
                emitted.append(shown(item.failure() if failed else item.unwrap()))

    ended = outcome_of(interpret)
    seen: list[str] = []

    async def read() -> None:
        s = program.stream(real)
        async with (s.failures() if failed else s.successes()).stream() as items:
            async for item in items:
                seen.append(shown(item))

    assert outcome_of(lambda: run(read())) == ended
    assert seen == emitted
    assert real.calls == naive.calls


@given(programs, st.integers(0, 10))
def test_a_step_with_a_task_between_two_parts_changes_no_item(program: Program, at: int) -> None:
    """Each part is compiled by itself, and the failures of the first reach the second."""

    async def read(s: ResultStream[Any, Any]) -> list[str]:
        seen: list[str] = []
        async with s.stream() as items:
            async for item in items:
                seen.append(shown(item))
        return seen

    whole = outcome_of(lambda: run(read(program.stream(World()))))
    world = World()
    before = Program(program.items, program.steps[:at], program.end, program.sizes)
    s = before.stream(world).prefetch(1)
    for number, step in enumerate(program.steps[at:], at):
        s = add(s, number, step, world)
    assert outcome_of(lambda: run(read(s))) == whole


WINDOWS: dict[str, Callable[[ResultStream[Any, Any], int], ResultStream[list[Any], Any]]] = {
    "chunks_or_timeout": lambda s, n: s.chunks_or_timeout(n, math.inf),
    "chunks_by_weight": lambda s, n: s.chunks_by_weight(2 * n, math.inf, weight=weight_of),
    "chunks_until": lambda s, n: s.chunks_until(lambda item: weight_of(item) == n, n=3),
    "keyed_chunks": lambda s, n: s.keyed_chunks(
        n, math.inf, key=lambda item: weight_of(item) % 3, max_keys=2
    ).map(lambda pair: pair[1]),
    "sessions": lambda s, n: s.sessions(9.0, n=n, key=lambda item: weight_of(item) % 3),
    "sliding": lambda s, n: s.sliding(n, step=2),
    "event_windows": lambda s, n: s.event_windows(
        TumblingWindows(float(n)), timestamp=lambda item: float(weight_of(item))
    ).map(lambda window: window.items),
}


def weight_of(item: Any) -> int:
    return item % 7 if isinstance(item, int) else 1


async def seen_of(stream: Any) -> list[str]:
    """Return the items and, last, the exception."""
    seen: list[str] = []
    try:
        async with stream.stream() as items:
            async for item in items:
                seen.append(shown(item))
    except (Bug, KeyError, OSError, TypeError) as error:
        seen.append(f"raised {error!r}")
    return seen


@pytest.mark.parametrize("name", WINDOWS)
@given(programs, st.integers(1, 4), st.integers(0, 10))
# Steps that take longer, together, than a session may be silent.
@example(
    Program(
        [Success(0), Success(4), Success(0)],
        [Step("map", "neg", True), Step("map", "neg", True), Step("attempt", "inc", True)],
        "returns",
    ),
    2,
    3,
)
def test_a_window_holds_the_same_items_whether_they_come_in_batches_or_not(
    name: str, program: Program, n: int, at: int
) -> None:
    """Failures close it in their place, an exception comes after the items before it."""

    def read(sizes: list[int]) -> list[str]:
        world = World()
        one = Program(program.items, program.steps[:at], program.end, sizes)
        s = WINDOWS[name](one.stream(world), n)
        for number, step in enumerate(program.steps[at:], at):
            s = add(s.map(lambda items: sum(map(weight_of, items))), number, step, world)
            s = s.map(lambda n: [n])
        return run(seen_of(s))

    assert read(program.sizes or [2, 0, 3]) == read([])


OPERATORS: dict[str, Callable[[ResultStream[Any, Any], int], Any]] = {
    "chunks_or_timeout": lambda s, n: chunks_or_timeout(s, n, math.inf),
    "chunks_by_weight": lambda s, n: windows.chunks_by_weight(s, n, math.inf, weight=lambda _: 1),
    "chunks_until": lambda s, n: windows.chunks_until(s, lambda r: isinstance(r, Failure), n=n),
    "keyed_chunks": lambda s, n: windows.keyed_chunks(s, n, math.inf, key=type),
    "sessions": lambda s, n: windows.sessions(s, 9.0, n=n, key=type),
    "sliding": lambda s, n: windows.sliding(s, n),
    "event_windows": lambda s, n: windows.event_windows(
        s, TumblingWindows(float(n)), timestamp=lambda r: float(isinstance(r, Failure))
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
@given(programs, st.integers(1, 4))
def test_a_window_of_results_holds_the_same_whether_they_come_in_batches_or_not(
    name: str, program: Program, n: int
) -> None:
    """A failure is an item as any other, and an exception comes after the items before it."""

    def read(sizes: list[int]) -> list[str]:
        one = Program(program.items, program.steps, program.end, sizes)
        return run(seen_of(OPERATORS[name](one.stream(World()), n)))

    assert read(program.sizes or [2, 0, 3]) == read([])
