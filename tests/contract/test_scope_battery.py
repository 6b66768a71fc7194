"""The battery of scopes: each program in memory and on each journal, whatever the journal does.

A program logs what it observes. On a journal that answers late, that is the same as in memory. Or
the journal refuses the n-th request, or all requests from the n-th on, or the program is cancelled
during the n-th. The program observes the same on each journal. Each effect was either committed and
remains, or was undone once.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from meddling import Meddler, MeddlingJournal
from returns.result import Failure, Result, Success

from returns_pipeline import to_result
from returns_pipeline.compensation import CompensationRegistry, CompensationScope, current_key
from returns_pipeline.context import StepContext
from returns_pipeline.errors import PipelineError
from returns_pipeline.journal import PostgresJournal, SqliteJournal, recover
from returns_pipeline.policies import race, with_policy, with_retry
from returns_pipeline.result_stream import ResultStream
from returns_pipeline.retry import RetryPolicy, Timeout
from returns_pipeline.saga import Saga
from returns_pipeline.testing import run, timed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from returns_pipeline.compensation import Compensation
    from returns_pipeline.testing import DurableJournal


class Planned(Exception):
    """The program's own."""


class World:
    """Effects, their undo actions, and what a program observed."""

    def __init__(self, journal: DurableJournal | None) -> None:
        self.journal = journal
        self.registry = CompensationRegistry()
        make = self.registry.compensation("undo", timeout=5.0, retry=RetryPolicy(2, wait=1.0))
        self.undo: Compensation[[str]] = make(self._undo)
        self.held_by: dict[str, CompensationScope] = {}
        self.contexts: dict[CompensationScope, StepContext] = {}
        self.checkpointed: set[str] = set()
        self.effects: set[str] = set()
        self.undone: list[str] = []
        self.keys: dict[str, set[str]] = {}
        self.observed: list[str] = []

    async def _undo(self, name: str) -> None:
        await asyncio.sleep(1)
        self.undone.append(name)
        self.keys[name].add(current_key())
        self.effects.discard(name)

    def scope(self, name: str) -> CompensationScope:
        return CompensationScope(name, journal=self.journal)

    def context(self, name: str) -> StepContext:
        made = StepContext(name, journal=self.journal)
        self.contexts[made.scope] = made
        return made

    async def act(self, place: CompensationScope | StepContext, name: str) -> None:
        """Produce an effect in a scope, once its undo is on record."""
        scope = place if isinstance(place, CompensationScope) else place.scope
        # A cancelled registration is on record, and undone although the effect did not begin.
        self.held_by[name] = scope
        self.keys[name] = {place.key}
        await place.register(self.undo, name)
        self.effects.add(name)

    async def observe(self, name: str, work: Awaitable[Any]) -> None:
        """Log what a part of the program observes."""
        try:
            given = await work
        except (PipelineError, Planned) as error:
            self.observed.append(f"{name}: {type(error).__name__}")
        except asyncio.CancelledError:
            self.observed.append(f"{name}: cancelled")
            raise
        else:
            self.observed.append(f"{name}: {given}")

    def fates(self) -> dict[str, str]:
        """Return what became of each action, by what became of the scope that held it last."""
        found: dict[str, str] = {}
        for name, scope in self.held_by.items():
            at: CompensationScope | None = scope
            while at is not None and at.state == "absorbed":
                at = at.parent
            assert at is not None
            # The scope of a context stays open, for the next run.
            found[name] = self.contexts[at].outcome if at in self.contexts else at.state
            reports = scope.report, at.report
            if name in self.checkpointed | {e.args[0] for it in reports for e in it.committed}:
                found[name] = "committed"
        return found


Program: TypeAlias = "Callable[[World], Awaitable[None]]"
PROGRAMS: dict[str, Program] = {}


def program(func: Program) -> Program:
    PROGRAMS[func.__name__] = func
    return func


async def later(seconds: float, work: Callable[[], Awaitable[Any]]) -> Any:
    await asyncio.sleep(seconds)
    return await work()


