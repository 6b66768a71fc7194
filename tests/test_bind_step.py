"""What `bind_step` promises: each item's undo actions are settled by its step's outcome."""

from __future__ import annotations

import asyncio
import gc
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from everywhere import everywhere, slow_on_journals
from returns.future import FutureFailure, FutureResult, FutureSuccess, future_safe
from returns.io import IO, IOFailure, IOSuccess
from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream, StepContext, pipe, results, to_result
from returns_pipeline.compensation import current_key
from returns_pipeline.errors import InvalidArgument, ScopeClosed, StreamEmpty
from returns_pipeline.telemetry import StepBegun, StepEnded
from returns_pipeline.testing import inject_everywhere, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from returns_pipeline.telemetry import Event
    from returns_pipeline.testing import FaultInjector

pytestmark = everywhere


def now() -> float:
    return asyncio.get_running_loop().time()


async def numbers(n: int, *, every: float = 0.0) -> AsyncIterator[int]:
    for i in range(n):
        if every:
            await asyncio.sleep(every)
        yield i


class World:
    """Where steps have their effects; an undo takes one back, also one that never happened."""

    def __init__(self) -> None:
        self.effects: list[object] = []
        self.undone: list[object] = []
        self.log: list[tuple[float, str, object]] = []

    async def undo(self, what: object) -> None:
        await asyncio.sleep(1)
        self.undone.append(what)
        self.note("undone", what)
        with suppress(ValueError):
            self.effects.remove(what)

    def note(self, kind: str, what: object) -> None:
        self.log.append((now(), kind, what))

    async def write(self, what: object, step: StepContext, *, took: float = 0.0) -> None:
        await step.register(self.undo, what)
        if took:
            await asyncio.sleep(took)
        self.effects.append(what)


@pytest.fixture
def world() -> World:
    return World()


# The scope of a step: made when it is looked at, and as if it had been there from the start


@pytest.mark.parametrize("look", ["before", "between", "after", "never"])
@pytest.mark.parametrize("succeeds", [True, False])
def test_when_the_scope_of_a_step_is_looked_at_changes_nothing(
    look: str, succeeds: bool, world: World
) -> None:
    steps: list[StepContext] = []

    def check(step: StepContext, when: str, count: int) -> None:
        if when == look:
            scope = step.scope
            assert scope is step.scope
            assert (scope.state, len(scope), scope.name) == ("open", count, "persist[0]")
            assert scope.path == step.path == "job/persist[0]"

    async def persist(_: int, step: StepContext) -> Result[int, str]:
        steps.append(step)
        check(step, "before", 0)
        await world.write("a", step)
        check(step, "between", 1)
        await world.write("b", step)
        check(step, "after", 2)
        with pytest.raises(TypeError, match="expected a function"):
            await step.register(None)  # type: ignore[arg-type]
        return Success(1) if succeeds else Failure("no")

    async def main() -> None:
        async with StepContext("job") as ctx:
            _ = await ResultStream.of(numbers(1)).bind_step(persist, ctx).run()
        [step] = steps
        assert world.undone == ([] if succeeds else ["b", "a"])
        assert step.outcome == step.scope.state == ("committed" if succeeds else "rolled back")
        assert len(step.scope) == 0
        with pytest.raises(ScopeClosed):
            await step.register(world.undo, "late")

    run(main())


def test_the_scope_of_a_step_can_be_looked_at_although_its_context_is_closed(world: World) -> None:
    """A step is settled by its own outcome, whatever became of the context around it."""

    async def persist(_: int, step: StepContext) -> Result[int, str]:
        await world.write("a", step)
        await asyncio.sleep(5)
        await world.write("b", step)
        assert (step.scope.state, len(step.scope)) == ("open", 2)
        return Failure("no")

    async def main() -> None:
        ctx = StepContext("job")
        stream = ResultStream.of(numbers(1)).bind_step(persist, ctx)
        reading = asyncio.create_task(to_result(stream.run()))
        await asyncio.sleep(1)
        _ = await ctx.scope.compensate()
        assert world.undone == []
        assert await reading == Failure("no")
        assert world.undone == ["b", "a"]

    run(main())


