"""A pump, which runs a source in a task, and the reader that takes what it has.

Everything that has to read ahead of its reader, or to look at the clock while it waits, is built on
this pair. A source that is stepped from several tasks breaks `asyncio.timeout`, task groups and
context variables inside it; a read that is cancelled by ``asyncio.wait_for`` loses its item. With
one task per source neither can happen: the reader waits for a future, never for the source.

The source runs in a *copy* of the context of its first reader, on every Python. A shared context
would leak: two tasks interleave, and what one of them sets for the time of a request (a ``decimal``
context, a tracing span) the other would compute with.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Final, Generic, TypeVar, cast

from returns_pipeline._engine.cancellation import add_note
from returns_pipeline._engine.task_owner import TaskOwner, checkpoint, notify
from returns_pipeline._engine.tracebacks import shorten

__all__ = ["NO_ITEMS", "Pump", "Reader", "checkpoint", "notify"]

T = TypeVar("T")

# For pumps that emit nothing without being asked: a deque of each would be half a kilobyte.
NO_ITEMS: Final[deque[Any]] = cast("deque[Any]", ())


class Pump(TaskOwner, ABC, Generic[T]):
    """What a stream's tasks and its reader share.

    It holds no reference to the reader, so that a reader that is dropped is noticed and can stop
    the tasks. The reader calls `has_next` and `take`, both between two steps of the loop; the tasks
    fill, and call `notify_reader`.

    A failure of one task stops the others. What is held may still be taken, then the first error
    is raised; the errors of clean-ups that follow are notes on it.

    Attributes:
        out: What is emitted next, without asking.
        closed: Whether nothing more is wanted.
        error: What the reader is to raise when all is taken, or, once it is closed, the closer.
        reading: Whether a reader waits, in one of two ways:
        ready: until this is resolved,
        yielding: or for one turn of the loop, because a task has announced that it runs on after
            one. Under load this costs a tenth less than a future for each item.
    """

    __slots__ = ("closed", "error", "out", "reading", "ready", "yielding")

    def __init__(self, out: deque[T] = NO_ITEMS) -> None:
        super().__init__()
        self.out: deque[T] = out
        self.closed: bool = False
        self.error: BaseException | None = None
        self.reading: bool = False
        self.ready: asyncio.Future[None] | None = None
        self.yielding: bool = False

    @abstractmethod
    def has_next(self) -> bool:
        """Return whether something can be emitted now."""

    @abstractmethod
    def take(self) -> T:
        """Remove and return what is emitted next."""

    def is_drained(self) -> bool:
        """Return whether, when all tasks have ended and `has_next` is false, nothing is held."""
        return True

    def discard(self) -> None:
        """Drop what is held, and cancel timers: the pump is closed."""

    def start_tasks(self) -> None:
        """Start the task that runs the source, unless there are more."""
        self.start_task(self.pump)

    async def pump(self) -> None:
        """Read the source to its end, and clean it up. Runs in the task.

        It does nothing here: a class with other tasks starts them in `start_tasks`.
        """

    def finish(self, error: BaseException | None = None) -> None:
        """Read no further; what is held may still be taken, and then the error is raised."""
        if not self.stopping:
            self.error = error
            self.ask_to_stop(next_turn=True)

    def on_failure(self, error: BaseException) -> None:
        """Stop the other tasks for the first error, and note the others on it."""
        if not self.stopping:
            self.finish(error)
        elif not isinstance(error, asyncio.CancelledError):
            if self.error is None:
                self.error = error  # of a clean-up, after a clean end or for the closer
            elif self.error is not error:
                note = f"while the stream was being stopped, {error!r} was raised"
                add_note(self.error, note)

    def on_all_ended(self) -> None:
        """Let the reader see the end."""
        self.notify_reader()

    def close(self) -> None:
        """Stop all tasks, and drop what is held; see `wait_ended`."""
        self.closed = True
        self.error = None  # nobody will read it; from here on it is that of a clean-up
        self.discard()
        self.ask_to_stop()

    def drop(self) -> None:
        """Do as `close`, for a reader that was dropped: an error is reported to the loop."""
        self.close()
        self.report_error()

    def take_error(self) -> BaseException | None:
        """Return the error that is to be raised, once."""
        error, self.error = self.error, None
        return error

    def notify_reader(self) -> None:
        """Let a waiting reader look again."""
        notify(self.ready)

    async def yield_to_reader(self) -> None:
        """Yield to the reader for a turn: it asks for more in that turn, or not for a while."""
        self.still_reading()
        self.notify_reader()
        self.yielding = True
        await checkpoint()
        self.yielding = False


class Reader(Generic[T]):
    """The reader's side. Not an async generator: one that is cancelled once has ended for good.

    States: new, started at the first read, closed at the end, by an error or by `aclose`. A reader
    that is dropped while the source runs stops the source, whose clean-up runs to its end.
    """

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
            if pump.ended and pump.is_drained():
                self._raise_end()
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

    def _raise_end(self) -> None:
        self._closed = True
        error = self._pump.take_error()
        if error is None:
            raise StopAsyncIteration
        try:
            if isinstance(error, StopAsyncIteration):
                # Of a step, not of the source: to the reader it would be a clean end.
                raise RuntimeError(  # noqa: TRY004  # no argument has a wrong type
                    "a step raised StopAsyncIteration"
                ) from error
            shorten(error)
            raise error
        finally:
            del error  # its traceback holds this frame

    async def aclose(self) -> None:
        """Stop the source and wait for its clean-up, whose error is raised here.

        The wait ends with the clean-up, whatever is cancelled meanwhile; a cancellation of the
        caller is raised after it. A task that closes again, or meanwhile, waits too, and the error
        is not raised there.

        Raises:
            RuntimeError: It was called by the source, or by a step, of this very stream.
            CancelledError: The caller was cancelled; an error of the clean-up is its cause.
            Exception: Of the clean-up.
        """
        pump = self._pump
        if not self._started:
            self._closed = True
            return
        pump.check_outside()
        first, self._closed = not self._closed, True
        if first:
            pump.close()
        try:
            await pump.wait_ended()
        except asyncio.CancelledError as cancelled:
            raise cancelled from (pump.take_error() if first and pump.ended else None)
        if first and (error := pump.take_error()) is not None:
            raise error

    def __del__(self) -> None:
        if self._started and not self._closed and not self._pump.ended:
            # No one can read on. The collector may run in any thread.
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the task with it
                self._pump.loop.call_soon_threadsafe(self._pump.drop)
