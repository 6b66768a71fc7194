"""`route`: a worker for each key of a stream."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from typing import Any, Final, Generic, Literal, TypeVar

from returns_pipeline._engine import checks
from returns_pipeline._engine.budget import Budget
from returns_pipeline._engine.cancellation import add_note
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.deadlines import DeadlineTimer
from returns_pipeline._engine.fan_in import BUFFER, FairMerge, Input
from returns_pipeline._engine.operator import plain_iterator
from returns_pipeline._engine.reader import Reader, notify
from returns_pipeline.combine._signatures import RouteOperator
from returns_pipeline.combine._worker import Inbox, InboxOwner, KeyFailed, as_generator, as_step
from returns_pipeline.context import StepContext
from returns_pipeline.errors import ItemsRefused

__all__ = ["KeyFailed", "RoutePump", "route"]

K = TypeVar("K")
T = TypeVar("T")


class _Route(RouteOperator):
    def raw(
        self,
        source: AsyncIterable[Any],
        /,
        key: Callable[[Any], Any],
        worker: Callable[..., Any],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: Seconds = math.inf,
        failing: Literal["raise", "isolate"] = "raise",
        ctx: StepContext | None = None,
        hold: bool = False,
    ) -> AsyncIterator[Any]:
        """Pass the items of each key to a worker of its own, and emit what the workers emit.

        A worker is called with its key and an async iterator of the key's items, in order. It is an
        async generator, whose items are emitted as they are made; or a coroutine, whose result is
        emitted when it is done; or it returns a `FutureResult`, whose `Result` is emitted, also if
        it is a failure. What several workers make is emitted by the rules of
        `returns_pipeline.combine.merge`.

        A worker is started when an item arrives whose key has no worker. Its iterator ends, and
        then the worker can end,

        1. when the source has ended;
        2. when an item of a new key arrives, there are ``max_keys`` workers, and this one has been
           idle for longest;
        3. when it has been idle for ``idle_after`` seconds.

        A worker is idle while it waits for an item. A worker that returns early is replaced when
        the key's next item arrives. No two workers have the same key at the same time, so each
        key's order is kept. If all workers are busy, new keys wait.

        Errors: an exception of a worker,

        - ``"raise"``: ends everything as a failed source does; a note names the worker's key.
        - ``"isolate"``: is emitted as a `KeyFailed`, with the items that were not done. The other
          workers continue; the key's next item gets a new worker.

        A worker that ends without having taken an item refuses that item, which counts as an error
        of the worker. An error of the source or of ``key`` is raised after the workers have handled
        the items before it. An item whose ``key`` failed goes to no worker.

        With a ``ctx``, the worker is called with a third argument: a child of ``ctx``, with which
        it registers its undo actions. Then it must be a coroutine function of a Result, or return a
        `FutureResult`. Its actions follow its outcome, as with `ResultStream.bind_step`: a success
        commits them or, with ``hold``, passes them to ``ctx``. A failure, which is emitted as an
        item, an exception or a cancellation undoes them first. A long-lived worker commits item by
        item::

            async def persist(
                account: str, events: AsyncIterator[Event], step: StepContext
            ) -> Saved:
                async for event in events:
                    await step.run(store(event, step))
                return Success(account)

        Backpressure: at most ``buffer`` items wait for each worker, and one more for all of them;
        then the source waits. The items that each worker emits are bounded as in `merge`.

        Order of events: the source runs in one task, ``key`` with it, in a copy of the first
        reader's context. Each worker runs in a task of its own, in a copy of the source's context
        as it was when the worker was started.

        Cancel safety: a read that is cancelled loses nothing. ``aclose()`` cancels the source and
        the workers, and awaits their clean-up to its end.

        Known elsewhere as: ``groupBy`` with ``mergeSubstreams`` (Akka and Pekko), ``groupByKey``
        (Effect), ``groupBy`` with ``mergeMap`` (Rx), keyed process functions, actors by key.

        Args:
            source: Read one item at a time.
            key: Returns an item's key, which must be hashable.
            worker: Called for each key, and again when the key comes back.
            max_keys: How many workers there may be at a time, at least 1.
            buffer: How many items may wait for each, at least 1.
            idle_after: Seconds without an item after which a worker is retired, above 0. On the
                running loop's clock.
            failing: What happens to the others when a worker raises.
            ctx: The parent of the workers' contexts.
            hold: Whether a success passes its undo actions to ``ctx`` instead of committing them.

        Returns:
            A stream of the items that the workers emit.

        Raises:
            InvalidArgument: At the call, if an argument is out of range.
            TypeError: At the call, if ``source`` is not an async iterable.
            Exception: Any exception of the source, ``key`` or a worker, after what was made before.

        >>> from collections.abc import AsyncIterator
        >>> from returns_pipeline.testing import run, script, timeline
        >>> async def count(letter: str, items: AsyncIterator[str]) -> AsyncIterator[str]:
        ...     n = 0
        ...     async for _ in items:
        ...         n += 1
        ...         yield f"{letter}{n}"
        >>> s = script("abaab|")
        >>> done = route(s, lambda letter: letter, count)
        >>> run(timeline(done))
        [(0.0, 'a1'), (1.0, 'b1'), (2.0, 'a2'), (3.0, 'a3'), (4.0, 'b2')]
        """
        return Reader(
            RoutePump(
                source,
                key,
                worker,
                max_keys=max_keys,
                buffer=buffer,
                idle_after=idle_after,
                failing=failing,
                ctx=ctx,
                hold=hold,
            )
        )


route: Final = _Route("returns_pipeline.combine.route")
"""Pass the items of each key to a worker of its own, and emit what the workers emit."""


def _check_willing(inbox: Inbox[Any, Any]) -> None:
    """Refuse a worker that would be started again and again for the same item."""
    if inbox.queue and not inbox.last:
        raise ItemsRefused(inbox.key)


class RoutePump(FairMerge[Any, Any], InboxOwner, Generic[K, T]):
    """The first input reads the source and fills the inboxes; the others are workers.

    Items of the class ``passing`` go to no worker. An item of a worker, and its `KeyFailed`, is
    passed through ``unpack`` before it is emitted.

    Invariants:

    - There is at most one worker for a key at a time. Each worker is in ``_inboxes`` from its start
      to its end.
    - ``_idle`` has only workers of ``_inboxes`` whose inboxes are open.
    - ``_retiring`` counts workers whose inboxes were closed in favour of a new key, and that have
      not ended. A new key retires one worker, whatever else happens until that one has ended.
    """

    def __init__(
        self,
        source: AsyncIterable[T],
        key: Callable[[T], K],
        worker: Callable[..., Any],
        *,
        max_keys: int,
        buffer: int,
        idle_after: Seconds,
        failing: str,
        ctx: StepContext | None,
        hold: bool,
        passing: type[Any] | None = None,
        unpack: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__([source], BUFFER)
        checks.choice("failing", failing, "raise", "isolate")
        self._max_keys = checks.count("max_keys", max_keys)
        self._size = checks.count("buffer", buffer)
        self._idle_after = checks.seconds("idle_after", idle_after)
        self._isolates = failing == "isolate"
        checks.item_function("key", key)
        self._key = key
        self._work = as_generator(worker) if ctx is None else as_step(worker, ctx, hold=hold)
        self._passing: type[Any] | tuple[()] = () if passing is None else passing
        self._unpack = unpack
        self._inboxes: dict[K, Inbox[K, T]] = {}
        self._idle: OrderedDict[K, float] = OrderedDict()  # since when, the longest idle first
        self._retiring: set[K] = set()
        self._timer = DeadlineTimer()  # of the worker that has been idle for longest
        self._failure: Exception | None = None  # of the source, or of the key
        self._changed: asyncio.Future[None] | None = None  # the dispatcher waits for a change

    def bounds(self) -> str:
        return f"a task for each key, up to {self._max_keys}; holds up to {self._size} of each"

    def held(self) -> int:
        return super().held() + sum(len(inbox.queue) for inbox in self._inboxes.values())

    def in_flight(self) -> int:
        return len(self._inboxes) - len(self._idle)

    # The dispatcher.

    async def _read(self, input_: Input[Any]) -> None:
        if input_.index:
            await super()._read(input_)
            return
        try:
            await self._dispatch(input_)
        except Exception as error:  # raised once the items before it are done
            if self.stopping:
                raise
            self._failure = error
        for inbox in tuple(self._inboxes.values()):
            inbox.close()
        self._idle.clear()

    async def _dispatch(self, input_: Input[Any]) -> None:
        budget = Budget(self.loop)
        async with plain_iterator(input_.source) as items:
            async for item in self.incoming_to(input_, items):
                if self.stopping:
                    return  # and the source has swallowed the cancellation
                if isinstance(item, self._passing):
                    input_.items.append(item)
                    if len(input_.items) >= input_.check_at:
                        _ = await self._hand_over(input_)
                    continue
                key = self._key(item)
                inbox = self._free_inbox(key) or await self._wait_for_inbox(key)
                inbox.put(item)
                if key in self._inboxes:
                    self.mark_busy(inbox)
                else:
                    self._start_worker(inbox)
                if budget.spend():
                    await budget.renew()

    def _free_inbox(self, key: K) -> Inbox[K, T] | None:
        """Return the inbox of a key if it is not full; a new one if the key has none.

        If there are too many workers, an idle one is retired.
        """
        inbox = self._inboxes.get(key)
        if inbox is not None:
            has_room = not inbox.is_closed and len(inbox.queue) < self._size
            return inbox if has_room else None
        if len(self._inboxes) < self._max_keys:
            return Inbox(self, key)
        if self._idle and not self._retiring:
            longest, _ = self._idle.popitem(last=False)
            self._retire(longest)
        return None

    async def _wait_for_inbox(self, key: K) -> Inbox[K, T]:
        self.still_reading()
        while (inbox := self._free_inbox(key)) is None:
            self._changed = self.loop.create_future()
            try:
                await self._changed
            finally:
                self._changed = None
        return inbox

    # The workers.

    def _start_worker(self, inbox: Inbox[K, T]) -> None:
        """Start a worker for an inbox with an item. It may run, and end, before this returns."""
        self._inboxes[inbox.key] = inbox
        input_: Input[Any] = Input(self._run_worker(inbox), 1)
        self.inputs.append(input_)
        self.start_task(self._read, input_)

    async def _run_worker(self, inbox: Inbox[K, T]) -> AsyncGenerator[Any, None]:
        """Run a worker from its first item to its end, and handle the items that it leaves."""
        unpack = self._unpack
        try:
            async with plain_iterator(self._work(inbox)) as made:
                async for item in made:
                    yield item if unpack is None else unpack(item)
            _check_willing(inbox)
        except Exception as error:
            if self.stopping:
                raise  # of its clean-up
            left = inbox.last + tuple(inbox.queue)
            inbox.queue.clear()
            self._worker_ended(inbox)
            if not self._isolates:
                note = f"raised by the worker of key {inbox.key!r}; not done: {len(left)} items"
                add_note(error, note)
                raise
            failed = KeyFailed(inbox.key, error, left)
            yield failed if unpack is None else unpack(failed)
        else:
            self._worker_ended(inbox)

    def _worker_ended(self, inbox: Inbox[K, T]) -> None:
        """Pass the items that a worker left to a new one of the same key."""
        del self._inboxes[inbox.key]
        self._retiring.discard(inbox.key)
        _ = self._idle.pop(inbox.key, None)
        was_closed = inbox.is_closed
        queue = inbox.abandon()
        notify(self._changed)
        if queue and not self.stopping:
            successor: Inbox[K, T] = Inbox(self, inbox.key)
            successor.queue = queue
            successor.is_closed = was_closed
            self._start_worker(successor)

    def on_end(self, input_: Input[Any]) -> None:
        """Remove a worker that has ended."""
        self.inputs.remove(input_)

    def mark_idle(self, inbox: Inbox[Any, Any]) -> None:
        """Add a worker to the idle ones: it is the first to be retired."""
        now = self.loop.time()
        self._idle[inbox.key] = now
        notify(self._changed)
        if self._timer.deadline == math.inf:
            self._set_timer(now)

    def mark_busy(self, inbox: Inbox[Any, Any]) -> None:
        """Remove a worker from the idle ones: it has an item, or stops waiting."""
        _ = self._idle.pop(inbox.key, None)
        notify(self._changed)

    def _set_timer(self, since: float) -> None:
        self._timer.set(self.loop, since + self._idle_after, self._on_idle)

    def _on_idle(self, now: float) -> None:
        while self._idle:
            key, since = next(iter(self._idle.items()))
            if since + self._idle_after > now:
                self._set_timer(since)
                return
            del self._idle[key]
            self._retire(key)

    def _retire(self, key: K) -> None:
        self._retiring.add(key)
        self._inboxes[key].close()

    # The end.

    def discard(self) -> None:
        """Drop all items, and cancel the timer."""
        super().discard()
        self._timer.cancel()

    def on_all_ended(self) -> None:
        """Raise the error of the source, if nothing else was raised."""
        self._timer.cancel()
        self._inboxes.clear()  # of workers that were stopped: they refer to this object
        failure, self._failure = self._failure, None
        if failure is not None and not self.closed:
            if self.error is None:
                self.error = failure
            elif self.error is not failure:
                add_note(self.error, f"while this was being handled, {failure!r} was raised")
        super().on_all_ended()