async def leave(scope: CompensationScope, error: Exception | None = None) -> str:
    async with scope:
        if error is not None:
            raise error
    return scope.state


@program
async def two_commit_one_scope(world: World) -> None:
    async with world.scope("s") as scope:
        await world.act(scope, "a")
        first = world.observe("first", scope.commit())
        second = world.observe("second", later(0.5, scope.commit))
        await asyncio.gather(first, second)


@program
async def compensate_meets_a_commit(world: World) -> None:
    async with world.scope("s") as scope:
        await world.act(scope, "a")
        first = world.observe("commit", scope.commit())
        second = world.observe("undo", later(0.5, lambda: compensate(scope)))
        await asyncio.gather(first, second)


async def compensate(scope: CompensationScope) -> int:
    return len((await scope.compensate()).failures)


@program
async def an_exit_meets_a_commit(world: World) -> None:
    async with world.scope("s") as scope:
        await world.act(scope, "a")
        first = world.observe("commit", scope.commit())
        second = world.observe("exit", later(0.5, lambda: leave(scope)))
        await asyncio.gather(first, second)


@program
async def an_exit_by_an_exception_meets_a_commit(world: World) -> None:
    async with world.scope("s") as scope:
        await world.act(scope, "a")
        first = world.observe("commit", scope.commit())
        second = world.observe("exit", later(0.5, lambda: leave(scope, Planned())))
        await asyncio.gather(first, second)


@program
async def a_parent_is_rolled_back_during_a_childs_commit(world: World) -> None:
    async with world.scope("root") as root:
        await world.act(root, "a")
        child = root.child("child")
        await world.act(child, "b")
        first = world.observe("child", leave(child))
        second = world.observe("root", later(0.5, lambda: compensate(root)))
        await asyncio.gather(first, second)


