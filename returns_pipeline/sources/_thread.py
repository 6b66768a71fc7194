"""`from_thread`: a blocking iterator, read in a thread."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, Final, Generic, ParamSpec, TypeVar

from aiostream import Stream

from returns_pipeline._engine import checks
from returns_pipeline._engine.calls import recorded
from returns_pipeline._engine.cancellation import add_note, done_within, wait_uncancelled
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.deadlines import DeadlineTimer
from returns_pipeline._engine.draining import Drainable
from returns_pipeline._engine.operator import Repeatable
from returns_pipeline._engine.reader import Pump, Reader, notify
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.sources._iterable import check_iterable, close_generator

__all__ = ["from_thread"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_log = logging.getLogger("returns_pipeline.sources")
_numbers: Final = itertools.count()


@recorded
def from_thread(
    iterable: Iterable[T],
    *,
    buffer: int = 1,
    interrupt: Callable[[], object] | None = None,
    grace: Seconds = math.inf,
    on_drop: Callable[[T], object] | None = None,
) -> Stream[T]:
    """Emit the items of an iterable whose ``next()`` blocks: it is read in a thread of its own.

    1. An item is emitted when the thread has read it, in order.
    2. The stream ends, or fails, when the iterable does.
    3. The thread begins with the first read. It runs ``iter()``, each ``next()`` and, if the
       iterable is a generator, its clean-up, all in a copy of the first reader's context: what has
       to stay in one thread (a connection of ``sqlite3``, ``threading.local``) works.

    Closing the stream waits until the thread has ended. A ``next()`` that blocks cannot be stopped
    from outside, so ``interrupt`` is called then, if it is given: it makes the thread return, for
    instance by closing the connection that it reads. A thread that outlasts ``grace`` is abandoned,
    with an error in the log; it does not keep the program from ending.

    Backpressure: at most ``buffer`` items are read ahead of the reader; then the thread waits.

    Nothing is lost silently: when the stream is closed, ``on_drop`` gets each item that was
    read and not emitted, the one under way included. With `ResultStream.drain_on` these items are
    emitted.

    The stream can be read again if the iterable can; each reading has a thread of its own.

    Cancel safety: a cancelled read loses nothing; the next read continues where it was.

    On a loop of `returns_pipeline.testing`, the clock does not move while the thread reads.

    Known elsewhere as: ``fromBlockingIterator`` (fs2), ``Source.fromIterator`` with a dispatcher
    (Akka and Pekko), ``spawn_blocking`` with a channel (tokio), ``iterate_in_thread``.

    Args:
        iterable: A file, a cursor, ``iter(queue.get, None)``, a generator that blocks, ...
        buffer: How many items the thread may read ahead, at least 1. More make it faster: changing
            between threads takes longer than most items.
        interrupt: Called once, in the event loop, when the stream is closed while the thread reads.
        grace: Seconds that the thread may take to end then, at least 0.
        on_drop: Called in the event loop with each item that is dropped by closing.

    Returns:
        A stream of its items.

    Raises:
        InvalidArgument: At the call, if ``buffer`` or ``grace`` is out of range, or ``interrupt``
            or ``on_drop`` is not a function.
        TypeError: At the call, if ``iterable`` is not iterable, or is an async iterable.
        Exception: Any exception of the iterable, after the items before it.

    >>> import time
    >>> from collections.abc import Iterator
    >>> from returns_pipeline.testing import run, timeline
    >>> def readings() -> Iterator[int]:
    ...     for n in range(3):
    ...         time.sleep(0.01)  # in real time, and not in the event loop
    ...         yield n
    >>> run(timeline(from_thread(readings())))
    [(0.0, 0), (0.0, 1), (0.0, 2)]
    """
    check_iterable(iterable)
    for name, function in (("interrupt", interrupt), ("on_drop", on_drop)):
        if function is not None and not callable(function):
            raise InvalidArgument(f"{name} must be a function, not {function!r}")
    limit = checks.count("buffer", buffer)
    patience = checks.seconds("grace", grace, zero=True)
    return Repeatable(
        lambda: _ThreadReader(_ThreadPump(iterable, limit, interrupt, patience, on_drop))
    )


class _OneThread(Executor):
    """An executor of one thread, which is a daemon: a job that never returns holds nothing up.

    The thread is named like those of asyncio's own pool. By that name the loop of tests knows that
    it does nothing but what ``run_in_executor()`` gave it.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        name = f"asyncio_from_thread_{next(_numbers)}"
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # or the last one would keep what it refers to, until the next comes

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run a function in the thread, after those before it."""
        future: Future[R] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    result = fn(*args, **kwargs)
                except StopIteration as error:  # of `iter()`: asyncio's futures refuse it
                    stopped = RuntimeError("the iterable raised StopIteration")
                    stopped.__cause__ = error
                    future.set_exception(stopped)
                except BaseException as error:  # noqa: BLE001  # it is raised where it is awaited
                    future.set_exception(error)
                else:
                    future.set_result(result)

        self._jobs.put(job)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """End the thread after the jobs before this."""
        self._jobs.put(None)
        if wait:
            self._thread.join()


class _ThreadPump(Pump[T], Generic[T]):
    """The items that the thread has read, and the task that makes it read on.

    The thread reads in *jobs*. A job reads as many items as there is room for, and posts each to
    the loop as it comes. So it never waits for the reader, and the loop of tests can tell a thread
    that works from one that has nothing to do.

    `_run_job`, `_read` and `_close` run in the thread, all other methods in the loop's.
    """

    __slots__ = (
        "_buffer",
        "_context",
        "_due",
        "_grace",
        "_interrupt",
        "_is_asked",
        "_iterable",
        "_iterator",
        "_job",
        "_not_full",
        "_on_drop",
        "_timer",
        "_was_interrupted",
        "items",
    )

    _context: contextvars.Context

    def __init__(
        self,
        iterable: Iterable[T],
        buffer: int,
        interrupt: Callable[[], object] | None,
        grace: float,
        on_drop: Callable[[T], object] | None,
    ) -> None:
        super().__init__()
        self._iterable = iterable
        self._buffer = buffer
        self._interrupt = interrupt
        self._grace = grace
        self._on_drop = on_drop
        self.items: deque[T] = deque()
        self._iterator: Iterator[T] | None = None
        self._job: asyncio.Future[bool] | None = None  # while the thread reads
        self._is_asked = False  # the thread is to read no further
        self._was_interrupted = False  # `interrupt` was called
        self._due = math.inf  # when a thread that was asked to stop is abandoned
        self._timer = DeadlineTimer()  # for that, while what it reads is still wanted
        self._not_full: asyncio.Future[None] | None = None

    # The reader.

    def sources(self) -> tuple[()]:
        return ()

    def bounds(self) -> str:
        return f"reads in a thread; holds up to {self._buffer}"

    def held(self) -> int:
        return len(self.items)

    def has_next(self) -> bool:
        return bool(self.items)

    def take(self) -> T:
        item = self.items.popleft()
        if 2 * len(self.items) <= self._buffer:
            notify(self._not_full)
        return item

    def discard(self) -> None:
        """Pass items that were read and are not wanted any more to `on_drop`."""
        while self.items:
            self._drop(self.items.popleft())

    def _drop(self, item: T) -> None:
        if self._on_drop is not None:
            try:
                _ = self._on_drop(item)
            except Exception as error:  # noqa: BLE001  # `aclose` raises it, after the clean-up
                if self.error is None:
                    self.error = error
                else:
                    add_note(self.error, f"on_drop raised {error!r}")

    def drain(self) -> None:
        """Read no further; emit what the thread has read, or is reading."""
        self._ask_thread()
        self._timer.set(self.loop, self._due, lambda _: self.ask_to_stop())
        notify(self._not_full)

    # The task.

    def ask_to_stop(self, *, next_turn: bool = False) -> None:
        """Make the thread see the request at once."""
        self._is_asked = True
        super().ask_to_stop(next_turn=next_turn)

    async def pump(self) -> None:
        """Run jobs while the buffer is not full; then the clean-up; then wait for the thread."""
        executor = _OneThread()
        self._context = contextvars.copy_context()
        try:
            more = True
            while more and not self._is_asked:
                room = self._buffer - len(self.items)
                self._job = job = self.loop.run_in_executor(executor, self._run_job, room)
                job.add_done_callback(_retrieve)
                _ = await asyncio.wait({job})  # which does not cancel it
                more = job.result()
                await self._wait_until_not_full()
        except asyncio.CancelledError:
            self._ask_thread()
            raise
        finally:
            self._timer.cancel()
            await self._end(executor)

    def _ask_thread(self) -> None:
        """Call `interrupt`, once, as a thread cannot be cancelled. From here on its time runs."""
        self._is_asked = True
        if self._was_interrupted:
            return
        self._was_interrupted = True
        self._due = self.loop.time() + self._grace
        if self._interrupt is not None and self._job is not None and not self._job.done():
            try:
                _ = self._interrupt()
            except Exception as error:  # noqa: BLE001  # as an error of the clean-up
                self.on_failure(error)

    async def _end(self, executor: _OneThread) -> None:
        """Run the clean-up in the thread after its job, and wait for its end; or abandon it."""
        closing = self.loop.run_in_executor(executor, self._context.run, self._close)
        closing.add_done_callback(_retrieve)
        cancelled: asyncio.CancelledError | None = None
        if self._is_asked:
            _ = await done_within(closing, self._due - self.loop.time())
        else:
            cancelled = await wait_uncancelled(closing)
        executor.shutdown(wait=closing.done())
        if closing.done():
            closing.result()
        else:
            _log.error(
                "a thread of from_thread() was abandoned: it did not end within %g s", self._grace
            )
        if cancelled is not None:
            raise cancelled

    async def _wait_until_not_full(self) -> None:
        while 2 * len(self.items) > self._buffer and not self._is_asked:
            self._not_full = self.loop.create_future()
            try:
                await self._not_full
            finally:
                self._not_full = None

    def _on_item(self, item: T) -> None:
        if self.closed or self.ended:  # the thread was abandoned, and has returned
            self._drop(item)
            return
        self.items.append(item)
        if len(self.items) == 1:
            self.notify_reader()

    # The thread.

    def _run_job(self, room: int) -> bool:
        return self._context.run(self._read, room)

    def _read(self, room: int) -> bool:
        """Read as many items as there is room for; return whether there may be more."""
        if self._iterator is None:
            self._iterator = iter(self._iterable)
        for _ in range(room):
            if self._is_asked:
                return False
            try:
                item = next(self._iterator)
            except StopIteration:
                return False
            _ = self.loop.call_soon_threadsafe(self._on_item, item)
            del item
        return True

    def _close(self) -> None:
        iterator, self._iterator = self._iterator, None
        close_generator(iterator)


def _retrieve(job: asyncio.Future[Any]) -> None:
    """Mark the error of a job as retrieved: it is raised where the job is awaited."""
    if not job.cancelled():
        _ = job.exception()


class _ThreadReader(Reader[T], Drainable):
    """A reader that can drain its thread."""

    __slots__ = ("_thread_pump",)

    def __init__(self, pump: _ThreadPump[T]) -> None:
        super().__init__(pump)
        self._thread_pump = pump

    def drain(self) -> None:
        """Read no further; emit what the thread has read, or is reading."""
        if self._started:
            self._thread_pump.drain()
        else:
            self._closed = True
