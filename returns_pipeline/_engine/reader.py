"""A pump, which runs a source in a task, and the reader that takes items from it.

Every operator that reads ahead, or that uses the clock while it waits, is built on this pair. If
several tasks step a source, `asyncio.timeout`, task groups and context variables inside it break; a
read that ``asyncio.wait_for`` cancels loses its item. With one task for each source neither can
happen: the reader waits for a future, never for the source.

The source runs in a *copy* of the context of its first reader, on every Python. A shared context
would leak: the two tasks interleave, so one would compute with what the other has set for a while
(a ``decimal`` context, a tracing span).
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any, ClassVar, Final, Generic, TypeVar, cast

from returns_pipeline._engine import observing
from returns_pipeline._engine.cancellation import add_note
from returns_pipeline._engine.leaving import (
    Composite,
    Subscription,
    leave,
    leave_unread,
    unread_among,
)
from returns_pipeline._engine.observing import Stage
from returns_pipeline._engine.task_owner import TaskOwner, checkpoint, notify
from returns_pipeline._engine.tracebacks import shorten

__all__ = ["NO_ITEMS", "Pump", "Reader", "checkpoint", "notify", "pump_of"]

T = TypeVar("T")

# For pumps that never use ``out``: a deque for each would take half a kilobyte.
NO_ITEMS: Final[deque[Any]] = cast("deque[Any]", ())


class Pump(TaskOwner, ABC, Generic[T]):
    """The state that a stream's tasks and its reader share.

    It has no reference to the reader, so a reader that is dropped is collected, and stops the
    tasks. The tasks add items and call `notify_reader`. The reader calls `has_next` and `take`.
    Neither of these waits, so the two sides need no lock.

    A failure of one task stops the others. Items that are held may still be taken; then the first
    error is raised. Errors of clean-ups that follow become notes on it.

    Attributes:
        operator: The name of the operator, if it reports events also outside a `ResultStream`.
        stage: Where its events are reported; None if it is not observed.
        out: Items that the reader takes without calling `take`.
        closed: Whether the reader wants no more items.
        error: The error to be raised: by the reader when all items are taken, or, once the pump is
            closed, by the task that closed it.
        reading: Whether a reader waits. It waits in one of two ways:
        ready: until this future is resolved,
        yielding: or for one turn of the loop, because a task has announced that it continues after
            one turn. Under load this costs a tenth less than a future for each item.
    """

    # States: those of `TaskOwner`, and *closed*, which implies *stopping*.
    #
    #   finish(error)   from running to stopping: the source has failed. Items stay, the error waits
    #                   in `error`, and the tasks are cancelled in the next turn of the loop.
    #   close()         from any state to closed. Items are dropped. An error in `error` is dropped,
    #                   too: only errors of clean-ups count from here on.
    #   on_all_ended()  to ended: the reader wakes up, and raises `error` or ends.
    #
    # At most one reader waits: `Reader.__anext__` refuses a second one. `ready` is not None only
    # while it does. A notification for which no reader waits is not lost, because a reader checks
    # `has_next` before it waits, without an await between the two.

    __slots__ = ("closed", "error", "out", "reading", "ready", "stage", "yielding")

    operator: ClassVar[str] = ""

    def __init__(self, out: deque[T] = NO_ITEMS) -> None:
        super().__init__()
        self.out: deque[T] = out
        self.stage: Stage | None = None
        self.closed: bool = False
        self.error: BaseException | None = None
        self.reading: bool = False
        self.ready: asyncio.Future[None] | None = None
        self.yielding: bool = False

    @abstractmethod
    def sources(self) -> Iterable[AsyncIterable[Any]]:
        """Return the streams that the tasks read, opened or not."""

    @abstractmethod
    def has_next(self) -> bool:
        """Return whether an item can be emitted now."""

    @abstractmethod
    def take(self) -> T:
        """Remove and return the next item. Called only if `has_next` is true."""

    def bounds(self) -> str:
        """Return in words what may be held, and which tasks there are besides those of sources.

        For drawings. It is called on pumps that are never started, too.
        """
        return ""

    # For statistics. They may be called at any time, on pumps that were never started, too, and
    # change nothing.

    def held(self) -> int:
        """Return how many items are held, in open windows too."""
        return len(self.out)

    def in_flight(self) -> int:
        """Return how many items a step works on."""
        return 0

    def waiting_readers(self) -> int:
        """Return how many readers wait for an item."""
        return int(self.reading)

    def open_windows(self) -> tuple[int, float | None]:
        """Return how many windows are open, and the seconds since the first item of the oldest."""
        return 0, None

    def is_drained(self) -> bool:
        """Return whether no item is held. Called when all tasks have ended."""
        return True

    def discard(self) -> None:
        """Drop all items, and cancel timers: the pump is closed."""

    def start(self) -> None:
        """Find out whether it is observed, and start the first tasks in the running loop."""
        if self.stage is None and self.operator and (observed := observing.opened()) is not None:
            self.stage = observed.stage(self.operator, self.operator)
        super().start()

    def start_tasks(self) -> None:
        """Start the task that runs the source. A class with other tasks overrides this."""
        self.start_task(self.pump)

    async def pump(self) -> None:
        """Read the source to its end, and clean it up. Runs in the task.

        It does nothing here, for classes that override `start_tasks`.
        """

    def incoming(self, items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Return the items of the open source as they are to be read: a hook for marks."""
        return items

    def finish(self, error: BaseException | None = None) -> None:
        """Stop reading. Items that are held may still be taken, then the error is raised."""
        if not self.stopping:
            self.error = error
            self.ask_to_stop(next_turn=True)

    def on_failure(self, error: BaseException) -> None:
        """Stop the other tasks at the first error; later ones become notes on it."""
        if not self.stopping:
            self.finish(error)
        elif not isinstance(error, asyncio.CancelledError):
            if self.error is None:
                self.error = error  # a clean-up failed, after a clean end or a close
            elif self.error is not error:
                note = f"while the stream was being stopped, {error!r} was raised"
                add_note(self.error, note)

    def on_all_ended(self) -> None:
        """Wake the reader, which sees the end."""
        if self.stage is not None:
            self.stage.ended(self.loop.time())
        self.notify_reader()

    def close(self) -> None:
        """Stop all tasks, and drop all items. `wait_ended` waits for the end."""
        self.closed = True
        self.error = None  # no reader will raise it; from here on it is the error of a clean-up
        self.discard()
        self.ask_to_stop()

    def drop(self) -> None:
        """Do as `close`, for a reader that was dropped: an error is reported to the loop."""
        self.close()
        self.report_error()

    def take_error(self) -> BaseException | None:
        """Return the error to be raised, and forget it."""
        error, self.error = self.error, None
        return error

    def notify_reader(self) -> None:
        """Wake a waiting reader, which then checks `has_next`."""
        notify(self.ready)

    async def wait_for_reader(self, gate: asyncio.Future[None], in_flight: int) -> None:
        """Wait until something is taken, and report it if the stage is observed.

        It counts as waiting for the reader if that is not waiting itself.

        Args:
            gate: Is resolved then.
            in_flight: How many items are held.
        """
        stage = self.stage
        if stage is None or self.reading:
            await gate
            return
        began = self.loop.time()
        try:
            await gate
        finally:
            stage.waited(began, self.loop.time(), in_flight, per_item=True)

    async def yield_to_reader(self) -> None:
        """Yield to the reader for one turn. If it does not request more meanwhile, it is busy.

        Whatever waits for the reader calls `still_reading` first.
        """
        self.notify_reader()
        self.yielding = True
        await checkpoint()
        self.yielding = False