# Outcomes


def test_a_success_commits_before_it_goes_downstream(world: World) -> None:
    async def main() -> None:
        ctx = StepContext("job")
        steps: list[StepContext] = []

        async def write(n: int, step: StepContext) -> Result[int, str]:
            steps.append(step)
            await world.write(n, step)
            return Success(n * 10)

        def check(n: int) -> None:
            assert steps[-1].scope.state == "committed"
            assert len(ctx.scope) == 0

        s = ResultStream.of(numbers(3)).bind_step(write, ctx).tap(check)
        assert await ctx.run(s.collect()) == IOSuccess([0, 10, 20])
        assert [step.path for step in steps] == [f"job/write[{n}]" for n in range(3)]
        assert len({step.key for step in steps}) == 3

    run(main())
    assert world.effects == [0, 1, 2]
    assert world.undone == []


def test_a_failure_is_undone_before_it_goes_downstream(world: World) -> None:
    async def main() -> None:
        ctx = StepContext("job")

        async def write(n: int, step: StepContext) -> Result[int, int]:
            await world.write(n, step)
            await world.write(-n, step)
            return Failure(n) if n == 1 else Success(n)

        def check(n: int) -> None:
            assert world.undone == [-1, 1]
            assert now() == 2

        s = ResultStream.of(numbers(3)).bind_step(write, ctx).tap_failure(check)
        assert await ctx.run(s.lash(Success).collect()) == IOSuccess([0, 1, 2])

    run(main())
    assert world.undone == [-1, 1]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_exception_is_undone_before_it_propagates(world: World, concurrency: int) -> None:
    async def main() -> None:
        ctx = StepContext("job")

        async def write(n: int, step: StepContext) -> Result[int, int]:
            await world.write(n, step)
            if n == 1:
                raise ValueError("no")
            return Success(n)

        s = ResultStream.of(numbers(3, every=5)).bind_step(write, ctx, concurrency=concurrency)
        with pytest.raises(ValueError, match="no"):
            await ctx.run(s.collect())
        assert now() == 11

    run(main())
    assert world.effects == [0]
    assert world.undone == [1]


def test_a_failure_from_before_passes_and_starts_no_step(world: World) -> None:
    async def main() -> None:
        ctx = StepContext("job")

        async def write(n: int, step: StepContext) -> Result[int, str]:
            await world.write(n, step)
            return Success(n)

        for concurrency in 1, 2:
            s = ResultStream.of(numbers(3)).ensure(lambda n: n != 1, lambda n: f"bad {n}")
            s2 = s.bind_step(write, ctx, concurrency=concurrency)
            assert await s2.partition() == IO(([0, 2], ["bad 1"]))

    run(main())
    assert world.effects == [0, 2, 0, 2]


def test_steps_of_every_form() -> None:
    @future_safe(exceptions=(LookupError,))
    async def safe(n: int, step: StepContext) -> int:
        if n == 2:
            raise LookupError(n)
        return n

    def future(n: int, step: StepContext) -> FutureResult[int, str]:
        return FutureSuccess(n) if n != 2 else FutureFailure("two")

    async def coroutine(n: int, step: StepContext) -> Result[int, str]:
        return Success(n) if n != 2 else Failure("two")

    class Callable:
        async def __call__(self, n: int, step: StepContext) -> Result[int, str]:
            return await coroutine(n, step)

    async def main() -> None:
        ctx = StepContext("job")
        forms: list[Any] = [
            safe,
            future,
            coroutine,
            Callable(),
            lambda n, step: coroutine(n, step),
        ]
        for step in forms:
            s = ResultStream.of(numbers(5)).bind_step(step, ctx)
            outcome = await ctx.run(s.collect_all())
            failed = outcome.failure()._inner_value
            assert failed.successes == [0, 1, 3, 4]
            assert len(failed.errors) == 1

    run(main())


