"""A worker for each key of a stream."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, cast, overload

from returns.future import FutureResult

from returns_pipeline._engine.cancellation import add_note
from returns_pipeline._engine.fan_in import BUFFER, FairMerge, Input, check_source
from returns_pipeline._engine.future_results import to_result
from returns_pipeline._engine.operator import Operator, check_at_least, operator, plain_iterator
from returns_pipeline._engine.reader import Reader, notify
from returns_pipeline.errors import InvalidArgument, ItemsRefused

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable

    from aiostream import Stream
    from returns.result import Result

    from returns_pipeline.context import StepContext

__all__ = ["KeyFailed", "check_route", "passing_route", "route"]

F = TypeVar("F")
K = TypeVar("K")
T = TypeVar("T")
U = TypeVar("U")
K_co = TypeVar("K_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class KeyFailed(Generic[K_co, T_co]):
    """What `route` gives, if so chosen, for a worker that raised an exception.

    Attributes:
        key: The worker's key.
        error: What it raised.
        items: What it did not get done: the item that it took last, if it took one, and those that
            still waited for it, in order.
    """

    key: K_co
    error: Exception
    items: tuple[T_co, ...]


class _Nothing:
    """No item is of this class."""


class _Inbox(Generic[K, T]):
    """The items of one key, as its worker reads them."""

    __slots__ = ("closed", "key", "last", "queue", "routing", "waiter")

    def __init__(self, routing: _Routing[K, T], key: K) -> None:
        self.routing = routing
        self.key = key
        self.queue: deque[T] = deque()
        self.last: tuple[T, ...] = ()  # the one taken last
        self.closed = False  # nothing more will come
        self.waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> _Inbox[K, T]:
        return self

    async def __anext__(self) -> T:
        if self.waiter is not None:
            raise RuntimeError("another task is reading these items")
        while not self.queue:
            if self.closed:
                raise StopAsyncIteration
            self.waiter = asyncio.get_running_loop().create_future()
            self.routing.idles(self)
            try:
                await self.waiter
            finally:
                self.waiter = None
                self.routing.works(self)
        item = self.queue.popleft()
        self.last = (item,)
        notify(self.routing.room)
        return item

    def close(self) -> None:
        """Let the worker come to its end."""
        self.closed = True
        notify(self.waiter)


def _check_willing(inbox: _Inbox[Any, Any]) -> None:
    """Refuse a worker that would be hired again and again for the same item."""
    if inbox.queue and not inbox.last:
        raise ItemsRefused(inbox.key)


class _Routing(FairMerge[Any, Any], Generic[K, T]):
    """The first lane reads the source and fills the inboxes; the others are workers."""

    grows = True

    def __init__(
        self,
        source: AsyncIterable[T],
        key: Callable[[T], K],
        work: Callable[[_Inbox[K, T]], AsyncIterator[Any]],
        *,
        max_keys: int,
        buffer: int,
        idle_after: float,
        isolated: bool,
        passing: type[Any],
        unpack: Callable[[Any], Any],
    ) -> None:
        super().__init__([source], BUFFER)
        self._passing = passing
        self._unpack = unpack
        self._key = key
        self._work = work
        self._max_keys = max_keys
        self._size = buffer
        self._idle_after = idle_after
        self._isolated = isolated
        self._inboxes: dict[K, _Inbox[K, T]] = {}
        self._idle: OrderedDict[K, float] = OrderedDict()  # since when, the longest idle first
        self._timer: asyncio.TimerHandle | None = None
        self._failure: Exception | None = None  # of the source, or of the key
        self.room: asyncio.Future[None] | None = None  # the dispatcher waits for a change

    async def _read(self, lane: Input[Any]) -> None:
        if lane.index:
            await super()._read(lane)
            return
        try:
            await self._dispatch(lane)
        except Exception as error:  # raised when what was read is done
            if self.over:
                raise
            self._failure = error
        for inbox in self._inboxes.values():
            inbox.close()

    async def _dispatch(self, lane: Input[Any]) -> None:
        async with plain_iterator(lane.source) as items:
            async for item in items:
                if self.over:
                    return  # and the source swallowed the cancellation
                if isinstance(item, self._passing):
                    lane.items.append(item)
                    if len(lane.items) >= lane.mark:
                        _ = await self._look_up(lane)
                    continue
                inbox = await self._inbox(self._key(item))
                inbox.queue.append(item)
                notify(inbox.waiter)
                self.works(inbox)

    async def _inbox(self, key: K) -> _Inbox[K, T]:
        """Find the inbox of a key with room for an item, or open it when its turn has come."""
        while True:
            inbox = self._inboxes.get(key)
            if inbox is not None:
                if not inbox.closed and len(inbox.queue) < self._size:
                    return inbox
            elif len(self._inboxes) < self._max_keys:
                return self._hire(_Inbox(self, key))
            elif self._idle:
                self._inboxes[next(iter(self._idle))].close()
                self._idle.popitem(last=False)
            self.room = self.loop.create_future()
            try:
                await self.room
            finally:
                self.room = None

    def _hire(self, inbox: _Inbox[K, T]) -> _Inbox[K, T]:
        self._inboxes[inbox.key] = inbox
        lane: Input[Any] = Input(self._career(inbox), 1)
        self.lanes.append(lane)
        self.run_lane(lane)
        return inbox

    async def _career(self, inbox: _Inbox[K, T]) -> AsyncGenerator[Any, None]:
        """Run a worker from its first item to its end, and see to what it leaves behind."""
        try:
            async with plain_iterator(self._work(inbox)) as made:
                async for item in made:
                    yield self._unpack(item)
            _check_willing(inbox)
        except Exception as error:
            if self.over:
                raise  # of its clean-up
            left = inbox.last + tuple(inbox.queue)
            inbox.queue.clear()
            self._dismissed(inbox)
            if not self._isolated:
                add_note(
                    error,
                    f"raised by the worker of key {inbox.key!r}; not done: {len(left)} items",
                )
                raise
            yield self._unpack(KeyFailed(inbox.key, error, left))
        else:
            self._dismissed(inbox)

    def _dismissed(self, inbox: _Inbox[K, T]) -> None:
        """Give the items that a worker left to a new one of the same key."""
        del self._inboxes[inbox.key]
        notify(self.room)
        if inbox.queue and not self.over:
            heir = _Inbox(self, inbox.key)
            heir.queue.extend(inbox.queue)
            heir.closed = inbox.closed
            self._hire(heir)

    def left(self, lane: Input[Any]) -> None:
        """Forget a worker that has ended."""
        self.lanes.remove(lane)

    def idles(self, inbox: _Inbox[K, T]) -> None:
        """Take note of a worker that waits for an item: it is the first to be retired."""
        now = self.loop.time()
        self._idle[inbox.key] = now
        notify(self.room)
        if self._timer is None and self._idle_after != math.inf:
            self._arm(now + self._idle_after)

    def works(self, inbox: _Inbox[K, T]) -> None:
        """Take note of one that has an item, or does not wait for one any more."""
        self._idle.pop(inbox.key, None)

    def _arm(self, due: float) -> None:
        self._timer = self.loop.call_at(due, self._on_timer, due)

    def _on_timer(self, now: float) -> None:
        self._timer = None
        while self._idle:
            key, since = next(iter(self._idle.items()))
            if since + self._idle_after > now:
                self._arm(since + self._idle_after)
                return
            del self._idle[key]
            self._inboxes[key].close()

    def discard(self) -> None:
        super().discard()
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def pump(self) -> None:
        try:
            await super().pump()
        finally:
            self._disarm()
            self._inboxes.clear()  # of workers that were stopped: they know this object
            failure, self._failure = self._failure, None
            if failure is not None and not self.closed:
                # A worker's error that came before this one, if any, gets it as a note.
                raise failure


def _route(
    source: AsyncIterable[T],
    key: Callable[[T], K],
    worker: Callable[..., Any],
    *,
    max_keys: int = 1000,
    buffer: int = 16,
    idle_after: float = math.inf,
    failing: Literal["raise", "isolate"] = "raise",
    ctx: StepContext | None = None,
    hold: bool = False,
) -> AsyncIterator[Any]:
    """Give the items of each key to a worker of its own, and what the workers make out.

    A worker is called with its key and an async iterator of the key's items, in order. It is an
    async generator, whose items come out as they are made; or a coroutine, whose result comes out
    when it is done; or it gives a `FutureResult`, whose `Result` comes out, be it a failure. What
    several workers make comes out as `returns_pipeline.combine.merge` says.

    A worker is hired when an item comes whose key has none. Its items end, so that it can come to
    its own end,

    1. when the source has ended;
    2. when an item of another key comes, there are ``max_keys`` workers, and none has been idle
       for longer;
    3. when it has been idle for ``idle_after`` seconds.

    Idle is a worker that waits for an item. One that ends by itself is replaced when the key's next
    item comes, which is never given to two workers at once: each key's order is kept. If all
    workers are busy, new keys wait.

    Errors: what a worker raises,

    - ``"raise"``: ends everything as a failed source does; it has a note of whose it is.
    - ``"isolate"``: comes out as a `KeyFailed`, with the items that were not done. The others go
      on; the key's next item gets a new worker.

    A worker that ends without having taken an item refuses it: that counts as an error of its own.
    An error of the source or of ``key`` is raised when the workers have done what was read before
    it. An item whose ``key`` failed was not given to anybody.

    With a ``ctx``, the worker is called with a third argument: a child of ``ctx``, to register its
    undo actions with. It is a coroutine of a Result, or gives a `FutureResult`; what it registered
    is settled when it ends, as `ResultStream.bind_step` does it: a success commits it or, with
    ``hold``, hands it to ``ctx``; a failure, which comes out as an item, an exception or a
    cancellation undoes it first. A worker that lives long settles item by item:

    ```python
    async def persist(account: str, events: AsyncIterator[Event], step: StepContext) -> Saved:
        async for event in events:
            await step.run(store(event, step))
        return Success(account)
    ```

    Bounds: at most ``buffer`` items wait for each worker, one more for all of them; when that is
    not enough, the source waits. Of what each worker makes, as much is held as `merge` holds.

    Order of events: the source runs in one task, ``key`` with it, and each worker in one, on copies
    of the reader's context variables.

    Cancel safety: a read that is cancelled loses nothing. ``aclose()`` cancels the source and the
    workers and awaits their clean-up.

    Known elsewhere as: ``groupBy`` with ``mergeSubstreams`` (Akka and Pekko), ``groupByKey``
    (Effect), ``groupBy`` with ``mergeMap`` (Rx), keyed process functions, actors by key.

    Args:
        source: Read one item at a time.
        key: Gives an item's key, which must be hashable.
        worker: Called for each key, again when it comes back.
        max_keys: How many workers there may be at a time, at least 1.
        buffer: How many items may wait for each, at least 1.
        idle_after: Seconds without an item after which a worker is retired, above 0. On the running
            loop's clock.
        failing: What becomes of the others when a worker raises.
        ctx: What the workers' contexts are children of.
        hold: Whether a success hands its undo actions to ``ctx`` instead of committing them.

    Returns:
        A stream of what the workers make.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.
        TypeError: At the call, if ``source`` is not an async iterable.
        Exception: What the source, ``key`` or a worker raised, after what was made before.

    >>> from collections.abc import AsyncIterator
    >>> from returns_pipeline.testing import run, script, timeline
    >>> async def count(letter: str, items: AsyncIterator[str]) -> AsyncIterator[str]:
    ...     n = 0
    ...     async for _ in items:
    ...         n += 1
    ...         yield f"{letter}{n}"
    >>> run(timeline(route(script("abaab|"), lambda letter: letter, count)))
    [(0.0, 'a1'), (1.0, 'b1'), (2.0, 'a2'), (3.0, 'a3'), (4.0, 'b2')]
    """
    check_source(source)
    check_route(max_keys, buffer, idle_after, failing)
    return passing_route(
        source,
        key,
        worker,
        max_keys=max_keys,
        buffer=buffer,
        idle_after=idle_after,
        failing=failing,
        ctx=ctx,
        hold=hold,
        passing=_Nothing,
        unpack=lambda item: item,
    )


def check_route(max_keys: int, buffer: int, idle_after: float, failing: str) -> None:
    """Refuse arguments of `route` that are out of range."""
    check_at_least("max_keys", max_keys, 1)
    check_at_least("buffer", buffer, 1)
    if not idle_after > 0:
        raise InvalidArgument(f"idle_after must be above 0 seconds, not {idle_after!r}")
    if failing not in {"raise", "isolate"}:
        raise InvalidArgument(f"failing must be 'raise' or 'isolate', not {failing!r}")


def passing_route(
    source: AsyncIterable[Any],
    key: Callable[[Any], K],
    worker: Callable[..., Any],
    *,
    max_keys: int,
    buffer: int,
    idle_after: float,
    failing: str,
    ctx: StepContext | None,
    hold: bool,
    passing: type[Any],
    unpack: Callable[[Any], Any],
) -> AsyncIterator[Any]:
    """Do as `route`; items of the class ``passing`` go by the workers.

    ``unpack`` makes of what a worker gave, or of its `KeyFailed`, what comes out.
    """
    pump: _Routing[K, Any] = _Routing(
        source,
        key,
        _working(worker) if ctx is None else _in_own_step(worker, ctx, hold=hold),
        max_keys=max_keys,
        buffer=buffer,
        idle_after=idle_after,
        isolated=failing == "isolate",
        passing=passing,
        unpack=unpack,
    )
    return Reader(pump)


def _working(worker: Callable[..., Any]) -> Callable[[_Inbox[Any, Any]], AsyncIterator[Any]]:
    async def work(inbox: _Inbox[Any, Any]) -> AsyncGenerator[Any, None]:
        made = worker(inbox.key, inbox)
        if _is_future_result(made):
            yield await to_result(made)
        elif hasattr(made, "__aiter__"):
            async with plain_iterator(made) as items:
                async for item in items:
                    yield item
        elif inspect.isawaitable(made):
            yield await made
        else:
            raise TypeError(f"a worker must be asynchronous, not give a {type(made).__name__!r}")

    return work


def _is_future_result(made: object) -> bool:
    """Tell a `FutureResult`, which can be iterated too: that gives the bare value or raises."""
    return isinstance(made, FutureResult)


def _in_own_step(
    worker: Callable[..., Any], ctx: StepContext, *, hold: bool
) -> Callable[[_Inbox[Any, Any]], AsyncIterator[Any]]:
    async def work(inbox: _Inbox[Any, Any]) -> AsyncGenerator[Any, None]:
        def call(_: object, step: StepContext) -> Any:
            return worker(inbox.key, inbox, step)

        yield await ctx.in_own_step(call, name=str(inbox.key), hold=hold)(None)

    return work


class _RouteCall(Protocol):
    """The sources' items to what the workers make."""

    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], FutureResult[U, F]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["raise"] = "raise",
    ) -> Stream[Result[U, F]]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], FutureResult[U, F]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["isolate"],
    ) -> Stream[Result[U, F] | KeyFailed[K, T]]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], AsyncIterable[U]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["raise"] = "raise",
    ) -> Stream[U]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], AsyncIterable[U]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["isolate"],
    ) -> Stream[U | KeyFailed[K, T]]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], Awaitable[U]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["raise"] = "raise",
    ) -> Stream[U]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], Awaitable[U]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["isolate"],
    ) -> Stream[U | KeyFailed[K, T]]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[
            [K, AsyncIterator[T], StepContext], FutureResult[U, F] | Awaitable[Result[U, F]]
        ],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["raise"] = "raise",
        ctx: StepContext,
        hold: bool = False,
    ) -> Stream[Result[U, F]]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[
            [K, AsyncIterator[T], StepContext], FutureResult[U, F] | Awaitable[Result[U, F]]
        ],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["isolate"],
        ctx: StepContext,
        hold: bool = False,
    ) -> Stream[Result[U, F] | KeyFailed[K, T]]: ...


