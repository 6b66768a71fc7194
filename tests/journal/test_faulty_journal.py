"""The journal fails at the n-th request, for every n: each undo runs once or is on record."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from typing import TYPE_CHECKING, Literal

import pytest
from returns.result import Failure, Result, Success

from returns_pipeline._engine.future_results import to_result
from returns_pipeline.compensation import CompensationRegistry, CompensationScope, current_key
from returns_pipeline.context import StepContext
from returns_pipeline.errors import JournalError, JournalUnavailable
from returns_pipeline.journal import SqliteJournal, recover
from returns_pipeline.result_stream import ResultStream
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.saga import Saga
from returns_pipeline.testing import (
    FaultInjector,
    FaultyJournal,
    check_journal,
    inject_everywhere,
    run,
    timed,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from returns_pipeline.compensation import Compensation, Intent

pytestmark = pytest.mark.slow

How = Literal["each", "hold"]

# One request fails; or all from one on; or the caller is cancelled there; or both at once.
FAULTS = {"once": 1, "from then on": 1000, "cancelled": 0, "cancelled and once": -1}


class Noting(SqliteJournal):
    """Knows what was ever on record."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path
        self.recorded: dict[str, str] = {}

    async def record(self, intent: Intent, /) -> None:
        await super().record(intent)
        self.recorded[intent.id] = str(intent.args[0])


class World:
    """Effects, what undoes them, and what was seen."""

    def __init__(self, path: Path, *, flaky: bool = False) -> None:
        self.journal = Noting(path)
        self.effects: set[str] = set()
        self.ever: set[str] = set()
        self.undone: list[tuple[str, str]] = []
        self.registry = CompensationRegistry()
        retry = RetryPolicy(attempts=3, wait=1.0)
        self.delete: Compensation[[str]] = self.registry.compensation("delete", retry=retry)(
            self._delete
        )
        self._fails = {"1a"} if flaky else set[str]()

    async def _delete(self, name: str) -> None:
        if name in self._fails:
            self._fails.discard(name)
            raise OSError("not now")
        self.undone.append((name, current_key()))
        self.effects.discard(name)

    async def write(self, name: str, ctx: StepContext) -> None:
        """Produce an effect, if its undo is on record."""
        await ctx.register(self.delete, name)
        open_ = [a for saga in await self.journal.sagas() for a in saga.actions]
        assert f'{{"name": "{name}"}}' in [a.arguments for a in open_ if a.state == "pending"]
        self.effects.add(name)
        self.ever.add(name)

    async def window(self, number: int, step: StepContext) -> Result[int, str]:
        for part in "ab":
            await self.write(f"{number}{part}", step)
        return Failure("no good") if number == 2 else Success(number)

    async def forward(self, ctx: StepContext, how: How) -> Result[object, str]:
        if how == "hold":
            return await to_result(ctx.run(self.windows(ctx, 0, 1, 2, hold=True).collect()))
        # Two runs in one context: the second begins where the first has committed.
        _ = await to_result(ctx.run(self.windows(ctx, 0, 1).collect()))
        await self.write("between", ctx)
        return await to_result(ctx.run(self.windows(ctx, 2, 3).collect()))

    def windows(
        self, ctx: StepContext, *numbers: int, hold: bool = False
    ) -> ResultStream[int, str]:
        return ResultStream.of(timed(*numbers)).bind_step(self.window, ctx, hold=hold)

    async def recovered(self) -> None:
        """Be undone by another process, and check what is left."""
        await self.journal.close()
        async with SqliteJournal(self.journal.path) as other:
            for report in await recover(other, self.registry):
                assert report.stuck == report.deferred == ()
                assert report.error is None
            left = {a.id: a.state for saga in await other.sagas() for a in saga.actions}
        assert set(left.values()) <= {"done"}
        # What is not there any more was committed.
        committed = {name for id_, name in self.journal.recorded.items() if id_ not in left}
        assert self.effects == committed & self.ever


def failing(scenario: Callable[[FaultInjector], Awaitable[None]], times: int) -> int:
    """Run it with the journal failing at each request; return how many there were."""
    return inject_everywhere(
        scenario, lambda: JournalUnavailable("journal", "out of reach"), times=max(times, 1)
    )