@program
async def children_beside_one_another(world: World) -> None:
    async def step(ctx: StepContext) -> Result[str, str]:
        async def part(name: str, *, fails: bool) -> Result[str, str]:
            child = ctx.child(name)
            world.contexts[child.scope] = child

            async def work() -> Result[str, str]:
                await world.act(child, name)
                await asyncio.sleep(len(name))
                return Failure(name) if fails else Success(name)

            return await to_result(child.run(work()))

        parts = [part("x", fails=False), part("yy", fails=True), part("zzz", fails=False)]
        for result in await asyncio.gather(*parts, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        return Success("all")

    ctx = world.context("job")
    await world.observe("step", to_result(ctx.run(step(ctx))))


async def checkpoint(world: World, ctx: StepContext, *names: str) -> None:
    """Commit in the middle of a step; a cancellation says whether that was done."""
    try:
        await ctx.commit()
    except asyncio.CancelledError as cancelled:
        if any("was committed" in note for note in getattr(cancelled, "__notes__", [])):
            world.checkpointed.update(names)
        raise
    world.checkpointed.update(names)


@program
async def checkpoints_beside_steps(world: World) -> None:
    async def window(name: str, step: StepContext) -> Result[str, str]:
        await world.act(step, name)
        return Failure(name) if name == "w3" else Success(name)

    async def all_windows(ctx: StepContext) -> Result[int, str]:
        stream = ResultStream.of(timed("w1", "w2", "w3")).bind_step(window, ctx)
        names: list[str] = []
        async with stream.stream() as results:
            async for result in results:
                names.append(f"after {result.value_or('none')}")
                await world.act(ctx, names[-1])
                await world.observe("checkpoint", checkpoint(world, ctx, *names))
        await world.act(ctx, "last")
        return Failure("the end")

    ctx = world.context("job")
    await world.observe("run", to_result(ctx.run(all_windows(ctx))))


@program
async def a_limit_passes_while_it_commits(world: World) -> None:
    attempts = itertools.count(1)

    async def step(ctx: StepContext) -> Result[str, str]:
        name = f"attempt {next(attempts)}"
        await world.act(ctx, name)
        await checkpoint(world, ctx, name)
        return Success(name)

    ctx = world.context("job")
    policy = RetryPolicy(2, wait=0.0) | Timeout(50.0, grace=0.5)
    await world.observe("run", to_result(ctx.run(with_policy(step, policy)(ctx))))


@program
async def windows_held_together(world: World) -> None:
    async def window(name: str, step: StepContext) -> Result[str, str]:
        await world.act(step, name)
        inner = step.child("inner")
        await world.act(inner, f"{name} inner")
        return Failure(name) if name == "h3" else Success(name)

    ctx = world.context("job")
    stream = ResultStream.of(timed("h1", "h2", "h3")).bind_step(window, ctx, hold=True)
    await world.observe("run", to_result(ctx.run(stream.collect())))


@program
async def windows_held_and_kept(world: World) -> None:
    async def window(name: str, step: StepContext) -> Result[str, str]:
        await world.act(step, name)
        return Success(name)

    ctx = world.context("job")
    stream = ResultStream.of(timed("h1", "h2")).bind_step(window, ctx, hold=True)
    await world.observe("run", to_result(ctx.run(stream.collect())))


@program
async def a_step_is_tried_again(world: World) -> None:
    attempts = itertools.count(1)

    async def step(ctx: StepContext) -> Result[str, str]:
        name = f"attempt {next(attempts)}"
        await world.act(ctx, name)
        return Failure(name) if name == "attempt 1" else Success(name)

    ctx = world.context("job")
    again = with_retry(step, RetryPolicy(2, wait=1.0))
    await world.observe("run", to_result(ctx.run(again(ctx))))


@program
async def a_race_is_won(world: World) -> None:
    async def near(ctx: StepContext) -> Result[str, str]:
        await world.act(ctx, "near")
        await asyncio.sleep(100)
        return Success("near")

    async def far(ctx: StepContext) -> Result[str, str]:
        await world.act(ctx, "far")
        await asyncio.sleep(300)
        return Success("far")

    ctx = world.context("job")
    await world.observe("run", to_result(ctx.run(race(near, far)(ctx))))


@program
async def a_saga_fails_at_its_last_step(world: World) -> None:
    def step(name: str) -> Callable[[str], Awaitable[Result[str, str]]]:
        async def work(_: str) -> Result[str, str]:
            world.held_by[name] = ctx.scope
            world.effects.add(name)
            return Success(name)

        return work

    async def fail(_: str) -> Result[str, str]:
        return Failure("no")

    world.keys |= {name: set[str]() for name in "pq"}
    saga = Saga("s").step("p", step("p"), undo=world.undo).step("q", step("q"), undo=world.undo)
    ctx = world.context("job")
    await world.observe("run", to_result(ctx.run(saga.step("r", fail).run("", ctx))))


def with_a_pivot(world: World) -> Saga[str, str, str]:
    """Return a saga of two steps. Once the second has succeeded, both stand."""

    async def reserve(_: str, own: StepContext) -> Result[str, str]:
        await world.act(own, "reserved")
        return Success("r")

    async def charge(_: str, own: StepContext) -> Result[str, str]:
        await world.act(own, "fee")
        inner = own.child("inner")
        await world.act(inner, "charged")
        world.checkpointed.update({"reserved", "fee", "charged"})
        return Success("c")

    return Saga("s").step("reserve", reserve).step("charge", charge).pivot()


@program
async def a_saga_continues_after_its_pivot(world: World) -> None:
    attempts = itertools.count(1)

    async def mail(_: str, own: StepContext) -> Result[str, str]:
        await world.act(own, f"mail {next(attempts)}")
        return Success("m")

    ctx = world.context("job")
    saga = with_a_pivot(world).step("mail", mail, retry=RetryPolicy(2, wait=1.0))
    await world.observe("run", to_result(ctx.run(saga.run("", ctx))))


@program
async def a_job_fails_after_the_pivot_of_its_saga(world: World) -> None:
    async def job(ctx: StepContext) -> Result[str, str]:
        await world.act(ctx, "before")
        await to_result(with_a_pivot(world).run("", ctx))
        await world.act(ctx, "after")
        return Failure("the end")

    ctx = world.context("job")
    await world.observe("run", to_result(ctx.run(job(ctx))))


@program
async def a_step_fails_after_a_pivot(world: World) -> None:
    async def fail(_: str) -> Result[str, str]:
        return Failure("no")

    ctx = world.context("job")
    saga = with_a_pivot(world).step("mail", fail, retry=RetryPolicy(2, wait=1.0))
    await world.observe("run", to_result(ctx.run(saga.run("", ctx))))


@program
async def an_inner_block_fails_and_the_outer_one_continues(world: World) -> None:
    async with world.scope("outer") as outer:
        await world.act(outer, "a")
        inner = outer.child("inner")
        await world.act(inner, "b")
        await world.observe("inner", leave(inner, Planned()))
        await world.act(outer, "c")
        await world.observe("after", asyncio.sleep(0, outer.state))


@program
async def a_registration_meets_a_rollback(world: World) -> None:
    async with world.scope("s") as scope:
        await world.act(scope, "a")
        first = world.observe("exit", leave(scope, Planned()))
        second = world.observe("late", later(0.5, lambda: world.act(scope, "b")))
        await asyncio.gather(first, second)


@program
async def a_rollback_meets_a_registration(world: World) -> None:
    async with world.scope("s") as scope:
        await world.act(scope, "a")
        first = world.observe("late", world.act(scope, "b"))
        second = world.observe("exit", later(0.5, lambda: leave(scope, Planned())))
        await asyncio.gather(first, second)


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        observed: What the program observed.
        ended: How it ended.
        undone: What was undone in the process, in order.
        recovered: What was undone by another owner while the first still lived.
        remaining: The effects that are left.
        states: What became of the scopes, by action.
    """

    observed: list[str]
    ended: str
    undone: list[str]
    recovered: list[str] = field(default_factory=list)
    remaining: list[str] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)


ENDS = {"NoneType", "Planned", "cancelled", "JournalUnavailable"}

Make: TypeAlias = "Callable[[], SqliteJournal | PostgresJournal]"


def carry_out(program: Program, make: Make | None, meddler: Meddler) -> Outcome:
    """Run a program, recover what it left, and check that nothing is left or done twice."""

    async def main() -> Outcome:
        async with AsyncExitStack() as stack:
            journal: DurableJournal | None = None
            real: DurableJournal | None = None
            if make is not None:
                real = await stack.enter_async_context(make())
                assert real is not None
                journal = MeddlingJournal(real, meddler)
            world = World(journal)
            task = asyncio.ensure_future(program(world))
            meddler.cancel = task.cancel
            await asyncio.wait({task})
            ended = "cancelled" if task.cancelled() else type(task.exception()).__name__
            assert ended in ENDS, ended
            in_process = list(world.undone)
            fates = world.fates()
            meddler.refused, meddler.cancels = range(0), 0
            if make is not None and real is not None:
                await check_recovered(world, make, real)
            check_fates(world, fates, meddler)
            return Outcome(
                world.observed,
                ended,
                in_process,
                world.undone[len(in_process) :],
                sorted(world.effects),
                fates,
            )

    return run(main())


async def check_recovered(world: World, make: Make, first: DurableJournal) -> None:
    """Make another owner undo what the first gave up; then nothing of the first is left."""
    await first.flush()  # what is given up is written soon, and not waited for
    async with make() as other:
        for report in await recover(other, world.registry):
            assert report.error is None
            assert not report.stuck + report.deferred
        await first.close()
        assert await recover(other, world.registry) == []
        assert await other.sagas(done=False) == []


def check_fates(world: World, fates: dict[str, str], meddler: Meddler) -> None:
    """Check that an effect was kept if it was committed, and otherwise undone once."""
    assert set(fates.values()) <= {"committed", "rolled back", "open"}
    for name, fate in fates.items():
        undone = world.undone.count(name)
        if fate == "committed":
            assert undone == 0, (name, fate)
        elif fate == "open":  # its registration was refused
            assert not undone, name
            assert name not in world.effects, name
        else:
            assert name not in world.effects, (name, fate)
            # A second time only if the record of the first was refused; with the same key.
            assert undone <= 1 + ("done" in meddler.refusals), (name, fate)
            assert len(world.keys[name]) <= 1


def places(tmp_path: Path, schema: tuple[str, str]) -> dict[str, Make]:
    return {
        "sqlite": partial(SqliteJournal, tmp_path / "journal.db"),
        "postgres": partial(PostgresJournal, schema[0], schema=schema[1]),
    }


KINDS = ("record", "forget", "flush", "begin", "done", "give_up")
LATE = {
    "all": dict.fromkeys(KINDS, 3.0),
    "commits": {"forget": 40.0},
    "undos": {"begin": 60.0, "done": 60.0},
}
# Here it matters who is first: a registration that has not returned is refused by a rollback.
RACES = {"a_rollback_meets_a_registration"}


@pytest.mark.parametrize(
    "late", [pytest.param(kind, marks=[pytest.mark.slow][: kind != "all"]) for kind in LATE]
)
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in RACES])
def test_on_a_late_journal_a_program_observes_what_it_observes_in_memory(
    name: str, late: str, tmp_path: Path, journal_schema: tuple[str, str]
) -> None:
    expected = carry_out(PROGRAMS[name], None, Meddler())
    for place, make in places(tmp_path, journal_schema).items():
        assert carry_out(PROGRAMS[name], make, Meddler(LATE[late])) == expected, place


def check_everywhere(
    name: str, tmp_path: Path, schema: tuple[str, str], meddlers: Callable[[int], Meddler]
) -> None:
    """Interfere with each request in turn: the outcome is the same on each journal."""
    for n in itertools.count(1):
        outcomes: dict[str, Outcome] = {}
        most = 0
        for place, make in places(tmp_path, schema).items():
            meddler = meddlers(n)
            outcomes[place] = carry_out(PROGRAMS[name], make, meddler)
            most = meddler.count
        assert outcomes["sqlite"] == outcomes["postgres"], n
        if n > most:
            assert most > 1
            return


@pytest.mark.slow
@pytest.mark.parametrize("how_often", [1, 10**6], ids=["once", "from then on"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_what_a_journal_refuses_is_undone_or_anybodys(
    name: str, how_often: int, tmp_path: Path, journal_schema: tuple[str, str]
) -> None:
    def refusing(n: int) -> Meddler:
        return Meddler(dict.fromkeys(KINDS, 1.0), refused=range(n, n + how_often))

    check_everywhere(name, tmp_path, journal_schema, refusing)


@pytest.mark.slow
@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_is_cancelled_during_a_request_is_committed_or_undone(
    name: str, answered: bool, tmp_path: Path, journal_schema: tuple[str, str]
) -> None:
    def cancelling(n: int) -> Meddler:
        return Meddler(dict.fromkeys(KINDS, 1.0), cancels=n, answered=answered)

    check_everywhere(name, tmp_path, journal_schema, cancelling)


# Nothing is committed in these, or only an action whose effect must not begin.
WITHOUT_COMMIT = {
    "a_registration_meets_a_rollback",
    "a_rollback_meets_a_registration",
    "a_saga_fails_at_its_last_step",
    "windows_held_together",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PROGRAMS.keys() - WITHOUT_COMMIT))
def test_what_was_committed_without_an_answer_stands_and_is_told(
    name: str, tmp_path: Path, journal_schema: tuple[str, str]
) -> None:
    places_ = places(tmp_path, journal_schema)
    commits = 0
    for n in itertools.count(1):
        meddler = Meddler(dict.fromkeys(KINDS, 1.0), unheard=range(n, n + 1))
        outcome = carry_out(PROGRAMS[name], places_["sqlite"], meddler)
        if "unheard" in meddler.refusals:  # else the n-th request is not a commit
            commits += 1
            again = Meddler(meddler.late, unheard=meddler.unheard)
            assert carry_out(PROGRAMS[name], places_["postgres"], again) == outcome
            assert "committed" in outcome.states.values()
        if n > meddler.count:
            break
    assert commits
