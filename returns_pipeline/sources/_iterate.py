"""`iterate`: a stream read from synchronous code."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import queue
import threading
from collections.abc import AsyncIterable, Callable, Iterator
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from returns_pipeline._engine import checks
from returns_pipeline._engine.operator import open_iterator

__all__ = ["SyncIterator", "iterate"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_END: Final = object()
_running: Final[set[_Session[Any]]] = set()


def iterate(
    stream: AsyncIterable[T],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    blocks_loop: bool = False,
) -> SyncIterator[T]:
    """Read a stream from synchronous code: a script, a test, a thread, a notebook.

    1. The first ``next()`` starts a thread with an event loop of its own, in which the stream runs
       from its opening to its clean-up, in a copy of the caller's context.
    2. An item is requested when ``next()`` is called, and not before. Between two calls the loop
       runs on, so windows fill and timers fire.
    3. At the end of the stream the iteration ends; an error of the stream is raised by ``next()``.
       Then the thread has ended.

    ``close()``, and the end of a ``with`` block, stop the stream and wait for its clean-up and for
    the end of the thread. An iterator that is dropped is closed as well, and at the end of the
    program those that are open are closed and waited for::

        with iterate(stream) as items:
            for item in items: ...

    An interrupt (Ctrl-C) while ``next()`` waits is raised at once; the stream stays open, and the
    next call continues where it was. It is closed as said above: nothing is cut off.

    It may be used in any thread, by one at a time.

    Args:
        stream: Any async iterable. It must not be in use in another event loop.
        loop_factory: Makes the event loop, such as ``uvloop.new_event_loop``.
        blocks_loop: Allow it in a thread that runs an event loop, which is blocked meanwhile. Where
            the code is not yours to change, such as in a notebook, that can be right.

    Returns:
        An iterator of the items.

    Raises:
        TypeError: At the call, if ``stream`` is not an async iterable.
        RuntimeError: If this thread runs an event loop, and ``blocks_loop`` does not allow it. Use
            ``async for`` there.

    >>> from returns_pipeline import ResultStream, sources
    >>> numbers = ResultStream.of(sources.from_iterable(range(5))).sliding(3).successes()
    >>> list(iterate(numbers))
    [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    """
    checks.source(stream)
    session: _Session[T] = _Session(stream, loop_factory, contextvars.copy_context())
    return SyncIterator(session, blocks_loop=blocks_loop)


class SyncIterator(Iterator[T_co], Generic[T_co]):
    """What `iterate` returns: an iterator, and a context manager that closes it.

    >>> from returns_pipeline import sources
    >>> with iterate(sources.from_iterable(range(5))) as numbers:
    ...     print(next(numbers), next(numbers))
    0 1
    """

    __slots__ = ("_blocks_loop", "_lock", "_session")

    def __init__(self, session: _Session[T_co], *, blocks_loop: bool) -> None:
        """Not for callers: `iterate` makes them."""
        self._session = session
        self._blocks_loop = blocks_loop
        self._lock = threading.Lock()
        self._check_no_loop()

    def __iter__(self) -> SyncIterator[T_co]:
        return self

    def __next__(self) -> T_co:
        self._check_no_loop()
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("another thread is reading this iterator")
        try:
            return self._session.next()
        finally:
            self._lock.release()

    def close(self) -> None:
        """Stop the stream; wait for its clean-up, whose error is raised here.

        It may be called more than once, and from any thread but that of the stream.

        Raises:
            RuntimeError: It was called by the stream itself.
            Exception: Of the clean-up.
        """
        self._session.close()

    def __del__(self) -> None:
        # The thread refers to the session alone, so an iterator that is dropped is noticed.
        self._session.ask_to_close()

    def __enter__(self) -> SyncIterator[T_co]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def _check_no_loop(self) -> None:
        if self._blocks_loop:
            return
        try:
            _ = asyncio.get_running_loop()
        except RuntimeError:
            return
        raise RuntimeError(
            "iterate() would block the event loop of this thread: use `async for`, or pass"
            " iterate(..., blocks_loop=True)"
        )


class _Session(Generic[T]):
    """The stream, its thread, and what passes between the two threads.

    States: *new*; *running*, from the first `next`; *stopping*, when it was asked to; *ended*, when
    the thread has left the loop. In the thread, ``_reading`` is true while the stream may be
    cancelled: it is not while its clean-up runs.
    """

    def __init__(
        self,
        stream: AsyncIterable[T],
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
        context: contextvars.Context,
    ) -> None:
        self._stream = stream
        self._loop_factory = loop_factory
        self._context = context
        self._given: queue.SimpleQueue[Any] = queue.SimpleQueue()  # items, then `_END`
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()  # held from the making of the thread until its loop runs
        self._is_asked = False  # an item was requested, and has not come
        self._is_closed = False
        self._has_ended = False  # `_END` was seen
        self._error: BaseException | None = None  # set before `_END`
        # Of the loop's thread.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._demand: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._reading = False
        self._started = threading.Event()

    # Of the caller's thread.

    def next(self) -> T:
        """Request an item and wait for it."""
        if self._is_closed or self._has_ended:
            raise StopIteration
        with self._starting:
            if self._thread is None and not self._is_closed:
                self._start()
        if self._thread is None:
            raise StopIteration  # it was closed meanwhile
        if not self._is_asked:  # else an interrupt came while the last call waited
            self._is_asked = True
            self._call(self._ask)
        given: T = self._given.get()
        self._is_asked = False
        if given is not _END:
            return given
        self._has_ended = True
        self.join()
        self._raise_error()
        raise StopIteration

    def close(self) -> None:
        """Stop the stream, and wait for its clean-up and the thread."""
        if self._thread is threading.current_thread():
            raise RuntimeError("a stream cannot be closed by its own source or step")
        self._is_closed = True
        with self._starting:  # a thread that starts has its loop by then, and can be stopped
            thread = self._thread
        if thread is None:
            return
        self._call(self._stop)
        self.join()
        self._raise_error()

    def ask_to_close(self) -> None:
        """Do as `close` without waiting."""
        self._is_closed = True
        if self._thread is not None:
            self._call(self._stop)

    def _start(self) -> None:
        thread = threading.Thread(
            target=self._context.run, args=(self._run,), name="iterate", daemon=True
        )
        _running.add(self)
        thread.start()
        self._thread = thread
        _ = self._started.wait()

    def _call(self, function: Callable[[], None]) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed: the stream has ended
                _ = loop.call_soon_threadsafe(function)

    def join(self) -> None:
        """Wait for the end of the thread."""
        assert self._thread is not None
        self._thread.join()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame

    # Of the stream's thread.

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._loop_factory) as runner:
                runner.run(self._read())
        except BaseException as error:  # noqa: BLE001  # it is raised in the caller's thread
            if not (self._is_closed and isinstance(error, asyncio.CancelledError)):
                self._error = error
        finally:
            _running.discard(self)
            self._started.set()
            self._given.put(_END)

    async def _read(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._demand = demand = asyncio.Event()
        self._reading = True
        self._started.set()
        opened = None
        try:
            _ = await demand.wait()
            opened = await open_iterator(self._stream)
            while True:
                demand.clear()
                item = await anext(opened.items)
                if not self._reading:
                    break  # and the source has swallowed the cancellation
                self._given.put(item)
                del item  # the reader alone keeps it
                _ = await demand.wait()
        except StopAsyncIteration:
            pass
        finally:
            self._reading = False
            if opened is not None:
                await opened.aclose()

    def _ask(self) -> None:
        if self._demand is not None:
            self._demand.set()

    def _stop(self) -> None:
        if self._reading and self._task is not None:
            self._reading = False
            _ = self._task.cancel()


def _close_all() -> None:
    """Close what is open at the end of the program, and wait for it."""
    for session in list(_running):
        session.ask_to_close()
        session.join()


_ = atexit.register(_close_all)
