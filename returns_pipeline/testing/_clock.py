"""The event loop on virtual time. Its rules stand in the package's docstring."""

from __future__ import annotations

import asyncio
import itertools
import math
import selectors
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, TypeVarTuple

from returns_pipeline._engine.reader import notify
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.testing._await_points import report
from returns_pipeline.testing._external_io import Outside, other_threads

if TYPE_CHECKING:
    import sys
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
    from concurrent.futures import Executor
    from contextvars import Context

__all__ = ["Deadlock", "VirtualTimeLoop", "advance", "hold_clock", "steering", "virtual_loop"]

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

# Real seconds between two looks at what is waited for: it may end without a word.
_LOOK = 0.05
# Real seconds for a thread to show that it is the one who answers at some line of code. Once for
# each line, and only while there are other threads.
_ACQUAINTANCE = 0.5


class Deadlock(AssertionError):
    """Every task waits, and nothing is left that could wake one."""


class _Instant(float):
    """A timer's time, that comes after those equal to it which were asked for before.

    On a clock that runs on, no two timers have one time. On this one it is the rule, and the heap
    they are kept in would fire them in any order.
    """

    __slots__ = ("place",)

    place: int

    def __lt__(self, other: float) -> bool:
        if self == other and isinstance(other, _Instant):
            return self.place < other.place
        return super().__lt__(other)


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of sleeping until the next timer, let the loop's clock jump there."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        __tracebackhide__ = True
        ready = self.wait(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        return self.loop.on_all_waiting(self)

    def wait(self, seconds: float) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for real."""
        ready = super().select(seconds)
        if ready:
            self.loop.outside.heard(
                key.fd for key, events in ready if events & selectors.EVENT_READ
            )
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock starts at 0 and jumps to the next timer when all tasks wait.

    `returns_pipeline.testing.run` makes one. It is public for those who bring their own runner:
    ``asyncio.Runner(loop_factory=VirtualTimeLoop)``.

    Args:
        patience: Real seconds to wait for what the world outside owes, above 0.

    Attributes:
        patience: The same.

    Raises:
        InvalidArgument: At the call, if ``patience`` is out of range.
    """

    def __init__(self, *, patience: float = 10.0) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)
        if not patience > 0:
            self.close()
            raise InvalidArgument(f"patience must be above 0 seconds, not {patience!r}")
        self.patience: float = patience
        self.outside: Outside = Outside(self)
        self._now = 0.0
        self._clock_resolution = _RESOLUTION
        self._idle: list[asyncio.Future[None]] = []
        self._places = itertools.count()

    def time(self) -> float:
        """Give the virtual time in seconds."""
        return self._now

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call back at a time, after those that were to be called at it before."""
        instant = _Instant(when)
        instant.place = next(self._places)
        return super().call_at(instant, callback, *args, context=context)

    def jump(self, seconds: float) -> None:
        """Let time pass while nothing runs, as when a callback blocks the loop.

        Timers that are due then fire late, in the loop's next turn.

        Raises:
            InvalidArgument: If ``seconds`` is not at least 0 and finite.
        """
        if not 0 <= seconds < math.inf:
            raise InvalidArgument(f"seconds must be at least 0 and finite, not {seconds!r}")
        self._jump_to(self._now + seconds)

    def _jump_to(self, when: float) -> None:
        self._now = max(self._now, when)
        # Late in time, the resolution has to be a number that makes a difference.
        self._clock_resolution = max(_RESOLUTION, 2 * math.ulp(self._now))

    async def advance(self, seconds: float) -> None:
        """Do as `returns_pipeline.testing.advance`, on this loop."""
        if not 0 <= seconds < math.inf:
            raise InvalidArgument(f"seconds must be at least 0 and finite, not {seconds!r}")
        if seconds:
            due: asyncio.Future[None] = self.create_future()
            timer = self.call_at(self._now + seconds, notify, due)
            try:
                await due
            finally:
                timer.cancel()
        await self.until_idle()

    async def until_idle(self) -> None:
        """Wait until nothing can run without time going on."""
        idle: asyncio.Future[None] = self.create_future()
        self._idle.append(idle)
        await idle

    def is_idle(self) -> bool:
        """Say whether nothing is going to run before time goes on."""
        return not getattr(self, "_ready", ())  # the loop's own queue of callbacks

    def unfinished_generators(self) -> list[AsyncGenerator[Any, Any]]:
        """Give the async generators that were begun, not closed, and wait for their next step."""
        # The loop keeps them for its own shutdown_asyncgens(). The set is weak, and may shrink.
        begun: set[Any] = set(getattr(self, "_asyncgens", ()))
        return [it for it in begun if it.ag_frame is not None and not it.ag_running]

    def on_all_waiting(self, selector: _JumpingSelector) -> list[tuple[selectors.SelectorKey, int]]:
        """Find out how it goes on when no task can run: wait for real, jump, or give up."""
        __tracebackhide__ = True
        ready = self._wait_for_outside(selector)
        if ready or self._wake_idle():
            return ready
        # The loop's own list of timers, sorted, its head not cancelled.
        timers: list[asyncio.TimerHandle] = getattr(self, "_scheduled", [])
        when = timers[0].when() if timers else math.inf
        if when < math.inf:
            self._jump_to(float(when))
            return []
        # Now only something unforeseen can wake a task: a message, or a thread of somebody's.
        if len(selector.get_map()) > 1 or other_threads():
            ready = selector.wait(self.patience)
        if not ready:
            deadlock = report("every task waits for ever", asyncio.all_tasks(self))
            for what in self.outside.given_up.values():
                deadlock += f"\n  not a word in {self.patience:g} s from {what}"
            raise Deadlock(deadlock)
        return ready

    def _wait_for_outside(
        self, selector: _JumpingSelector
    ) -> list[tuple[selectors.SelectorKey, int]]:
        begun = time.monotonic()
        while True:
            waited = time.monotonic() - begun
            if owed := self.outside.owed():
                if waited >= self.patience:
                    self.outside.give_up(owed)
                    continue
                seconds = min(_LOOK, self.patience)
            elif strangers := self.outside.strangers():
                if waited >= _ACQUAINTANCE:
                    self.outside.get_to_know(strangers)
                    continue
                seconds = _LOOK
            elif (seconds := self.outside.noise()) <= 0:
                return []
            if ready := selector.wait(seconds):
                return ready

    def _wake_idle(self) -> bool:
        waiting = [idle for idle in self._idle if not idle.done()]
        self._idle.clear()
        for idle in waiting:
            idle.set_result(None)
        return bool(waiting)

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
        self.outside.begin(future, f"thread job {func!r}")
        future.add_done_callback(self.outside.end)
        return future

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Call back soon; the one way in for other threads."""
        if asyncio._get_running_loop() is not self:
            self.outside.on_message(callback, args)
        return super().call_soon_threadsafe(callback, *args, context=context)

    async def shutdown_default_executor(self, *args: Any, **options: Any) -> None:
        """Join the threads; the clock stands still meanwhile."""
        key = object()
        self.outside.begin(key, "the thread pool's end")
        try:
            await super().shutdown_default_executor(*args, **options)
        finally:
            self.outside.end(key)

    async def sock_connect(self, sock: Any, address: Any) -> None:
        """Connect; the clock stands still meanwhile."""
        key = object()
        self.outside.begin(key, f"the connection to {address}")
        try:
            await super().sock_connect(sock, address)
        finally:
            self.outside.end(key)

    async def subprocess_exec(self, *args: Any, **options: Any) -> Any:
        """Start a child process; the clock stands still until it has ended."""
        transport, protocol = await super().subprocess_exec(*args, **options)
        self.outside.watch_child(transport)
        return transport, protocol

    async def subprocess_shell(self, *args: Any, **options: Any) -> Any:
        """Start a child process; the clock stands still until it has ended."""
        transport, protocol = await super().subprocess_shell(*args, **options)
        self.outside.watch_child(transport)
        return transport, protocol

    # The two places in which every socket transport of asyncio is made. Were they to go, the
    # clock would no longer wait for connections, and the tests of that rule would fail.

    def _make_socket_transport(self, sock: Any, *args: Any, **options: Any) -> object:
        base: Any = super()
        made: object = base._make_socket_transport(sock, *args, **options)
        self._watch(sock, options)
        return made

    def _make_ssl_transport(self, rawsock: Any, *args: Any, **options: Any) -> object:
        base: Any = super()
        made: object = base._make_ssl_transport(rawsock, *args, **options)
        self._watch(rawsock, options)
        return made

    def _watch(self, sock: Any, options: dict[str, Any]) -> None:
        loop: Any = self
        descriptor: int = sock.fileno()
        accepted = options.get("server") is not None
        self.outside.watch(descriptor, loop._transports[descriptor], accepted=accepted)