class Reader(Composite, Generic[T]):
    """The reader's side. It is not an async generator: a cancelled one could not be read again.

    States: *new*; *started*, from the first read; *closed*, after the end, an error or `aclose`. A
    reader that is dropped while the source runs stops the source, whose clean-up runs to its end.
    """

    __slots__ = ("__weakref__", "_closed", "_out", "_pump", "_started")

    def __init__(self, pump: Pump[T]) -> None:
        self._pump = pump
        self._out = pump.out
        self._started = False
        self._closed = False

    @property
    def pump(self) -> Pump[T]:
        """What it reads."""
        return self._pump

    def _sources(self) -> Iterable[AsyncIterable[Any]]:
        """Return the streams that it reads, opened or not."""
        return self._pump.sources()

    def observe(self, stage: Stage) -> None:
        """Report events of the pump. To be called before the first read."""
        self._pump.stage = stage

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
            pump.reading = True
            try:
                if pump.ended and pump.is_drained():
                    # Before the error is taken: if this is cancelled, the next read raises it.
                    if unread := unread_among(pump.sources()):
                        await self._leave(unread)
                    self._raise_end()
                if pump.yielding:
                    # Reset here: if the task is stopped now, this loop would never wait.
                    pump.yielding = False
                    await checkpoint()
                else:
                    pump.ready = pump.loop.create_future()
                    await pump.ready
            finally:
                pump.ready = None
                pump.reading = False
        return pump.take()

    async def _leave(self, unread: list[Subscription]) -> None:
        """Leave sources that were not opened."""
        try:
            await leave(unread)
        except Exception as error:  # noqa: BLE001  # as an error of any clean-up
            self._pump.on_failure(error)

    def _raise_end(self) -> None:
        self._closed = True
        error = self._pump.take_error()
        if error is None:
            raise StopAsyncIteration
        try:
            if isinstance(error, StopAsyncIteration):
                # A step raised it, not the end of the source. It would look like a clean end.
                raise RuntimeError(  # noqa: TRY004  # no argument has a wrong type
                    "a step raised StopAsyncIteration"
                ) from error
            shorten(error)
            raise error
        finally:
            del error  # its traceback holds this frame

    async def aclose(self) -> None:
        """Stop the source, and wait for its clean-up. An error of the clean-up is raised here.

        Branches of a broadcast that it would read, and has not opened, leave.

        The wait ends with the clean-up, whatever is cancelled meanwhile; a cancellation of the
        caller is raised afterwards. A second call, also at the same time, waits as well, but does
        not raise the error of the clean-up.

        Raises:
            RuntimeError: It was called by the source, or by a step, of this very stream.
            CancelledError: The caller was cancelled; an error of the clean-up is its cause.
            Exception: The error of the clean-up.
        """
        pump = self._pump
        if not self._started:
            self._closed = True
            await leave_unread(pump.sources())
            return
        pump.check_outside()
        first, self._closed = not self._closed, True
        if first:
            pump.close()
        try:
            try:
                await pump.wait_ended()
            finally:
                if unread := unread_among(pump.sources()):
                    await self._leave(unread)
        except asyncio.CancelledError as cancelled:
            raise cancelled from (pump.take_error() if first else None)
        if first and (error := pump.take_error()) is not None:
            raise error

    def __del__(self) -> None:
        if self._started and not self._closed:
            # No reader is left. This may run in any thread, whichever runs the collector.
            with contextlib.suppress(RuntimeError):  # the loop is closed, so its tasks have ended
                self._pump.loop.call_soon_threadsafe(self._pump.drop)


def pump_of(iterator: object) -> Pump[Any] | None:
    """Return the pump of a reader, started or not; None for any other iterator."""
    if not isinstance(iterator, Reader):
        return None
    reader: Reader[Any] = iterator  # pyright: ignore[reportUnknownVariableType]
    return reader.pump
