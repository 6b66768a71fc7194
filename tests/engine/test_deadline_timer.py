"""`DeadlineTimer`: one handle for deadline after deadline, whatever loop it runs on."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, TypeVarTuple

from returns_pipeline._engine.deadlines import DeadlineTimer
from returns_pipeline.testing import run
from returns_pipeline.testing._clock import VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

Ts = TypeVarTuple("Ts")


class Handles:
    """Counts the handles that are made, and fires them on request."""

    def __init__(self) -> None:
        self.made: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []
        self.cancelled = 0

    def call_at(self, when: float, callback: Callable[..., None], *args: Any) -> Handles:
        self.made.append((when, callback, args))
        return self

    def cancel(self) -> None:
        self.cancelled += 1

    def fire(self) -> None:
        _, callback, args = self.made[-1]
        callback(*args)


def timer_on(handles: Handles) -> tuple[Callable[[float], None], list[float], DeadlineTimer]:
    timer = DeadlineTimer()
    came: list[float] = []
    loop: Any = handles
    return lambda deadline: timer.set(loop, deadline, came.append), came, timer


def test_deadlines_come_at_their_time() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        came: list[tuple[float, float]] = []
        timer = DeadlineTimer()
        for deadline in (1.0, 5.0, 3.0):
            timer.set(loop, deadline, lambda due: came.append((due, loop.time())))
        await asyncio.sleep(10)
        assert came == [(3.0, 3.0)]
        timer.set(loop, 11.0, lambda due: came.append((due, loop.time())))
        await asyncio.sleep(10)
        assert came == [(3.0, 3.0), (11.0, 11.0)]
        assert not timer.is_armed

    run(main())


def test_a_deadline_that_moves_back_keeps_the_handle() -> None:
    handles = Handles()
    set_to, came, timer = timer_on(handles)
    for deadline in range(1, 1000):
        set_to(deadline)
    assert len(handles.made) == 1
    handles.fire()  # for the first of them
    assert came == []
    assert [when for when, *_ in handles.made] == [1, 999]
    handles.fire()
    assert came == [999]
    assert timer.deadline == math.inf
    assert handles.cancelled == 0


def test_a_deadline_that_moves_forward_replaces_the_handle() -> None:
    handles = Handles()
    set_to, came, _ = timer_on(handles)
    set_to(9.0)
    set_to(4.0)
    assert [when for when, *_ in handles.made] == [9.0, 4.0]
    assert handles.cancelled == 1
    handles.fire()
    assert came == [4.0]


def test_no_deadline_needs_no_handle() -> None:
    handles = Handles()
    set_to, came, timer = timer_on(handles)
    set_to(math.inf)
    assert not timer.is_armed
    set_to(2.0)
    timer.deadline = math.inf  # it is forgotten, but not given back
    handles.fire()
    assert came == []
    assert not timer.is_armed
    set_to(7.0)
    timer.cancel()
    assert (timer.deadline, timer.is_armed, handles.cancelled) == (math.inf, False, 1)


def test_a_loop_that_fires_early_makes_the_deadline_come_once() -> None:
    """The loop of `uvloop` fires up to half a millisecond early: to arm again would spin."""
    made = 0

    class Early(VirtualTimeLoop):
        def call_at(
            self,
            when: float,
            callback: Callable[[*Ts], object],
            *args: *Ts,
            context: Context | None = None,
        ) -> asyncio.TimerHandle:
            nonlocal made
            made += 1
            return super().call_at(when - 0.0005, callback, *args, context=context)

    came: list[float] = []

    async def main() -> None:
        await asyncio.sleep(1)
        timer = DeadlineTimer()
        timer.set(asyncio.get_running_loop(), 5.0, came.append)
        await asyncio.sleep(9)

    with asyncio.Runner(loop_factory=Early) as runner:
        runner.run(main())
    assert came == [5.0]
    assert made == 3  # two sleeps, one deadline
