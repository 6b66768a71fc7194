"""Test asyncio code on virtual time: nothing sleeps, every deadline is exact, leaks are errors."""

from __future__ import annotations

import asyncio
import math
import selectors
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, TypeVarTuple

from returns_pipeline.testing.places import report

if TYPE_CHECKING:
    import sys
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from concurrent.futures import Executor
    from contextvars import Context

__all__ = ["Deadlock", "LeakedTasks", "VirtualTimeLoop", "advance", "run", "steering"]

# What wraps the coroutine of each task that is made in this context; see faults.py.
steering: ContextVar[Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]] | None]
steering = ContextVar("steering", default=None)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

if TYPE_CHECKING:
    # What the event loops of Python make a task of.
    if sys.version_info >= (3, 12):
        _Steps: TypeAlias = Coroutine[Any, Any, T]
    else:
        _Steps: TypeAlias = Coroutine[Any, Any, T] | Generator[Any, None, T]

# Real seconds that a loop with nothing of its own to do waits for another thread or a socket.
_PATIENCE = 5.0


class Deadlock(AssertionError):
    """Every task waits, and nothing is left that could wake one."""


class LeakedTasks(AssertionError):
    """Tasks were still there when the main one ended."""


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of sleeping until the next timer, move the clock there."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self.loop.jobs:
            return super().select(None)  # a thread of ours is at work: its time is real
        if timeout is not None:
            self.loop.jump(timeout)
            return ready
        # Only something outside the loop can wake it now: a socket, or a thread of somebody's.
        if len(self.get_map()) > 1 or threading.active_count() > 1:
            ready = super().select(_PATIENCE)
        if not ready:
            raise Deadlock(report("all tasks wait for ever", asyncio.all_tasks(self.loop)))
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock starts at 0 and jumps to the next timer when all tasks wait."""

    def __init__(self) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        self._now = 0.0
        self.jobs: int = 0
        super().__init__(selector)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Give the virtual time in seconds."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Move the clock on to the next timer, at most ``seconds`` away."""
        scheduled: list[asyncio.TimerHandle] = getattr(self, "_scheduled", [])
        exact = scheduled[0].when() if scheduled else math.inf
        # Adding up differences would drift; the loop knows the exact time.
        self._now = max(self._now, min(exact, math.nextafter(self._now + seconds, math.inf)))

    def create_task(self, coro: _Steps[T], **options: Any) -> asyncio.Task[T]:
        """Start a task; its steps can be counted and struck by a `FaultInjector`.

        The options are those of the loop's own method on this version of Python.
        """
        context: Context | None = options.get("context")
        steered = steering.get() if context is None else context.get(steering)
        if steered is not None and asyncio.iscoroutine(coro):
            coro = steered(coro)
        return super().create_task(coro, **options)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run in a thread; the clock stands still meanwhile."""
        future: asyncio.Future[T] = super().run_in_executor(executor, func, *args)
        self.jobs += 1

        def finished(_: asyncio.Future[T]) -> None:
            self.jobs -= 1

        future.add_done_callback(finished)
        return future


def run(main: Awaitable[T]) -> T:
    """Run a coroutine on virtual time, from 0 seconds on.

    The clock stands still while a task can run and jumps to the next timer when none can. No real
    time passes, so a test of an hour's time-out takes a millisecond.

    Raises:
        Deadlock: All tasks wait and no timer is set.
        LeakedTasks: The coroutine returned and left tasks running. They are cancelled.
        BaseException: What the coroutine raised.

    >>> import asyncio
    >>> async def main() -> float:
    ...     await asyncio.sleep(3600)
    ...     return asyncio.get_running_loop().time()
    >>> run(main())
    3600.0
    """

    async def checked() -> T:
        result = await main
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            raise LeakedTasks(report("tasks left running", left))
        return result

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(checked())


async def advance(seconds: float) -> None:
    """Let ``seconds`` of virtual time pass: whatever is due until then runs first."""
    await asyncio.sleep(seconds)
    for _ in range(10):  # what the last timers woke
        await asyncio.sleep(0)