def test_the_three_forms_do_the_same(world: World) -> None:
    async def write(n: int, step: StepContext) -> Result[int, str]:
        await world.write(n, step)
        return Success(n + 1)

    async def main() -> None:
        ctx = StepContext("job")
        source = ResultStream.of(numbers(2))
        assert await source.bind_step(write, ctx).collect() == IOSuccess([1, 2])
        source = ResultStream.of(numbers(2))
        assert await results.bind_step(source, write, ctx, hold=True).collect() == IOSuccess([1, 2])
        source = ResultStream.of(numbers(2))
        piped = source | pipe.bind_step(write, ctx, concurrency=2, ordered=False, hold=True)
        assert await piped.collect() == IOSuccess([1, 2])
        assert len(ctx.scope) == 4
        await ctx.commit()

    run(main())


def test_arguments_are_checked_at_the_call() -> None:
    async def step(n: int, ctx: StepContext) -> Result[int, str]:
        return Success(n)

    ctx = StepContext("job")
    with pytest.raises(InvalidArgument):
        _ = ResultStream.of(numbers(1)).bind_step(step, ctx, concurrency=0)


def test_a_closed_context_is_refused_when_it_is_read() -> None:
    async def step(n: int, ctx: StepContext) -> Result[int, str]:
        raise AssertionError

    async def main() -> None:
        async with StepContext("job") as ctx:
            pass
        with pytest.raises(ScopeClosed):
            await ResultStream.of(numbers(1)).bind_step(step, ctx).collect()

    run(main())


def test_what_belongs_together_is_in_one_step(world: World) -> None:
    """The sample of the docstring: when publishing fails, what was persisted is taken back."""

    @future_safe(exceptions=(ConnectionError,))
    async def persist_and_publish(batch: list[int], step: StepContext) -> str:
        await world.write(step.key, step)
        if 3 in batch:
            raise ConnectionError
        return step.key

    async def main() -> None:
        ctx = StepContext("job")
        s = ResultStream.of(numbers(6)).chunks_or_timeout(2, 1.0)
        settled = await s.bind_step(persist_and_publish, ctx).partition()
        written, failed = settled._inner_value
        assert len(written) == 2
        assert len(failed) == 1
        assert world.effects == written

    run(main())


def test_two_steps_in_one_chain_settle_one_after_the_other(world: World) -> None:
    """The first is committed when the second fails: what must fall together needs one step."""

    async def persist(n: int, step: StepContext) -> Result[int, str]:
        await world.write(("persisted", n), step)
        return Success(n)

    async def publish(n: int, step: StepContext) -> Result[int, str]:
        await world.write(("published", n), step)
        return Failure("refused") if n == 1 else Success(n)

    async def main() -> None:
        ctx = StepContext("job")
        s = ResultStream.of(numbers(3)).bind_step(persist, ctx).bind_step(publish, ctx)
        assert await ctx.run(s.collect()) == IOFailure("refused")

    run(main())
    assert world.effects == [("persisted", 0), ("published", 0), ("persisted", 1)]
    assert world.undone == [("published", 1)]


# Holding


@pytest.mark.parametrize("outcome", ["success", "failure", "exception"])
def test_held_steps_stand_or_fall_with_the_run(world: World, outcome: str) -> None:
    async def write(n: int, step: StepContext) -> Result[int, str]:
        await world.write(n, step)
        await world.write(-n, step)
        return Success(n)

    async def check(n: int) -> Result[int, str]:
        if n < 3 or outcome == "success":
            return Success(n)
        if outcome == "exception":
            raise ValueError("no")
        return Failure("no")

    async def main() -> None:
        ctx = StepContext("job")
        s = ResultStream.of(numbers(5)).bind_step(write, ctx, hold=True).bind_async(check)
        if outcome == "exception":
            with pytest.raises(ValueError, match="no"):
                await ctx.run(s.collect())
        else:
            expected = IOSuccess([0, 1, 2, 3, 4]) if outcome == "success" else IOFailure("no")
            assert await ctx.run(s.collect()) == expected
        assert len(ctx.scope) == 0

    run(main())
    if outcome == "success":
        assert world.undone == []
    else:
        assert world.undone == [-3, 3, -2, 2, -1, 1, 0, 0]
        assert world.effects == []


