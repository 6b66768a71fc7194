"""`from_queue`: a stream of the items that are put into a queue."""

from __future__ import annotations

import asyncio
import inspect
import math
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, Protocol, TypeVar, overload

from aiostream import Stream

from returns_pipeline._engine.calls import recorded
from returns_pipeline._engine.draining import Drainable
from returns_pipeline._engine.operator import Repeatable

__all__ = ["AsyncQueue", "from_queue"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class AsyncQueue(Protocol[T_co]):
    """What `from_queue` reads: an `asyncio.Queue`, or the asynchronous side of another queue.

    >>> import asyncio
    >>> def waiting(queue: AsyncQueue[str]) -> str:
    ...     return queue.get_nowait()
    >>> queue: asyncio.Queue[str] = asyncio.Queue()
    >>> queue.put_nowait("order")
    >>> waiting(queue)
    'order'
    """

    def get(self) -> Coroutine[Any, Any, T_co]:
        """Wait for an item, and remove it. A call that is cancelled must not have removed one."""
        ...

    def get_nowait(self) -> T_co:
        """Remove an item, or raise `asyncio.QueueEmpty`."""
        ...


_NO_SENTINEL: Final = object()


@overload
def from_queue(queue: AsyncQueue[T | None], *, sentinel: None) -> Stream[T]: ...
@overload
def from_queue(queue: AsyncQueue[T], *, sentinel: object = ...) -> Stream[T]: ...
@recorded
def from_queue(queue: AsyncQueue[Any], *, sentinel: object = _NO_SENTINEL) -> Stream[Any]:
    """Emit the items that are put into a queue, until it is shut down or a sentinel arrives.

    1. An item is taken from the queue when it is requested: none is held between the queue and the
       reader, so none is lost if the stream is closed, or cancelled, at any time. A new stream of
       the same queue continues with the next item.
    2. The stream ends when the queue is shut down and empty (``shutdown()``, from Python 3.13 on),
       or at the first item that is, or is equal to, ``sentinel``.
    3. With `ResultStream.drain_on`, everything that is in the queue when the event is set is still
       emitted; then the stream ends, without waiting for more.

    Several streams may share a queue: each item goes to one of them. A sentinel ends one stream; a
    shutdown ends all.

    Backpressure: that of the queue, so ``put()`` waits if it has a ``maxsize``. Call
    ``queue.task_done()`` yourself, when an item is handled (``.tap(lambda _: queue.task_done())``).

    A queue is read by the loop that it belongs to. For items that come from other threads, see
    `Channel`; the asynchronous sides of the queues of ``janus`` and ``culsans`` are taken, too. A
    `queue.Queue`, which blocks, is read by ``from_thread(iter(queue.get, sentinel))``.

    Cancel safety: a cancelled read loses nothing; the next read continues where it was.

    Known elsewhere as: ``Stream.fromQueue`` (fs2, Effect), ``ReceiverStream`` (tokio-stream),
    ``Source.queue`` (Akka and Pekko).

    Args:
        queue: Read with ``get()``, one item at a time.
        sentinel: The item that ends the stream, and is not emitted; by default there is none.

    Returns:
        A stream of its items.

    Raises:
        TypeError: At the call, if ``queue`` is not a queue with an asynchronous ``get()``.

    >>> from returns_pipeline.testing import run, timeline
    >>> async def main() -> None:
    ...     queue: asyncio.Queue[str | None] = asyncio.Queue()
    ...     for item in ["a", "b", None, "c"]:
    ...         queue.put_nowait(item)
    ...     print(await timeline(from_queue(queue, sentinel=None)))
    ...     print(queue.qsize())
    >>> run(main())
    [(0.0, 'a'), (0.0, 'b')]
    1
    """
    if not (hasattr(queue, "get") and hasattr(queue, "get_nowait")):
        raise TypeError(f"expected a queue, not {type(queue).__name__!r}")
    if not inspect.iscoroutinefunction(queue.get):
        raise TypeError(
            f"the get() of {type(queue).__name__!r} is not asynchronous:"
            " use from_thread(iter(queue.get, sentinel))"
        )
    return Repeatable(lambda: _QueueReader(queue, sentinel))


class _QueueReader(Drainable, Generic[T]):
    """Holds no item: each is emitted by the read that has taken it.

    States: reading; draining, when only the items in the queue are wanted; ended. A queue has no
    way to end one ``get()``, so `aclose` cancels a task that waits in it, as `asyncio.timeout`
    does: the count of its cancellations is put back, and one from elsewhere propagates.
    """

    __slots__ = ("_ended", "_left", "_queue", "_sentinel", "_waiting")

    def __init__(self, queue: AsyncQueue[T], sentinel: object) -> None:
        self._queue = queue
        self._sentinel = sentinel
        self._left = math.inf  # how many items are wanted
        self._ended = False
        self._waiting: asyncio.Task[Any] | None = None

    def __aiter__(self) -> _QueueReader[T]:
        return self

    async def __anext__(self) -> T:
        if self._ended or self._left <= 0:
            raise StopAsyncIteration
        try:
            item = await (self._get() if self._left == math.inf else self._get_left())
        except (asyncio.QueueEmpty, _Interrupted):
            pass
        except Exception as error:
            if not _is_shutdown(error):
                raise
        else:
            sentinel = self._sentinel
            # As in ``iter(function, sentinel)``. Nothing else equals None, and some classes return
            # no bool.
            if item is not sentinel and (sentinel is None or not item == sentinel):  # noqa: SIM201
                return item
        self._ended = True
        raise StopAsyncIteration

    async def _get(self) -> T:
        reader = asyncio.current_task()
        assert reader is not None
        survived = reader.cancelling()
        self._waiting = reader
        try:
            return await self._queue.get()
        except asyncio.CancelledError:
            if self._ended and reader.uncancel() <= survived:
                raise _Interrupted from None
            raise
        finally:
            self._waiting = None

    async def _get_left(self) -> T:
        self._left -= 1
        return self._queue.get_nowait()

    def drain(self) -> None:
        """Emit what is in the queue now, and do not wait."""
        size: Callable[[], int] | None = getattr(self._queue, "qsize", None)
        # Of a queue that does not tell, everything: until it is empty.
        self._left = sys.maxsize if size is None else size()

    async def aclose(self) -> None:
        """End the stream: what is in the queue stays there."""
        if not self._ended:
            self._ended = True
            if self._waiting is not None and self._waiting is not asyncio.current_task():
                _ = self._waiting.cancel()


class _Interrupted(Exception):
    """The stream was closed while a task waited for an item."""


def _is_shutdown(error: Exception) -> bool:
    """Whether a queue was shut down: janus and culsans have classes of their own before 3.13."""
    return any(kind.__name__.endswith("QueueShutDown") for kind in type(error).__mro__)