def strike(injector: FaultInjector, times: int) -> Callable[[str], object]:
    """Raise the injector's error, or cancel the task that this is called in, or do both."""
    task = asyncio.current_task()
    assert task is not None

    def cancel(where: str) -> None:
        try:
            injector(where)
        except JournalUnavailable:
            task.cancel()
            if times:
                raise

    return injector if times > 0 else cancel


def check_undone(world: World, injector: FaultInjector) -> None:
    """See that an undo ran once; or, where the record of it failed, again with the same key."""
    counted = Counter(world.undone)
    twice = sum(counted.values()) - len(counted)
    assert len({name for name, _ in counted}) == len(counted)
    assert twice <= ("before mark.done()" in injector.where)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("journal")]


@pytest.mark.parametrize("how", ["each", "hold"])
@pytest.mark.parametrize("times", FAULTS.values(), ids=FAULTS)
def test_a_pipeline_whose_journal_fails_at_any_request(
    tmp_path: Path, how: How, times: int
) -> None:
    places: set[str] = set()
    rounds = itertools.count()

    async def scenario(injector: FaultInjector) -> None:
        world = World(tmp_path / f"{next(rounds)}.db")

        async def main() -> Result[object, str]:
            journal = FaultyJournal(world.journal, strike(injector, times))
            async with StepContext("job", journal=journal) as ctx:
                return await world.forward(ctx, how)

        task = asyncio.ensure_future(main())
        await asyncio.wait({task})
        caught = asyncio.CancelledError() if task.cancelled() else task.exception()
        places.add(injector.where)
        if not injector.fired:
            assert task.result() == Failure("no good")
        elif times < 1:
            assert caught is None or isinstance(caught, asyncio.CancelledError)
        elif "mark" in injector.where:
            # The failure is what the user asked about; what could not be undone is in the report.
            assert caught is None or isinstance(caught, JournalError)
        else:
            assert isinstance(caught, JournalUnavailable)
        await world.recovered()
        if times == 1:
            check_undone(world, injector)
        if how == "hold":
            assert world.effects == set() or "flush" in injector.where

    assert failing(scenario, times) > 20
    requests = {
        "record()",
        "mark.begin()",
        "mark.done()",
        "move()" if how == "hold" else "forget()",
    }
    assert {place.rpartition(" ")[2] for place in places if place} >= requests


@pytest.mark.parametrize("times", FAULTS.values(), ids=FAULTS)
def test_a_recovery_whose_journal_fails_at_any_request(tmp_path: Path, times: int) -> None:
    places: set[str] = set()
    rounds = itertools.count()

    async def scenario(injector: FaultInjector) -> None:
        world = World(tmp_path / f"{next(rounds)}.db", flaky=True)
        for name in "12":
            scope = CompensationScope(name, journal=world.journal)
            for part in "ab":
                await scope.register(world.delete, name + part)
                world.effects.add(name + part)
                world.ever.add(name + part)
            await world.journal.close()
            _ = await scope.compensate()  # which is another's now: nothing happens

        async def main() -> bool:
            async with SqliteJournal(world.journal.path) as real:
                journal = FaultyJournal(real, strike(injector, times))
                reports = await recover(journal, world.registry)
                return any(report.error is not None for report in reports)

        assert world.undone == []
        task = asyncio.ensure_future(main())
        await asyncio.wait({task})
        places.add(injector.where)
        if not injector.fired:
            assert task.result() is False
            assert world.effects == set()
        elif times < 1:
            assert task.cancelled()
        elif not task.exception():
            # Where one saga ended with an error its report says so.
            assert task.result() or "release()" in injector.where
        else:
            assert isinstance(task.exception(), JournalUnavailable)
        await world.recovered()
        check_undone(world, injector)

    assert failing(scenario, times) > 20
    requests = {"claim()", "mark.begin()", "mark.done()", "postpone()"}
    assert {place.rpartition(" ")[2] for place in places if place} >= requests


