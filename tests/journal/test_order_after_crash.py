"""Last in, first out holds after a crash, over all that was in flight below one context."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from returns.result import Failure, Result, Success

from returns_pipeline import to_result
from returns_pipeline.compensation import CompensationRegistry, CompensationScope
from returns_pipeline.context import StepContext
from returns_pipeline.journal import PostgresJournal, SqliteJournal, recover
from returns_pipeline.policies import all_of, race, with_retry, with_timeout
from returns_pipeline.result_stream import ResultStream
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.saga import Saga
from returns_pipeline.testing import timed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.journal.conftest import Child, Place

Make: TypeAlias = "Callable[[], SqliteJournal | PostgresJournal]"

undone: list[str] = []
fails_once: set[str] = set()
fails: set[str] = set()
registry, old = CompensationRegistry(), CompensationRegistry()


@registry.compensation("undo", retry=RetryPolicy(attempts=3, wait=0.02))
async def undo(name: str) -> None:
    """Record the call, or fail, once or always."""
    if name in fails or name in fails_once:
        fails_once.discard(name)
        raise OSError(name)
    undone.append(name)


@registry.compensation("new")
async def new(name: str) -> None:
    undone.append(name)


_ = old.compensation("undo", retry=RetryPolicy(attempts=3, wait=0.02))(undo.func)


@pytest.fixture(autouse=True)
def _clean() -> None:
    undone.clear()
    fails_once.clear()
    fails.clear()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def attempts(ctx: StepContext) -> object:
    """The second attempt of a step is in flight, and the first is undone."""
    made = 0

    async def step(own: StepContext) -> Result[str, str]:
        nonlocal made
        made += 1
        if made == 1:
            return Failure("again")
        await own.register(undo, "2")
        await own.child("inner").register(undo, "3")
        die()
        return Success("done")

    await ctx.register(undo, "1")
    return await to_result(with_retry(with_timeout(step, 9.0), RetryPolicy(2, wait=0.0))(ctx))


async def windows(ctx: StepContext) -> object:
    """Two windows are held, the third is in flight."""

    async def window(name: str, own: StepContext) -> Result[str, str]:
        await own.register(undo, name)
        if name == "3":
            die()
        return Success(name)

    stream = ResultStream.of(timed("1", "2", "3")).bind_step(window, ctx, hold=True)
    return await to_result(stream.collect())


async def side_by_side(ctx: StepContext) -> object:
    """Of several steps in flight, each has registered before and after the others."""

    async def near(own: StepContext) -> Result[str, str]:
        await own.register(undo, "2")
        await asyncio.sleep(0.1)
        await own.register(undo, "4")
        await asyncio.sleep(9)
        return Success("near")

    async def far(own: StepContext) -> Result[str, str]:
        await asyncio.sleep(0.05)
        await own.register(undo, "3")
        await asyncio.sleep(0.1)
        die()
        return Success("far")

    await ctx.register(undo, "1")
    return await to_result(all_of(race(near, far))(ctx))


async def saga(ctx: StepContext) -> object:
    """Two steps of a saga have succeeded, the third registers its own undo and is in flight."""

    async def first(name: str) -> Result[str, str]:
        return Success(name)

    async def third(name: str) -> Result[str, str]:
        await ctx.register(undo, "3")
        die()
        return Success(name)

    async def second(_: str) -> Result[str, str]:
        return Success("2")

    steps = Saga("s").step("a", first, undo=undo).step("b", second, undo=undo)
    return await to_result(steps.step("c", third).run("1", ctx))


async def absorbed(ctx: StepContext) -> None:
    """A root has absorbed another one, whose children are open or are registering."""
    other = CompensationScope("other", journal=ctx.scope.journal)
    near, far = other.child("near"), other.child("far")
    inner = near.child("inner")
    for n, scope in enumerate([ctx.scope, other, near, ctx.scope, inner], 1):
        await scope.register(undo, str(n))
    registering = asyncio.create_task(far.register(undo, "6"))
    await asyncio.sleep(0)
    ctx.scope.absorb(other)
    await registering
    await near.commit()
    for n, scope in enumerate([far, ctx.scope], 7):
        await scope.register(undo, str(n))
    die()


IN_FLIGHT = {
    "absorbed": (absorbed, "876421"),
    "attempts": (attempts, "321"),
    "windows": (windows, "321"),
    "side by side": (side_by_side, "4321"),
    "saga": (saga, "321"),
}


def dies(make: Make, work: Callable[[StepContext], Awaitable[Any]], child: type[Child]) -> None:
    """Do work in a context of a process that kills itself on the way."""

    async def program(_: Child) -> None:
        ctx = StepContext("job", journal=make())
        _ = await work(ctx)

    with child(program) as process:
        assert process.line() == "dead"


@pytest.fixture(params=["sqlite", "postgres"])
def journals(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param == "sqlite":
        return lambda: SqliteJournal(tmp_path / "journal.db")
    place: Place = request.getfixturevalue("place")
    return place


async def recovered(make: Make, known: CompensationRegistry, *, recoverers: int = 1) -> None:
    """Recover with several recoverers at a time, until the dead owner is known to be dead."""
    for _ in range(200):
        async with make() as first, make() as second:
            both = [first, second][:recoverers]
            reports = await asyncio.gather(*(recover(one, known) for one in both))
        if any(reports):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("nothing to recover")


@pytest.mark.parametrize("recoverers", [1, 2])
@pytest.mark.parametrize("name", IN_FLIGHT)
def test_what_was_in_flight_is_undone_newest_first_whatever_has_to_be_tried_again(
    name: str, recoverers: int, journals: Make, child: type[Child]
) -> None:
    work, order = IN_FLIGHT[name]
    dies(journals, work, child)
    fails_once.update(order)  # the older ones wait for the attempts of the newer ones
    asyncio.run(recovered(journals, registry, recoverers=recoverers))
    assert "".join(undone) == order


def test_an_unknown_name_in_flight_keeps_all_that_is_older(
    journals: Make, child: type[Child]
) -> None:
    async def work(ctx: StepContext) -> None:
        async def step(own: StepContext) -> Result[str, str]:
            await own.register(new, "2")
            await own.register(undo, "3")
            die()
            return Success("")

        await ctx.register(undo, "1")
        await to_result(with_timeout(step, 9.0)(ctx))

    dies(journals, work, child)

    async def main() -> None:
        await recovered(journals, old)
        assert undone == ["3"]
        async with journals() as journal:
            (report,) = await recover(journal, old)
            assert len(report.deferred) == 2  # they stay so
            await recover(journal, registry)

    asyncio.run(main())
    assert undone == ["3", "2", "1"]


def test_a_scope_that_stops_at_a_failure_does_so_after_a_crash(
    journals: Make, child: type[Child]
) -> None:
    async def program(_: Child) -> None:
        scope = CompensationScope("job", journal=journals(), on_failure="stop")
        for name in "12":
            await scope.register(undo, name)
        await scope.child("inner").register(undo, "3")
        die()

    with child(program) as process:
        assert process.line() == "dead"
    fails.add("2")

    async def main() -> None:
        await recovered(journals, registry)
        assert undone == ["3"]
        async with journals() as journal:
            (found,) = await journal.sagas()
            assert [action.state for action in found.actions] == ["done", "stuck", "stuck"]
            fails.clear()
            assert await journal.retry(found.id) == 2
            await recover(journal, registry)

    asyncio.run(main())
    assert undone == ["3", "2", "1"]