# What asyncio takes for one instant, in seconds.
_RESOLUTION = 1e-9


def virtual_loop(what: str) -> VirtualTimeLoop:
    """Give the running loop, or say why there is none."""
    loop = asyncio._get_running_loop()
    if isinstance(loop, VirtualTimeLoop):
        return loop
    raise RuntimeError(
        f"{what} needs virtual time: run the test with returns_pipeline.testing.run(), "
        "or mark it with @pytest.mark.virtual_time"
    )


async def advance(seconds: float) -> None:
    """Let time pass.

    1. The clock goes from timer to timer, and all that is due on the way runs.
    2. When this returns, ``seconds`` have passed exactly, and all that was due until then has run,
       with all that it set off without further waiting, in whatever number of steps.
    3. Answers from outside that are due by the package's rules have come.

    With 0 seconds no time passes, but everything that can run has run.

    Args:
        seconds: How much, at least 0 and finite.

    Raises:
        InvalidArgument: If ``seconds`` is out of range.
        RuntimeError: Without virtual time.

    >>> from returns_pipeline.testing import run
    >>> async def main() -> list[str]:
    ...     seen: list[str] = []
    ...     asyncio.get_running_loop().call_later(5, seen.append, "five")
    ...     await advance(4.9)
    ...     seen.append("before")
    ...     await advance(0.1)
    ...     return seen
    >>> run(main())
    ['before', 'five']
    """
    await virtual_loop("advance()").advance(seconds)


@contextmanager
def hold_clock() -> Generator[None]:
    """Keep the clock where it is while something outside works that cannot be seen from here.

    Like all waiting for the world outside it ends after ``patience``.

    Raises:
        RuntimeError: Without virtual time.

    >>> import threading
    >>> from returns_pipeline.testing import run
    >>> async def main() -> float:
    ...     loop, done = asyncio.get_running_loop(), asyncio.Event()
    ...     threading.Timer(0.01, lambda: loop.call_soon_threadsafe(done.set)).start()
    ...     with hold_clock():
    ...         async with asyncio.timeout(60):
    ...             await done.wait()
    ...     return loop.time()
    >>> run(main())
    0.0
    """
    loop = virtual_loop("hold_clock()")
    key = object()
    loop.outside.begin(key, "hold_clock()")
    try:
        yield
    finally:
        loop.outside.end(key)