@pytest.mark.parametrize("kind", [CompensationScope, StepContext])
@pytest.mark.parametrize("where", ["before forget()", "after forget()"])
def test_a_block_whose_commit_the_journal_refuses_is_rolled_back(
    tmp_path: Path, kind: type[CompensationScope | StepContext], where: str
) -> None:
    struck: list[str] = []

    def once(at: str) -> None:
        if at == where and not struck:
            struck.append(at)
            raise JournalUnavailable("journal", "out of reach")

    async def main() -> None:
        world = World(tmp_path / "journal.db")
        journal = FaultyJournal(world.journal, once)
        with pytest.raises(JournalUnavailable, match="out of reach") as caught:
            async with kind("job", journal=journal) as block:
                await block.register(world.delete, "x")
                world.effects.add("x")
                world.ever.add("x")
        # After it, it is committed after all, and must not be undone.
        notes = [note for note in getattr(caught.value, "__notes__", ()) if "was committed" in note]
        assert bool(notes) is ("after" in where)
        scope = block if isinstance(block, CompensationScope) else block.scope
        assert scope.state == ("committed" if "after" in where else "rolled back")
        assert world.effects == ({"x"} if "after" in where else set())
        await world.recovered()

    run(main())


def test_a_scope_whose_absorption_the_journal_refuses_is_as_it_was(tmp_path: Path) -> None:
    def no_move(where: str) -> None:
        if where == "before move()":
            raise JournalUnavailable("journal", "out of reach")

    async def main() -> None:
        world = World(tmp_path / "journal.db")
        journal = FaultyJournal(world.journal, no_move)
        async with CompensationScope("a", journal=journal) as scope:
            other = CompensationScope("b", journal=journal)
            await other.register(world.delete, "x")
            for as_one in (False, True):
                with pytest.raises(JournalUnavailable):
                    scope.absorb(other, as_one=as_one)
            assert (len(scope), len(other), other.closed) == (0, 1, False)
            await other.compensate()
            assert [name for name, _ in world.undone] == ["x"]
        await world.journal.close()

    run(main())


def test_a_saga_s_step_whose_undo_the_journal_refuses_is_undone_at_once(tmp_path: Path) -> None:
    """Its undo is made of its output: the effect is there already."""
    keys: list[str] = []

    class Keys(FaultyJournal):
        async def record(self, intent: Intent, /) -> None:
            keys.append(intent.key)
            await super().record(intent)

    def second(where: str) -> None:
        if where == "before record()" and len(keys) == 2:
            raise JournalUnavailable("journal", "out of reach")

    async def main() -> None:
        world = World(tmp_path / "journal.db")

        async def step(name: str) -> Result[str, str]:
            name = "b" if name == "a" else "a"
            world.effects.add(name)
            return Success(name)

        saga = Saga("two").step("a", step, undo=world.delete).step("b", step, undo=world.delete)
        journal = Keys(world.journal, second)
        async with StepContext("job", journal=journal) as ctx:
            with pytest.raises(JournalUnavailable):
                await ctx.run(saga.run("", ctx))
        assert world.effects == set()
        assert world.undone == [("b", keys[1]), ("a", keys[0])]
        await world.recovered()

    run(main())


def test_what_nothing_strikes_keeps_all_promises(tmp_path: Path) -> None:
    places: Counter[str] = Counter()

    def note(where: str) -> None:
        places[where] += 1

    run(check_journal(lambda: FaultyJournal(SqliteJournal(tmp_path / "journal.db"), note)))
    before = {place for place in places if place.startswith("before")}
    assert {place.replace("before", "after") for place in before} == set(places) - before
    assert len(before) == 11  # every request that scopes and recovery make


def test_what_is_raised_after_a_request_leaves_no_doubt(tmp_path: Path) -> None:
    """What raised is not on record, and nothing was taken over."""

    def lose(where: str) -> None:
        if where in {"after record()", "after claim()"}:
            raise JournalUnavailable("journal", "no answer")

    async def main() -> None:
        world = World(tmp_path / "journal.db")
        journal = FaultyJournal(world.journal, lose)
        assert str(journal) == str(world.journal)
        scope = CompensationScope("a", journal=journal)
        with pytest.raises(JournalUnavailable):
            await scope.register(world.delete, "x")
        assert await journal.sagas() == []
        dead = CompensationScope("b", journal=world.journal)
        await dead.register(world.delete, "y")
        await journal.close()
        _ = await dead.compensate()
        with pytest.raises(JournalUnavailable):
            await recover(journal, world.registry)
        assert len(await recover(world.journal, world.registry)) == 1
        await journal.close()

    run(main())