@pytest.mark.parametrize("ordered", [True, False])
def test_held_steps_that_ran_side_by_side_are_undone_by_their_start(
    world: World, ordered: bool
) -> None:
    """Each as one, whatever was registered when, and whichever was through first."""
    times = [3, 1, 2, 1]

    async def write(n: int, step: StepContext) -> Result[int, str]:
        await world.write((n, "a"), step, took=times[n])
        await world.write((n, "b"), step, took=times[n])
        return Success(n)

    async def main() -> None:
        ctx = StepContext("job")
        s = ResultStream.of(numbers(4)).bind_step(
            write, ctx, hold=True, concurrency=4, ordered=ordered
        )
        assert await ctx.run(s.collect().bind(lambda _: FutureFailure("no"))) == IOFailure("no")

    run(main())
    assert world.undone == [(n, part) for n in (3, 2, 1, 0) for part in "ba"]


def test_what_a_held_step_opened_is_held_with_it(world: World) -> None:
    async def write(n: int, step: StepContext) -> Result[int, str]:
        inner = step.child("inner")
        await world.write((n, 1), inner)
        await world.write((n, 2), step)
        await asyncio.sleep(5 - n)
        await world.write((n, 3), inner)
        return Success(n)

    async def main() -> None:
        ctx = StepContext("job")
        s = ResultStream.of(numbers(2)).bind_step(write, ctx, hold=True, concurrency=2)
        assert await ctx.run(s.collect().bind(lambda _: FutureFailure("no"))) == IOFailure("no")

    run(main())
    assert world.undone == [(1, 3), (1, 2), (1, 1), (0, 3), (0, 2), (0, 1)]


def test_a_held_failure_is_undone_at_once(world: World) -> None:
    async def write(n: int, step: StepContext) -> Result[int, str]:
        await world.write(n, step)
        return Failure("no") if n == 1 else Success(n)

    async def main() -> None:
        ctx = StepContext("job")
        s = ResultStream.of(numbers(3)).bind_step(write, ctx, hold=True)
        assert await s.partition() == IO(([0, 2], ["no"]))
        assert world.undone == [1]
        assert len(ctx.scope) == 2
        await ctx.commit()

    run(main())
    assert world.effects == [0, 2]


# Leaving early


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_steps_in_flight_are_undone_when_the_first_item_is_enough(
    world: World, concurrency: int, hold: bool
) -> None:
    async def write(n: int, step: StepContext) -> Result[int, str]:
        await world.write(n, step, took=1 + n)
        return Success(n)

    async def main() -> None:
        ctx = StepContext("job")
        s = ResultStream.of(numbers(9)).bind_step(write, ctx, concurrency=concurrency, hold=hold)
        assert await ctx.run(s.first()) == IOSuccess(0)
        assert now() == (1 if concurrency == 1 else 2)  # first() returns when they are undone

    run(main())
    assert world.effects == [0]
    assert sorted(world.undone, key=str) == ([] if concurrency == 1 else [1, 2])


def test_no_item_is_a_failure_that_undoes_nothing() -> None:
    async def main() -> None:
        ctx = StepContext("job")

        async def step(n: int, own: StepContext) -> Result[int, str]:
            return Success(n)

        s = ResultStream.of(numbers(0)).bind_step(step, ctx)
        assert await ctx.run(s.first()) == IOFailure(StreamEmpty())

    run(main())