class _RouteRaw(Protocol):
    """The same, to the bare iterator."""

    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], FutureResult[U, F]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["raise"] = "raise",
    ) -> AsyncIterator[Result[U, F]]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], FutureResult[U, F]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["isolate"],
    ) -> AsyncIterator[Result[U, F] | KeyFailed[K, T]]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], AsyncIterable[U]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["raise"] = "raise",
    ) -> AsyncIterator[U]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], AsyncIterable[U]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["isolate"],
    ) -> AsyncIterator[U | KeyFailed[K, T]]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], Awaitable[U]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["raise"] = "raise",
    ) -> AsyncIterator[U]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], Awaitable[U]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["isolate"],
    ) -> AsyncIterator[U | KeyFailed[K, T]]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[
            [K, AsyncIterator[T], StepContext], FutureResult[U, F] | Awaitable[Result[U, F]]
        ],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["raise"] = "raise",
        ctx: StepContext,
        hold: bool = False,
    ) -> AsyncIterator[Result[U, F]]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[T],
        /,
        key: Callable[[T], K],
        worker: Callable[
            [K, AsyncIterator[T], StepContext], FutureResult[U, F] | Awaitable[Result[U, F]]
        ],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["isolate"],
        ctx: StepContext,
        hold: bool = False,
    ) -> AsyncIterator[Result[U, F] | KeyFailed[K, T]]: ...


