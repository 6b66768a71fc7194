# mypy: disable-error-code="unused-awaitable, unused-coroutine"
# pyright: reportUnusedCoroutine=false
"""Never run. What the checkers say of the tools for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, assert_type

from returns_pipeline.testing import (
    Deadlock,
    FaultInjector,
    LeakedTasks,
    Scripted,
    ScriptError,
    VirtualTimeLoop,
    Wait,
    advance,
    inject_everywhere,
    run,
    script,
    timed,
    timeline,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterable


async def work(n: int) -> str:
    return str(n)


async def scenario(faults: FaultInjector) -> None:
    assert_type(await faults.run(work(1)), str)
    await faults.point("here")
    assert_type(faults.fired, bool)
    assert_type(faults.where, str)
    faults.run(work)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    faults.point(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def clock() -> None:
    """A coroutine gives what it returns."""
    assert_type(run(work(1)), str)
    await advance(2.5)
    loop: asyncio.AbstractEventLoop = VirtualTimeLoop()
    assert_type(loop.time(), float)
    raised: list[AssertionError] = [Deadlock(), LeakedTasks()]
    run(work)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    advance("2.5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    VirtualTimeLoop(1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    deadlock: Deadlock = LeakedTasks()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    leak: LeakedTasks = Deadlock()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del raised, deadlock, leak


async def sources(source: AsyncIterable[int]) -> None:
    """A source gives what is in its script."""
    assert_type(script("a-b|"), Scripted[str])
    assert_type(script("a-b|", step=0.5, values={"a": 1, "b": 2}), Scripted[int])
    assert_type(timed(1, Wait(2.0), 3), Scripted[int])
    assert_type(timed(1, ScriptError("no")), Scripted[int])
    assert_type(await timeline(source, limit=3), list[tuple[float, int]])
    assert_type(await timeline(source, error=OSError), list[tuple[float, int | OSError]])
    script(1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    script("a", 0.5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    timed(step=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    timeline([1])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Wait("2 s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    narrower: Scripted[bool] = timed(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    system: OSError = ScriptError()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del narrower, system


def faults() -> None:
    """An injector strikes with a cancellation, an error, or what makes one."""
    assert_type(FaultInjector(1), FaultInjector)
    assert_type(FaultInjector.every(OSError), Iterator[FaultInjector])
    assert_type(inject_everywhere(scenario, OSError("no"), times=2), int)
    FaultInjector("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    FaultInjector(1, "no")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    FaultInjector.every(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    inject_everywhere(work)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