@pytest.mark.parametrize("concurrency", [1, 3])
def test_closing_the_stream_undoes_what_is_in_flight(world: World, concurrency: int) -> None:
    async def write(n: int, step: StepContext) -> Result[int, str]:
        await world.write(n, step, took=1 if n == 0 else 10)
        return Success(n)

    async def main() -> None:
        ctx = StepContext("job")
        s = ResultStream.of(numbers(9)).bind_step(write, ctx, concurrency=concurrency)
        async with s.stream() as items:
            assert await anext(items) == Success(0)
            await asyncio.sleep(5)
        assert world.effects == [0]
        # Three were under way: the place of the first was free for another. All undo at once.
        assert sorted(world.undone, key=str) == ([] if concurrency == 1 else [1, 2, 3])

    run(main())


def test_a_failure_ends_its_siblings_and_undoes_them(world: World) -> None:
    async def write(n: int, step: StepContext) -> Result[int, str]:
        await world.write(n, step, took=0 if n == 1 else 10)
        return Failure("no") if n == 1 else Success(n)

    async def main() -> None:
        ctx = StepContext("job")
        s = ResultStream.of(numbers(9)).bind_step(write, ctx, concurrency=3, ordered=False)
        assert await ctx.run(s.collect()) == IOFailure("no")

    run(main())
    assert world.effects == []
    assert world.undone[0] == 1
    assert sorted(world.undone, key=str) == [0, 1, 2]


def test_a_cancelled_read_cancels_the_step_that_runs_in_it(world: World) -> None:
    """One step after the other, it runs in the reader's task."""

    async def write(n: int, step: StepContext) -> Result[int, str]:
        await world.write(n, step, took=5)
        return Success(n)

    async def main() -> None:
        ctx = StepContext("job")
        s = ResultStream.of(numbers(3)).bind_step(write, ctx)
        async with s.stream() as items:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await anext(items)
            assert world.undone == [0]
            assert now() == 2

    run(main())


@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_anyio_scope_around_the_reader_waits_without_spinning(
    world: World, concurrency: int
) -> None:
    turns = 0

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        run_once = loop._run_once

        def checkpoint() -> None:
            nonlocal turns
            turns += 1
            run_once()

        loop._run_once = checkpoint
        ctx = StepContext("job")

        async def write(n: int, step: StepContext) -> Result[int, str]:
            await world.write(n, step, took=math.inf)
            return Success(n)

        with anyio.move_on_after(5):
            s = ResultStream.of(numbers(9)).bind_step(write, ctx, concurrency=concurrency)
            await ctx.run(s.collect())
        assert now() == 6
        assert len(world.undone) == concurrency

    run(main())
    assert turns < 200


# Whatever happens, wherever


class Steps:
    """A step that has an effect, fails on item 4, and is followed through all its events."""

    def __init__(self, world: World, injector: FaultInjector) -> None:
        self.world = world
        self.injector = injector
        self.events: dict[str, list[str]] = {}
        self.keys: dict[str, str] = {}  # of the steps that have registered
        self.undone: list[str] = []

    def on_event(self, event: Event) -> None:
        match event:
            case StepBegun(stage=stage, number=number):
                self.events.setdefault(f"{stage}[{number}]", []).append("begun")
            case StepEnded(stage=stage, number=number, outcome=outcome):
                self.events.setdefault(f"{stage}[{number}]", []).append(outcome)
            case _:
                pass

    async def undo(self, path: str) -> None:
        assert current_key() == self.keys[path]
        await asyncio.sleep(0.1)
        await self.strike("undo")
        self.undone.append(path)
        with suppress(ValueError):
            self.world.effects.remove(path)

    async def __call__(self, n: int, step: StepContext) -> Result[int, str]:
        self.keys[step.path] = step.key
        await step.register(self.undo, step.path)
        await asyncio.sleep(0.1 * (n % 3))
        await self.strike("before the effect")
        self.world.effects.append(step.path)
        await asyncio.sleep(0)
        await self.strike("after the effect")
        return Failure("no") if n == 4 else Success(n)

    async def strike(self, where: str) -> None:
        if self.injector.error is not None:
            await self.injector.point(where)