class _RoutePipe(Protocol):
    """The same, the source coming through ``|``."""

    @overload
    def __call__(
        self,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], FutureResult[U, F]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["raise"] = "raise",
    ) -> Callable[[AsyncIterable[T]], Stream[Result[U, F]]]: ...
    @overload
    def __call__(
        self,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], FutureResult[U, F]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["isolate"],
    ) -> Callable[[AsyncIterable[T]], Stream[Result[U, F] | KeyFailed[K, T]]]: ...
    @overload
    def __call__(
        self,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], AsyncIterable[U]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["raise"] = "raise",
    ) -> Callable[[AsyncIterable[T]], Stream[U]]: ...
    @overload
    def __call__(
        self,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], AsyncIterable[U]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["isolate"],
    ) -> Callable[[AsyncIterable[T]], Stream[U | KeyFailed[K, T]]]: ...
    @overload
    def __call__(
        self,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], Awaitable[U]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["raise"] = "raise",
    ) -> Callable[[AsyncIterable[T]], Stream[U]]: ...
    @overload
    def __call__(
        self,
        key: Callable[[T], K],
        worker: Callable[[K, AsyncIterator[T]], Awaitable[U]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["isolate"],
    ) -> Callable[[AsyncIterable[T]], Stream[U | KeyFailed[K, T]]]: ...
    @overload
    def __call__(
        self,
        key: Callable[[T], K],
        worker: Callable[
            [K, AsyncIterator[T], StepContext], FutureResult[U, F] | Awaitable[Result[U, F]]
        ],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["raise"] = "raise",
        ctx: StepContext,
        hold: bool = False,
    ) -> Callable[[AsyncIterable[T]], Stream[Result[U, F]]]: ...
    @overload
    def __call__(
        self,
        key: Callable[[T], K],
        worker: Callable[
            [K, AsyncIterator[T], StepContext], FutureResult[U, F] | Awaitable[Result[U, F]]
        ],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["isolate"],
        ctx: StepContext,
        hold: bool = False,
    ) -> Callable[[AsyncIterable[T]], Stream[Result[U, F] | KeyFailed[K, T]]]: ...


_route.__name__ = "route"
_made = operator(_route)
route: Operator[_RouteCall, _RoutePipe, _RouteRaw] = Operator(
    cast("_RouteCall", _made.__call__),
    cast("_RoutePipe", _made.pipe),
    cast("_RouteRaw", _made.raw),
    of=_route,
)
