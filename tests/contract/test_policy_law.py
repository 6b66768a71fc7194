"""Under any tree of policies, cancelled at any time: what is not committed is undone, once."""

from __future__ import annotations

import asyncio
import itertools
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from returns_pipeline._engine.future_results import to_result
from returns_pipeline.context import StepContext
from returns_pipeline.policies import (
    RetryPolicy,
    Tier,
    Timeout,
    all_of,
    bulkhead,
    circuit_breaker,
    fallback,
    hedge,
    race,
    rate_limit,
    with_policy,
    with_retry,
    with_timeout,
)
from returns_pipeline.saga import Saga
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from returns.future import FutureResult

    Step = Callable[[StepContext], Awaitable[Result[Any, Any]]]

Tree = tuple[str, "list[Tree]"]

LEAVES = ["success", "fail", "raise", "hang", "ignore", "late", "slow"]
RETRY = RetryPolicy(2, wait=1.0)
STACKS: dict[str, Any] = {
    "retry | timeout": RETRY | Timeout(2.0, grace=1.0),
    "timeout | retry": Timeout(3.5, grace=1.0) | RETRY,
    "timeout | retry | timeout": Timeout(4.0, grace=1.0) | RETRY | Timeout(2.0, grace=1.0),
}
NODES = [
    *("race", "all", "all, one by one", "timeout", "retry", "fallback", "hedge", "saga"),
    *("rate limit", "breaker, retry", "bulkhead", *STACKS),
]
trees: st.SearchStrategy[Tree] = st.recursive(
    st.sampled_from(LEAVES).map(lambda leaf: (leaf, [])),
    lambda inner: st.tuples(st.sampled_from(NODES), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=6,
)

# The runs that something is done inside of, from the outermost on.
Path = tuple[tuple[str, int], ...]
_path: ContextVar[Path] = ContextVar("path", default=())


class World:
    """What was done, inside of which runs, what was undone, and what should not have been."""

    def __init__(self) -> None:
        self.done: list[Path] = []
        self.undone: list[int] = []
        self.wrong: list[str] = []
        self._run = itertools.count().__next__

    def do(self, path: Path) -> int:
        self.done.append(path)
        return len(self.done) - 1

    async def undo(self, number: int) -> None:
        await asyncio.sleep(0)
        self.undone.append(number)

    def not_undone(self, within: Path) -> list[Path]:
        return [
            path[len(within) :]
            for number, path in enumerate(self.done)
            if path[: len(within)] == within and number not in self.undone
        ]

    def inside(self, name: str, step: Step) -> Step:
        """Run a step as a run of this name."""

        async def named(ctx: StepContext) -> Result[Any, Any]:
            token = _path.set((*_path.get(), (name, self._run())))
            try:
                return await to_result(step(ctx))
            finally:
                _path.reset(token)

        return named

    def leaf(self, kind: str) -> Step:
        async def step(ctx: StepContext) -> Result[Any, Any]:
            number = 0
            for _ in range(2):
                number = self.do(_path.get())
                await ctx.register(self.undo, number)
                await asyncio.sleep(0)
            return await behave(kind, number)

        return self.inside("leaf", step)

    def act(self, kind: str) -> Callable[[object], Awaitable[Result[Any, Any]]]:
        """Make a step of a saga: its effect comes last, with its success."""

        async def step(_: object) -> Result[Any, Any]:
            result = await behave(kind, 0)
            if not isinstance(result, Success):
                return result
            # One that ignores its cancellation may succeed when the others have ended.
            return Success(self.do(() if kind == "ignore" else _path.get()))

        return step

    def node(self, kind: str, parts: list[Step]) -> Step:
        one_by_one = "retry" in kind or kind == "fallback"

        def begun(part: Step) -> Step:
            async def checked(ctx: StepContext) -> Result[Any, Any]:
                if one_by_one and self.not_undone(_path.get()):
                    self.wrong.append(f"{kind} continued before all was undone")
                return await to_result(self.inside("part", part)(ctx))

            return checked

        policy = made(kind, [begun(part) for part in parts])

        async def watched(ctx: StepContext) -> Result[Any, Any]:
            try:
                result = await to_result(policy(ctx))
            except Exception:
                self.must_be_undone(kind)
                raise
            if not isinstance(result, Success):
                self.must_be_undone(kind)
            if isinstance(result, Success) and kind in {"race", "hedge", "bulkhead"}:
                winners = {path[0] for path in self.not_undone(_path.get())}
                if len(winners) > 1:
                    self.wrong.append(f"{kind} has {len(winners)} winners")
            return result

        return self.inside(kind, watched)

    def must_be_undone(self, kind: str) -> None:
        if self.not_undone(_path.get()):
            self.wrong.append(f"{kind} has failed before all was undone")

    def build(self, tree: Tree) -> Step:
        kind, inner = tree
        if not inner:
            return self.leaf(kind)
        if kind == "saga":
            return self.inside("saga", self.saga([each[0] for each in inner]))
        return self.node(kind, [self.build(each) for each in inner])

    def saga(self, kinds: list[str]) -> Step:
        saga: Any = Saga("saga")
        for place, kind in enumerate(kinds):
            act = self.act(kind if kind in LEAVES else "slow")
            limit = Timeout(2.0, grace=1.0)
            saga = saga.step(str(place), act, undo=self.undo, retry=RETRY, timeout=limit)

        def step(ctx: StepContext) -> Awaitable[Result[Any, Any]]:
            done: FutureResult[Any, Any] = saga.run(None, ctx)
            return to_result(done)

        return step


async def behave(kind: str, number: int) -> Result[Any, Any]:
    await asyncio.sleep(0)
    if kind == "raise":
        raise ZeroDivisionError
    if kind == "fail":
        return Failure("no")
    if kind in {"slow", "hang"}:
        await asyncio.sleep(1 if kind == "slow" else 1000)
    if kind in {"ignore", "late"}:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await asyncio.sleep(3 if kind == "ignore" else 0.5)
    return Success(number)


def made(kind: str, parts: list[Step]) -> Callable[[StepContext], Awaitable[Any]]:
    first = parts[0]
    match kind:
        case "race":
            return race(*parts, grace=1.0)
        case "all":
            return all_of(*parts, grace=1.0)
        case "all, one by one":
            return all_of(*parts, limit=1, fail_fast=False, grace=1.0)
        case "timeout":
            return with_timeout(first, 2.0, grace=1.0)
        case "retry":
            return with_retry(first, RETRY)
        case "hedge":
            return hedge(first, after=1.0, grace=1.0)
        case "fallback":
            return fallback(*(Tier(str(i), part) for i, part in enumerate(parts)), grace=1.0)
        case "rate limit":
            return all_of(*map(rate_limit(2.0), parts), grace=1.0)
        case "bulkhead":
            return race(*map(bulkhead(1), parts), grace=1.0)
        case "breaker, retry":
            return with_retry(circuit_breaker(1, 0.5)(first), RETRY)
        case _:
            return with_policy(first, STACKS[kind])


def numbers(value: Any) -> list[int]:
    """Return what a success says was done."""
    return [value] if isinstance(value, int) else [each for part in value for each in numbers(part)]


def holds(kind: str, tree: Tree) -> bool:
    return tree[0] == kind or any(holds(kind, inner) for inner in tree[1])


def newest_first(world: World) -> bool:
    """Whether it is so within each run."""
    place = {number: index for index, number in enumerate(world.undone)}
    last: dict[Path, int] = {}
    for number, path in enumerate(world.done):
        if path and path[-1][0] == "leaf":
            before = last.get(path)
            if before in place and number in place and place[number] > place[before]:
                return False
            last[path] = number
    return True


# Found by it: what steps inside an abandoned one did, and a success among the stopped.
@example(
    tree=("timeout | retry", [("ignore", [])]), turns=None, seconds=0.0, again=False, succeeds=False
)
@example(
    tree=("race", [("raise", []), ("ignore", []), ("late", [])]),
    turns=None,
    seconds=0.0,
    again=False,
    succeeds=False,
)
# Two that register in turn.
@example(
    tree=("all", [("success", []), ("success", [])]),
    turns=None,
    seconds=0.0,
    again=False,
    succeeds=False,
)
@settings(max_examples=300, deadline=None)
@given(
    tree=trees,
    turns=st.none() | st.integers(0, 60),
    seconds=st.sampled_from([0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0]),
    again=st.booleans(),
    succeeds=st.booleans(),
)
def test_what_is_done_and_not_committed_is_undone_exactly_once(
    tree: Tree, turns: int | None, seconds: float, again: bool, succeeds: bool
) -> None:
    """Newest first; before anything else is tried; with one winner; nothing leaks."""
    world = World()
    before: int | None = None  # undone when the whole tree had come to a result

    async def main() -> None:
        ctx = StepContext("test")

        async def body() -> Result[Any, Any]:
            nonlocal before
            result = await to_result(world.build(tree)(ctx))
            before = len(world.undone)
            return result if succeeds else Failure("and then it failed")

        async def carry_out() -> Result[Any, Any]:
            return await to_result(ctx.run(body()))

        task = asyncio.create_task(carry_out())
        if turns is not None:
            await asyncio.wait({task}, timeout=seconds)
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            if again:
                await asyncio.sleep(0)
                task.cancel()
        await asyncio.wait({task}, timeout=20_000)
        assert task.done()
        committed = (
            not task.cancelled() and task.exception() is None and isinstance(task.result(), Success)
        )
        await asyncio.sleep(50)  # for what was abandoned
        assert len(world.undone) == len(set(world.undone))
        if committed:
            assert not set(numbers(task.result().unwrap())) & set(world.undone)
        else:
            assert sorted(world.undone) == list(range(len(world.done)))
        assert newest_first(world)
        together = world.undone[before:]
        if before is not None and not holds("saga", tree):  # which keeps its own together
            assert together == sorted(together, reverse=True)
        assert not world.wrong
        assert len(ctx.scope) == 0

    run(main())
