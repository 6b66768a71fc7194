"""One task that runs a source from its first item to its clean-up, and the reader it serves.

Everything that has to read ahead of its reader, or to look at the clock while it waits, is built on
this pair. A source that is stepped from several tasks breaks `asyncio.timeout`, task groups and
context variables inside it; a read that is cancelled by ``asyncio.wait_for`` loses its item. With
one task per source neither can happen: the reader waits for a future, never for the source.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import types
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from returns_pipeline._engine.cancellation import add_note, shielded_from_anyio

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Generator
    from contextvars import Context

__all__ = ["NOTHING", "Pump", "Reader", "checkpoint", "error_of", "notify", "wait_done"]

T = TypeVar("T")

# For those who have nothing to give out without being asked: a deque of each would be half a
# kilobyte.
NOTHING: Final[deque[Any]] = cast("deque[Any]", ())


class Pump(ABC, Generic[T]):
    """What the task and its reader share.

    It holds no reference to the reader, so that a reader which is dropped is noticed and can stop
    the task.
    """

    __slots__ = ("closed", "ended", "error", "loop", "out", "reading", "ready", "task", "yielding")

    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[None]

    def __init__(self, out: deque[T] = NOTHING) -> None:
        self.out: deque[T] = out  # what is given out next, without asking
        self.closed: bool = False  # nothing more is wanted
        self.ended: bool = False  # nothing more will come from the source
        self.error: BaseException | None = None
        self.reading: bool = False  # a reader waits, in one of two ways:
        self.ready: asyncio.Future[None] | None = None  # until it is woken
        # or for one turn of the loop, because the task has announced that it runs on after one.
        # Under load this costs a tenth less than a future for each thing given out.
        self.yielding: bool = False

    @abstractmethod
    async def pump(self) -> None:
        """Read the source to its end, and clean it up. Runs in the task."""

    @abstractmethod
    def has_next(self) -> bool:
        """Say whether something can be given out now."""

    @abstractmethod
    def take(self) -> T:
        """Give it out."""

    def discard(self) -> None:
        """Drop what is held and what is armed: the pump is over, or is to be."""

    def start(self) -> None:
        """Start the task that runs the source."""
        self.loop = asyncio.get_running_loop()
        self.task = self.loop.create_task(self._run(), context=_shared_context(self.loop))

    def stop(self) -> None:
        """End the task; it cleans the source up on its way out."""
        self.closed = True
        self.discard()
        self.task.cancel()

    def notify_reader(self) -> None:
        """Let a waiting reader look again."""
        if self.ready is not None and not self.ready.done():
            self.ready.set_result(None)

    async def yield_to_reader(self) -> None:
        """Give the reader a turn: it comes back for more in it, or not for a while."""
        self.notify_reader()
        self.yielding = True
        await checkpoint()
        self.yielding = False

    async def _run(self) -> None:
        try:
            await self.pump()
        except BaseException as error:
            if self.closed:
                raise  # whoever closed awaits the task and sees it
            if self.error is None:
                self.error = error
            elif self.error is not error and not isinstance(error, asyncio.CancelledError):
                add_note(self.error, f"while this was being handled, {error!r} was raised")
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
        finally:
            self.ended = True
            self.notify_reader()


class Reader(Generic[T]):
    """The reader's side. Not an async generator: one that is cancelled once is over for good."""

    __slots__ = ("__weakref__", "_closed", "_out", "_pump", "_started")

    def __init__(self, pump: Pump[T]) -> None:
        self._pump = pump
        self._out = pump.out
        self._started = False
        self._closed = False

    def __aiter__(self) -> Reader[T]:
        return self

    async def __anext__(self) -> T:
        if self._out:
            return self._out.popleft()
        pump = self._pump
        if self._closed:
            raise StopAsyncIteration
        if pump.reading:
            raise RuntimeError("another task is reading this iterator")
        if not self._started:
            self._started = True
            pump.start()
        while not pump.has_next():
            if pump.ended:
                self._closed = True
                if pump.error is None:
                    raise StopAsyncIteration
                error, pump.error = pump.error, None
                try:
                    if isinstance(error, StopAsyncIteration):
                        # Of a step, not of the source: to the reader it would be a clean end.
                        raise RuntimeError(  # noqa: TRY004  # no argument has a wrong type
                            "a step raised StopAsyncIteration"
                        ) from error
                    raise error
                finally:
                    del error  # its traceback holds this frame
            pump.reading = True
            try:
                if pump.yielding:
                    pump.yielding = False  # or, if it is stopped now, turn would follow on turn
                    await checkpoint()
                else:
                    pump.ready = pump.loop.create_future()
                    await pump.ready
            finally:
                pump.ready = None
                pump.reading = False
        return pump.take()

    async def aclose(self) -> None:
        """Stop the source and wait for its clean-up, whose error is raised here.

        Whoever closes it again, or meanwhile, waits too, and is not told of the error.
        """
        first = not self._closed
        self._closed = True
        if not self._started:
            return
        pump = self._pump
        if first and not pump.ended:
            pump.stop()
        await wait_done(pump.task)
        pump.ended = True  # also if the task was stopped before its first step
        pump.notify_reader()
        if first:
            pump.discard()
            if (error := error_of(pump.task)) is not None:
                raise error

    def __del__(self) -> None:
        if self._started and not self._closed and not self._pump.ended:
            # No one can read on. The collector may run in any thread.
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the task with it
                self._pump.loop.call_soon_threadsafe(self._pump.stop)


def notify(waiting: asyncio.Future[None] | None) -> None:
    """Let the one go on who waits for this future, if there is one."""
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


@types.coroutine
def checkpoint() -> Generator[None, None, None]:
    """Let whatever is ready run first, once. As ``asyncio.sleep(0)``, at a third of its cost."""
    yield


def error_of(task: asyncio.Task[object]) -> BaseException | None:
    """Give what a task that is done has raised; that it was cancelled is no error.

    A cancelled task keeps its ``CancelledError`` until it is asked for it: with the traceback,
    whose frames know what knows the task, and all that was held in them.
    """
    try:
        return task.exception()
    except asyncio.CancelledError:
        return None


async def wait_done(task: asyncio.Task[object]) -> None:
    """Wait until a cancelled task has cleaned up.

    A cancellation of the waiting task is passed on, as it would be if the clean-up ran in it, and
    raised only when the other is done: nothing stays behind.
    """
    cancelled = await _until_done(task)
    if cancelled is not None:
        with shielded_from_anyio():
            while not task.done():
                cancelled = await _until_done(task) or cancelled
        raise cancelled


async def _until_done(task: asyncio.Task[object]) -> asyncio.CancelledError | None:
    """Wait until a task is done or the caller is cancelled; cancel it then, and give that."""
    # `asyncio.wait` does the same with three times as many objects, and ten thousand streams may
    # end at once. Awaiting the task itself would not tell its cancellation from the caller's.
    if not task.done():
        done: asyncio.Future[None] = task.get_loop().create_future()
        callback = partial(_set_done, done)
        task.add_done_callback(callback)
        try:
            await done
        except asyncio.CancelledError as error:
            _ = task.remove_done_callback(callback)
            _ = task.cancel()
            return error
    return None


def _set_done(done: asyncio.Future[None], _: asyncio.Task[object]) -> None:
    notify(done)


def _shared_context(loop: asyncio.AbstractEventLoop) -> Context | None:
    """Give the reader's own context, where the task may run in it."""
    if sys.version_info >= (3, 12) and loop.get_task_factory() is None:
        # An eager task factory would enter it while it is already entered.
        reader = asyncio.current_task()
        if reader is not None:
            return reader.get_context()
    return None
