"""One connection of a source: the tasks that use its driver from `open` to `close`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from returns_pipeline._engine.cancellation import add_note
from returns_pipeline._engine.future_results import failure_of
from returns_pipeline._engine.task_owner import TaskOwner, notify
from returns_pipeline.connectors._driver import Driver
from returns_pipeline.connectors._events import SourceEvents
from returns_pipeline.connectors._ledger import Ledger
from returns_pipeline.errors import ConnectionLost, PartitionsLost

__all__ = ["Session", "bounded"]

T = TypeVar("T")

# Seconds until a driver that had no messages, and did not wait for any, is asked again.
_PAUSE: Final = 0.05
# Seconds until a driver looks for new partitions, if there is no room for those that are known.
_LOOK: Final = 1.0
# Seconds after which a message that was emitted and not handled is delivered again, if it is given
# back at the end: its next reader may have the same trouble with it.
_RELEASE_DELAY: Final = 1.0


async def bounded(name: str, what: str, limit: float, call: Awaitable[T]) -> T:
    """Await a call of a driver; if it takes too long, the connection counts as lost."""
    deadline = asyncio.timeout(limit)
    try:
        async with deadline:
            return await call
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise ConnectionLost(name, f"{what}() took longer than {limit:g} s") from error


class Session(TaskOwner):
    """The tasks of one connection. The first that fails stops the others.

    Only `Consumer` opens and closes the driver, before this starts and after it has ended. So no
    task can use a connection that another one has given up, or replace one that is new.

    States: *running*; *draining*, when nothing more is fetched; *closing*, when what was reached is
    acknowledged, the rest is given back, and the tasks end; *failed*.

    Args:
        driver: Is open.
        ledger: Outlives the session.
        on_change: Called after each change of the ledger that the reader may wait for.
        before_ack: Awaited between taking a batch and acknowledging it.
        request_timeout: Seconds for each call of the driver.
        max_hold: Seconds for which a message is kept alive.
        events: Reports what happens, if the source is observed.

    Attributes:
        error: Why it has ended; ``None`` if it was closed.
        draining: Whether to stop fetching.
        closing: Whether to end when everything reached is acknowledged.
        is_alive: Whether a message has arrived, or was acknowledged.
    """

    def __init__(
        self,
        driver: Driver,
        ledger: Ledger,
        *,
        on_change: Callable[[], None],
        before_ack: Callable[[], Awaitable[object]] | None,
        request_timeout: float,
        max_hold: float,
        events: SourceEvents | None,
    ) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self.draining = False
        self.closing = False
        self.is_alive = False
        self._driver = driver
        self._ledger = ledger
        self._on_change = on_change
        self._before_ack = before_ack
        self._limit = request_timeout
        self._max_hold = max_hold
        self._events = events
        # The fetching task waits for room, the acknowledging task for something to do.
        self._fetch_waiter: asyncio.Future[None] | None = None
        self._ack_waiter: asyncio.Future[None] | None = None
        self._fetch_ended: asyncio.Future[None] | None = None

    def start_tasks(self) -> None:
        """Start the four tasks; under an eager task factory one may fail before the next starts."""
        self._fetch_ended = self.loop.create_future()
        for task in (self._extend, self._fetch, self._acknowledge, self._watch):
            if not self.stopping:
                self.start_task(task)

    def on_failure(self, error: BaseException) -> None:
        """Stop the other tasks at the first error; later ones become notes on it."""
        if not self.stopping:
            self.error = error
            self.ask_to_stop()
        elif not isinstance(error, asyncio.CancelledError):
            if self.error is None:
                self.error = error
            elif self.error is not error:
                add_note(self.error, f"while the connection was given up, {error!r} was raised")

    def give_up(self, error: ConnectionLost) -> None:
        """End, as the connection is of no more use."""
        if not self.stopping:
            self.error = error
            self.ask_to_stop()

    # What wakes the tasks.

    def on_emit(self) -> None:
        """Fetch more if there is room: called after each message that is emitted."""
        if self._fetch_waiter is not None and self._ledger.wants_more():
            notify(self._fetch_waiter)

    def on_reach(self) -> None:
        """Acknowledge: more was reached, or is to be given back."""
        notify(self._ack_waiter)

    def drain(self) -> None:
        """Stop fetching."""
        self.draining = True
        notify(self._fetch_waiter)

    def close(self) -> None:
        """Acknowledge what was reached, give the rest back, and end."""
        self.closing = True
        self.drain()
        notify(self._ack_waiter)

    # The tasks.

    async def _fetch(self) -> None:
        ledger, loop = self._ledger, self.loop
        try:
            while not self.draining:
                if not ledger.wants_more() and not await self._wait_for_room():
                    continue
                began = loop.time()
                messages = await self._call("fetch", self._driver.fetch(max(1, ledger.room())))
                # No await from here on: what the driver has returned is accepted.
                if messages:
                    self.is_alive = True
                    ledger.accept(messages, loop.time())
                    if self._events is not None:
                        self._events.fetched(messages, began)
                    self._on_change()
                    self.on_reach()  # some may have been acknowledged lately
                elif loop.time() == began and not self.draining:
                    await asyncio.sleep(_PAUSE)
        finally:
            notify(self._fetch_ended)

    async def _wait_for_room(self) -> bool:
        """Wait until there may be room; return whether to fetch although there is none.

        That is so now and then if partitions are read apart: of those that are known nothing is
        fetched, but there may be new ones, which some drivers find when they fetch.
        """
        waiter = self._fetch_waiter = self.loop.create_future()
        looks = False

        def look() -> None:
            nonlocal looks
            looks = True
            notify(waiter)

        timer = self.loop.call_later(_LOOK, look) if self._ledger.leaves_out else None
        try:
            await waiter
        finally:
            self._fetch_waiter = None
            if timer is not None:
                timer.cancel()
        return looks and not self.draining

    async def _acknowledge(self) -> None:
        ledger = self._ledger
        while True:
            if (returned := ledger.take_returned()) is not None:
                await self._call("nack", self._driver.nack(*returned))
            elif ledger.has_reached():
                await self._acknowledge_once()
            elif notes := ledger.suspects.wanted():
                await self._note(notes)
            elif self.closing:
                break
            else:
                self._ack_waiter = self.loop.create_future()
                try:
                    await self._ack_waiter
                finally:
                    self._ack_waiter = None
        await self._give_back()
        self.ask_to_stop()

    async def _acknowledge_once(self) -> None:
        ledger = self._ledger
        if not (messages := ledger.take_reached()):
            return
        began = self.loop.time()
        try:
            # The messages were taken before: what `before_ack` makes durable covers them all.
            if self._before_ack is not None:
                failure = await failure_of(self._before_ack())
                if failure is not None:
                    _ = failure.unwrap()  # raises it
            await self._call("ack", self._driver.ack(messages))
        except PartitionsLost as lost:
            ledger.refuse(lost.partitions)
        except BaseException:
            ledger.not_acked()
            raise
        else:
            ledger.acked(self.loop.time())
            self.is_alive = True
            if self._events is not None:
                self._events.acknowledged(len(messages), began)
        self.on_emit()
        self._on_change()

    async def _note(self, notes: Mapping[str, str]) -> None:
        try:
            await self._call("note", self._driver.note(notes))
        except PartitionsLost as lost:
            self._ledger.fence(lost.partitions)
        else:
            self._ledger.suspects.noted(notes)
        self._on_change()

    async def _give_back(self) -> None:
        """Return everything that was not reached, so that others get it soon."""
        if not self._driver.positioned:
            assert self._fetch_ended is not None
            await self._fetch_ended  # it may take messages, which must not wait for their deadline
        self._ledger.release(_RELEASE_DELAY)
        while (returned := self._ledger.take_returned()) is not None:
            await self._call("nack", self._driver.nack(*returned))

    async def _extend(self) -> None:
        """Keep alive what is held: at once, as the connection may have been lost for long."""
        while (interval := self._driver.keep_alive) != float("inf"):
            if held := self._ledger.held(self.loop.time() - self._max_hold):
                await self._call("extend", self._driver.extend(held))
            await asyncio.sleep(interval)

    async def _watch(self) -> None:
        await self._driver.watch()

    async def _call(self, what: str, call: Awaitable[T]) -> T:
        done = await bounded(self._driver.name, what, self._limit, call)
        if self.stopping:  # and the client has swallowed the cancellation, as redis-py may
            raise asyncio.CancelledError
        return done
