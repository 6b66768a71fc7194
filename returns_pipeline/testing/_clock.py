"""The event loop on virtual time. The rules of its clock are in the package's docstring."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import math
import selectors
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any, Final, TypeAlias, TypeVar, TypeVarTuple

from returns_pipeline._engine import checks
from returns_pipeline._engine.reader import notify
from returns_pipeline.testing._await_points import describe_tasks
from returns_pipeline.testing._browser import IN_BROWSER
from returns_pipeline.testing._external_io import ExternalIO, has_other_threads

__all__ = [
    "Deadlock",
    "Steer",
    "VirtualTimeLoop",
    "advance",
    "pause_clock",
    "steering",
    "virtual_loop",
]

# Takes a coroutine, or anything else a task can run (hence Any); returns it with observed steps.
Steer: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]]
# Wraps the coroutine of every task that is created in this context. `FaultInjector` sets it.
steering: ContextVar[Steer | None] = ContextVar("steering", default=None)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# The class of tasks that the event loops of this Python make.
if sys.version_info >= (3, 12):
    _TaskCoroutine: TypeAlias = Coroutine[Any, Any, T]
else:
    _TaskCoroutine: TypeAlias = Coroutine[Any, Any, T] | Generator[Any, None, T]
_Ready: TypeAlias = list[tuple[selectors.SelectorKey, int]]

# Real seconds between two checks of what is pending: it may end without a message to the loop.
_POLL: Final = 0.05
# Real seconds for a thread to show that it resolves the futures of some line of code. They are
# spent once for each line, and only while there are other threads.
_CLASSIFICATION: Final = 0.5
# Two times that differ by no more seconds than this are the same time to asyncio.
_RESOLUTION: Final = 1e-9


class Deadlock(AssertionError):
    """Every task waits, and nothing is left that could wake one.

    >>> import asyncio
    >>> from returns_pipeline.testing import run
    >>> try:
    ...     run(asyncio.Event().wait(), patience=0.1)
    ... except Deadlock:
    ...     print("it would wait forever")
    it would wait forever
    """


class _Instant(float):
    """A timer's time, which sorts after equal times that were scheduled before it.

    On a real clock hardly two timers have the same time. On this one they often have, and the heap
    in which asyncio keeps its timers would fire them in any order.
    """

    __slots__ = ("number",)

    number: int

    def __lt__(self, other: float) -> bool:
        if self == other and isinstance(other, _Instant):
            return self.number < other.number
        return super().__lt__(other)


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that calls a function where a real loop would sleep until its next timer.

    Attributes:
        external_io: Gets the descriptors that have something to read.
        on_all_waiting: Called when no callback is ready; returns the descriptors that are.
    """

    external_io: ExternalIO
    on_all_waiting: Callable[[], _Ready]

    def select(self, timeout: float | None = None) -> _Ready:
        """Return the descriptors that are ready; if none is, ask `on_all_waiting`."""
        __tracebackhide__ = True
        ready = self.wait(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        return self.on_all_waiting()

    def wait(self, seconds: float) -> _Ready:
        """Wait in real time."""
        ready = super().select(seconds)
        if ready:
            self.external_io.on_readable(
                key.fd for key, events in ready if events & selectors.EVENT_READ
            )
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock starts at 0 and jumps to the next timer when all tasks wait.

    `returns_pipeline.testing.run` makes one. It is public for runners of your own:
    ``asyncio.Runner(loop_factory=VirtualTimeLoop)``.

    Args:
        patience: Real seconds, above 0, to wait for threads, sockets, child processes and signals.

    Attributes:
        patience: The same.

    Raises:
        InvalidArgument: At the call, if ``patience`` is out of range.

    >>> async def main() -> float:
    ...     await asyncio.sleep(3600.0)
    ...     return asyncio.get_running_loop().time()
    >>> with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
    ...     runner.run(main())
    3600.0
    """

    # asyncio calls `_JumpingSelector.select()` once per turn, with a timeout of 0 as long as a
    # callback is ready. So `_on_all_waiting()` runs exactly when every task waits. It is the one
    # place where the clock moves by itself, or real time passes.

    def __init__(self, *, patience: checks.Seconds = 10.0) -> None:
        self._jumping_selector = selector = _JumpingSelector()
        self._external_io = selector.external_io = ExternalIO(self)
        super().__init__(selector)
        self.patience: float
        try:
            self.patience = checks.seconds("patience", patience)
        except BaseException:
            self.close()
            raise
        selector.on_all_waiting = self._on_all_waiting
        self._now = 0.0
        self._clock_resolution = _RESOLUTION
        # Futures of tasks that wait until nothing else can run.
        self._until_idle_waiters: list[asyncio.Future[None]] = []
        self._timer_numbers = itertools.count()
        self._handlers_before = set(_signal_handlers())

    if IN_BROWSER:
        # No sockets to wake itself by, and no threads or signals that would need them.

        def _make_self_pipe(self) -> None: ...

        def _close_self_pipe(self) -> None: ...

        def _write_to_self(self) -> None: ...

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Schedule a callback, after those that were scheduled for the same time before."""
        instant = _Instant(when)
        instant.number = next(self._timer_numbers)
        return super().call_at(instant, callback, *args, context=context)

    def jump(self, seconds: checks.Seconds) -> None:
        """Move the clock while nothing else runs, as if a callback had blocked the loop.

        Timers that are due then fire late, in the next turn of the loop.

        Raises:
            InvalidArgument: If ``seconds`` is not at least 0 and finite.
        """
        self._jump_to(self._now + checks.seconds("seconds", seconds, zero=True, finite=True))

    def _jump_to(self, when: float) -> None:
        self._now = max(self._now, when)
        # At a late time, the resolution must be large enough to make a difference when added.
        self._clock_resolution = max(_RESOLUTION, 2 * math.ulp(self._now))

    async def advance(self, seconds: checks.Seconds) -> None:
        """Do the same as `returns_pipeline.testing.advance`, on this loop."""
        seconds = checks.seconds("seconds", seconds, zero=True, finite=True)
        if seconds:
            due: asyncio.Future[None] = self.create_future()
            timer = self.call_at(self._now + seconds, notify, due)
            try:
                await due
            finally:
                timer.cancel()
        idle: asyncio.Future[None] = self.create_future()
        self._until_idle_waiters.append(idle)
        await idle

    @contextmanager
    def pause_clock(self) -> Generator[None]:
        """Do the same as `returns_pipeline.testing.pause_clock`, on this loop."""
        with self._pending("pause_clock()"):
            yield

    def _on_all_waiting(self) -> _Ready:
        """Decide what happens when no task can run: wait in real time, jump, or give up."""
        __tracebackhide__ = True
        ready = self._wait_for_external_io()
        if ready or self._wake_idle_waiters():
            return ready
        # asyncio's own heap of timers; it has removed cancelled ones from its head.
        timers: list[asyncio.TimerHandle] = getattr(self, "_scheduled", [])
        when = timers[0].when() if timers else math.inf
        if when < math.inf:
            self._jump_to(float(when))
            return []
        # Only an unannounced event can wake a task now: a message, a thread, a signal. Even a
        # thread that has just ended may have sent something before.
        selector = self._jumping_selector
        others = len(selector.get_map()) > 1 or has_other_threads() or self._has_signal_handlers()
        ready = selector.wait(self.patience if others else 0)
        if not ready:
            deadlock = describe_tasks("every task waits forever", asyncio.all_tasks(self))
            for what in self._external_io.given_up.values():
                deadlock += f"\n  {self.patience:g} s of silence from {what}"
            raise Deadlock(deadlock)
        return ready

    def _wait_for_external_io(self) -> _Ready:
        """Wait in real time as long as something is pending, and no longer than `patience`."""
        begun = time.monotonic()
        while True:
            waited = time.monotonic() - begun
            if pending := self._external_io.pending():
                if waited >= self.patience:
                    self._external_io.give_up(pending)
                    continue
                seconds = min(_POLL, self.patience)
            elif unclassified := self._external_io.unclassified():
                if waited >= _CLASSIFICATION:
                    self._external_io.classify(unclassified)
                    continue
                seconds = _POLL
            elif (seconds := self._external_io.seconds_until_silence()) <= 0:
                return []
            if ready := self._jumping_selector.wait(seconds):
                return ready

    def _has_signal_handlers(self) -> bool:
        """Whether a handler was installed since this loop was made: a signal may be expected."""
        # Handlers of add_signal_handler() replace the process's with a function of asyncio's own.
        of_this_loop: dict[int, object] = getattr(self, "_signal_handlers", {})
        return bool(of_this_loop) or not self._handlers_before.issuperset(_signal_handlers())

    def _wake_idle_waiters(self) -> bool:
        waiting = [idle for idle in self._until_idle_waiters if not idle.done()]
        self._until_idle_waiters.clear()
        for idle in waiting:
            idle.set_result(None)
        return bool(waiting)

    @contextmanager
    def _pending(self, what: str) -> Generator[None]:
        """Keep the clock from moving until the block ends."""
        key = object()
        self._external_io.begin(key, what)
        try:
            yield
        finally:
            self._external_io.end(key)

    def create_task(self, coro: _TaskCoroutine[T], **options: Any) -> asyncio.Task[T]:
        """Start a task, whose steps a `FaultInjector` can count and interrupt.

        The options are those of the loop's own method on this version of Python.
        """
        steer = _steer_for(options.get("context"))
        if steer is not None and asyncio.iscoroutine(coro):
            coro = steer(coro)
        return super().create_task(coro, **options)

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Schedule a callback for the next turn of the loop."""
        self._external_io.scheduled += 1
        # A task that is made as `asyncio.Task(...)` does not come by `create_task()`. It shows
        # itself when its constructor schedules its first step; then it is constructed once more,
        # from the wrapped coroutine, and so schedules another first step.
        if steering.get() is not None and type(callback).__name__ == "TaskStepMethWrapper":
            task: asyncio.Task[Any] = getattr(callback, "__self__")  # noqa: B009
            coroutine = task.get_coro()
            if (
                inspect.iscoroutine(coroutine)
                and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
                and (steer := _steer_for(context)) is not None
            ):
                name = task.get_name()
                task_type: Any = asyncio.Task  # the class, whatever subclass the task is of
                task_type.__init__(task, steer(coroutine), loop=self, name=name, context=context)
                return asyncio.Handle(callback, args, self, context)  # which is not scheduled
        return super().call_soon(callback, *args, context=context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run in a thread; the clock does not move meanwhile."""
        future: asyncio.Future[T] = super().run_in_executor(executor, func, *args)
        self._external_io.begin(future, f"thread job {func!r}")
        future.add_done_callback(self._external_io.end)
        return future

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Schedule a callback; the one way in for other threads."""
        if asyncio._get_running_loop() is not self:
            self._external_io.on_thread_message(callback, args)
        return super().call_soon_threadsafe(callback, *args, context=context)

    async def shutdown_default_executor(self, *args: Any, **options: Any) -> None:
        """Join the threads; the clock does not move meanwhile."""
        with self._pending("the end of the thread pool"):
            await super().shutdown_default_executor(*args, **options)

    async def sock_connect(self, sock: Any, address: Any) -> None:
        """Connect; the clock does not move meanwhile."""
        with self._pending(f"the connection to {address}"):
            await super().sock_connect(sock, address)

    async def subprocess_exec(self, *args: Any, **options: Any) -> Any:
        """Start a child process; the clock does not move until it exits."""
        transport, protocol = await super().subprocess_exec(*args, **options)
        self._external_io.watch_child(transport)
        return transport, protocol

    async def subprocess_shell(self, *args: Any, **options: Any) -> Any:
        """Start a child process; the clock does not move until it exits."""
        transport, protocol = await super().subprocess_shell(*args, **options)
        self._external_io.watch_child(transport)
        return transport, protocol

    # asyncio makes every socket transport in one of the next two methods, and each transport begins
    # to read by the third. All are private: if a later Python drops them, the clock ignores
    # connections, and the tests of rule 6 fail.

    def _make_socket_transport(self, sock: Any, *args: Any, **options: Any) -> object:
        base: Any = super()
        made: object = base._make_socket_transport(sock, *args, **options)
        self._watch_connection(sock, options)
        return made

    def _make_ssl_transport(self, rawsock: Any, *args: Any, **options: Any) -> object:
        base: Any = super()
        made: object = base._make_ssl_transport(rawsock, *args, **options)
        self._watch_connection(rawsock, options)
        return made

    def _add_reader(self, fd: Any, callback: Callable[..., object], *args: Any) -> object:
        base: Any = super()
        descriptor: int = fd if isinstance(fd, int) else fd.fileno()
        reads = functools.partial(callback, *args)
        made: object = base._add_reader(fd, self._external_io.read, descriptor, reads)
        return made

    def _watch_connection(self, sock: Any, options: dict[str, Any]) -> None:
        loop: Any = self
        descriptor: int = sock.fileno()
        accepted = options.get("server") is not None
        self._external_io.watch_connection(
            descriptor, loop._transports[descriptor], accepted=accepted
        )


def _signal_handlers() -> Iterator[tuple[int, object]]:
    """Yield the signals that run a Python function, each with the function.

    Ctrl-C is left out: asyncio's runner handles it in every program.
    """
    for number in signal.valid_signals() - {signal.SIGINT}:
        handler = signal.getsignal(number)
        if callable(handler):
            yield number, handler


def _steer_for(context: Context | None) -> Steer | None:
    """Return what wraps the coroutine of a task that is created now, to run in ``context``."""
    steer = steering.get()
    if context is None:
        return steer
    if (own := context.get(steering)) is not None:
        return own
    if steer is not None:
        _ = context.run(steering.set, steer)  # also for the tasks which that task creates
    return steer


def virtual_loop(caller: str) -> VirtualTimeLoop:
    """Return the running loop; raise `RuntimeError` if it is not on virtual time."""
    loop = asyncio._get_running_loop()
    if isinstance(loop, VirtualTimeLoop):
        return loop
    raise RuntimeError(
        f"{caller} needs virtual time: run the test with returns_pipeline.testing.run(), "
        "or mark it with @pytest.mark.virtual_time"
    )


async def advance(seconds: checks.Seconds) -> None:
    """Advance the clock.

    1. The clock goes from timer to timer, and everything that is due on the way runs.
    2. When this returns, exactly ``seconds`` have passed. Everything that was due until then has
       run, and so has everything it set off without further waiting, in however many steps.
    3. Answers that the clock waits for (rules 4 to 8 of the package) have arrived.

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
def pause_clock() -> Generator[None]:
    """Stop the clock while something works that the loop cannot see, such as a bare thread.

    As with all external work, the pause ends after ``patience``.

    Raises:
        RuntimeError: Without virtual time.

    >>> import threading
    >>> from returns_pipeline.testing import run
    >>> async def main() -> float:
    ...     loop, done = asyncio.get_running_loop(), asyncio.Event()
    ...     threading.Timer(0.01, lambda: loop.call_soon_threadsafe(done.set)).start()
    ...     with pause_clock():
    ...         async with asyncio.timeout(60):
    ...             await done.wait()
    ...     return loop.time()
    >>> run(main())
    0.0
    """
    with virtual_loop("pause_clock()").pause_clock():
        yield
