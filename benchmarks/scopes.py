"""What a scope costs: one register and commit, a step of a stream, a rollback."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from returns.future import FutureResult
from returns.result import Result, Success

from harness import Way, compare, start
from returns_pipeline import CompensationScope, ResultStream, StepContext

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def undo(what: int) -> None:
    """Undo an effect that never happened."""


async def exit_stack(items: int) -> None:
    """The standard library: an exit stack for each, whose callbacks are moved away and dropped."""
    for item in range(items):
        stack = AsyncExitStack()
        stack.push_async_callback(undo, item)
        stack.pop_all()


async def exit_stack_entered(items: int) -> None:
    """The same, in the form for code that may raise."""
    for item in range(items):
        async with AsyncExitStack() as stack:
            stack.push_async_callback(undo, item)
            stack.pop_all()


async def child_scope(items: int) -> None:
    """One child scope for each, with one action, committed."""
    root = CompensationScope("root")
    for item in range(items):
        scope = root.child("step")
        await scope.register(undo, item)
        await scope.commit()


async def child_scope_entered(items: int) -> None:
    """The same by ``async with``."""
    root = CompensationScope("root")
    for item in range(items):
        async with root.child("step") as scope:
            await scope.register(undo, item)


async def numbers(items: int) -> AsyncIterator[int]:
    """Yield all items without ever suspending."""
    for item in range(items):
        yield item


async def double(item: int) -> Result[int, str]:
    """Do almost nothing, so that the overhead shows."""
    return Success(item * 2)


def bare(item: int) -> FutureResult[int, str]:
    """A step without a context."""
    return FutureResult(double(item))


def idle(item: int, _: StepContext) -> FutureResult[int, str]:
    """A step that has a context, and registers nothing."""
    return FutureResult(double(item))


async def registering(item: int, ctx: StepContext) -> Result[int, str]:
    """A step that registers an action."""
    await ctx.register(undo, item)
    return Success(item * 2)


async def bind_future_result(items: int) -> None:
    """The yardstick: the same stream without contexts."""
    _ = await ResultStream.of(numbers(items)).bind_future_result(bare).run()


async def bind_step(items: int) -> None:
    """A context for each item."""
    _ = await ResultStream.of(numbers(items)).bind_step(idle, StepContext("job")).run()


async def bind_step_registering(items: int) -> None:
    """A context and an action for each item, committed."""
    _ = await ResultStream.of(numbers(items)).bind_step(registering, StepContext("job")).run()


async def bind_step_holding(items: int) -> None:
    """The same, held until the end of the run."""
    ctx = StepContext("job")
    stream = ResultStream.of(numbers(items)).bind_step(registering, ctx, hold=True)
    _ = await ctx.run(stream.run())


async def unwind_exit_stack(items: int) -> None:
    """Call all callbacks, newest first."""
    async with AsyncExitStack() as stack:
        for item in range(items):
            stack.push_async_callback(undo, item)


async def task_for_each(items: int) -> None:
    """Await each in a task with a time limit: the least code that does what a rollback promises."""
    for item in range(items):
        task = asyncio.create_task(undo(item))
        await asyncio.wait({task}, timeout=30.0)


async def roll_back(items: int) -> None:
    """Undo all actions."""
    scope = CompensationScope("root")
    for item in range(items):
        await scope.register(undo, item)
    _ = await scope.compensate()


def main() -> None:
    """Print all figures."""
    start("scopes and steps")
    compare(
        "register + commit of one child scope",
        20_000,
        Way("AsyncExitStack: push_async_callback + pop_all", exit_stack),
        Way("scope.child(), register, commit", child_scope, goal=1.0),
    )
    compare(
        "the same in `async with`",
        20_000,
        Way("AsyncExitStack: push_async_callback + pop_all", exit_stack_entered),
        Way("scope.child(), register", child_scope_entered, goal=1.0),
    )
    compare(
        "a step of a stream, an item",
        10_000,
        Way("bind_future_result", bind_future_result),
        Way("bind_step, nothing registered", bind_step),
        Way("bind_step, one action committed", bind_step_registering, goal=1.5),
        Way("bind_step(hold=True), one action", bind_step_holding),
    )
    compare(
        "a rollback, an action",
        2_000,
        Way("a task for each, asyncio.wait(timeout=30)", task_for_each),
        Way("AsyncExitStack: no limit, no retry, no report", unwind_exit_stack),
        Way("scope.compensate()", roll_back),
    )


if __name__ == "__main__":
    main()