async def checked(injector: FaultInjector, last: int, way: dict[str, Any]) -> None:
    """Run two steps in a chain, and see that each action is committed, undone or reported."""
    world = World()
    steps, other = Steps(world, injector), Steps(world, injector)
    ctx = StepContext("job", observer=steps)
    second = ctx.child("second")

    async def source() -> AsyncIterator[int]:
        for n in range(last):
            await asyncio.sleep(0.05)
            await steps.strike("source")
            yield n

    async def main() -> Any:
        s = ResultStream.of(source()).bind_step(steps, ctx, name="one", **way)
        return await ctx.run(s.bind_step(other, second, name="other", **way).collect())

    result: object = None
    with suppress(asyncio.CancelledError, OSError):
        result = await (main() if injector.error else injector.run(main()))
    failed = [entry.args[0] for entry in ctx.report.failures]
    settled = [*steps.undone, *other.undone, *failed]
    assert len(settled) == len(set(settled)), "undone twice"
    assert len(ctx.scope) == len(second.scope) == 0
    for path in [*steps.keys, *other.keys]:
        events = steps.events[path.rpartition("/")[2]]
        assert events.count("begun") == 1
        kept = events[-1] == "succeeded"
        if "hold" in way:
            kept = kept and isinstance(result, IOSuccess)
        assert kept == (path not in settled), (path, events)
        if path not in failed:
            assert kept == (path in world.effects)


WAYS: list[dict[str, Any]] = [
    {"concurrency": 1},
    {"concurrency": 3},
    {"concurrency": 3, "ordered": False},
    {"concurrency": 1, "hold": True},
    {"concurrency": 3, "ordered": False, "hold": True},
]


@slow_on_journals
@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(("last", "times"), [(3, 1), (6, 50)], ids=str)
def test_every_action_is_settled_once_wherever_it_is_cancelled(
    way: dict[str, Any], last: int, times: int
) -> None:
    """At every await: of the source, the steps, their undos, the reader, and all between them."""
    points = inject_everywhere(lambda injector: checked(injector, last, way), times=times)
    assert points > 4 * last


@slow_on_journals
@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("times", [1, 3])
def test_every_action_is_settled_once_whatever_fails(way: dict[str, Any], times: int) -> None:
    """The source, a step before or after its effect, an undo, and several of them in a row."""
    points = inject_everywhere(lambda injector: checked(injector, 6, way), OSError, times=times)
    assert points > 20


# Memory


@slow_on_journals
def test_memory_is_flat_on_an_endless_stream(world: World) -> None:
    sizes: list[int] = []

    async def main() -> None:
        ctx = StepContext("job")

        async def undo(n: int) -> None: ...

        async def write(n: int, step: StepContext) -> Result[int, str]:
            await step.register(undo, n)
            return Success(n)

        def measure(n: int) -> None:
            if n in (1_000, 20_000, 99_000):
                gc.collect()
                sizes.append(len(gc.get_objects()))
                assert len(ctx.scope) == 0

        s = ResultStream.of(numbers(100_000)).bind_step(write, ctx).tap(measure)
        assert await ctx.run(s.run()) == IOSuccess(100_000)

    run(main())
    assert max(sizes) - min(sizes) < 100


def test_held_windows_are_the_only_thing_that_is_kept() -> None:
    async def main() -> None:
        ctx = StepContext("job")

        async def undo(n: int) -> None: ...

        async def write(n: int, step: StepContext) -> Result[int, str]:
            await step.register(undo, n)
            return Success(n)

        def check(n: int) -> None:
            assert len(ctx.scope) == n + 1

        s = ResultStream.of(numbers(100)).bind_step(write, ctx, hold=True).tap(check)
        assert await ctx.run(s.run()) == IOSuccess(100)
        assert len(ctx.scope) == 0

    run(main())
