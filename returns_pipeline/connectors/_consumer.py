"""The life of a source: one connection after the other, a reader, and what both wait for."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from enum import Enum
from functools import partial
from typing import Final, Protocol

from returns_pipeline._engine import observing
from returns_pipeline._engine.cancellation import add_note
from returns_pipeline._engine.logs import Repeats, facts
from returns_pipeline._engine.retry_loop import next_delay
from returns_pipeline._engine.task_owner import TaskOwner, notify, shielded_clean_up
from returns_pipeline.connectors._driver import Driver
from returns_pipeline.connectors._events import SourceEvents
from returns_pipeline.connectors._ledger import Ledger
from returns_pipeline.connectors._message import Message, Position
from returns_pipeline.connectors._session import Session, bounded
from returns_pipeline.errors import ConnectionLost, JournalUnavailable, PartitionsLost
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.telemetry import Observer

__all__ = ["Consumer", "Signal"]

_log = logging.getLogger("returns_pipeline.connectors")

# Messages that may be acknowledged before the first position is stored, without a warning.
_UNSTORED: Final = 1000
# Seconds for which a reader that waits may reach nothing until a trial of suspects is given up.
_PATIENCE: Final = 10.0
# Seconds that a driver may take to disconnect when the time to close has passed.
_LAST_MOMENT: Final = 1.0


class Signal(Enum):
    """What `Consumer.wait` returns in place of a message."""

    FLUSH = "flush"  # emit what is open: nothing more comes before the reader reaches a mark
    END = "end"  # nothing more comes


class Readers(Protocol):
    """Readers of partitions, each of which is read apart: see `_partitions`."""

    def on_change(self) -> None:
        """Look again: something has changed."""

    def flush(self) -> None:
        """Request that open windows are emitted."""


class Consumer(TaskOwner):
    """Opens a driver, runs a `Session`, closes the driver, and does so again after a lost one.

    States: *running*; *draining*, when nothing more is fetched or emitted, but acknowledgements
    continue; *closing*, until what was reached is acknowledged; *failed*, when a call has raised
    something else than `ConnectionLost`, or the policy allows no other attempt.

    One task opens and closes the driver (`_run`), and the tasks of a session have ended before it
    does. The reader runs in a task of its own, which is not one of these.

    Args:
        driver: What to read.
        ledger: What is held.
        before_ack: See `Source`.
        reconnect: How long to wait after a lost connection, and how often to try in a row.
        request_timeout: Seconds for each call of the driver.
        settle_timeout: Seconds until a partition is given up, even if messages are in flight.
        max_hold: Seconds for which a message is kept alive.
        observer: Gets events, besides the observers of `telemetry.use`.

    Attributes:
        failure: What the reader is to raise.
        draining: Whether nothing more is emitted.
        connections: How many connections were made.
        before_ack: Awaited before each acknowledgement; not to be changed after the start.
        readers: If partitions are read apart, who reads them. Then `read` is not called.
    """

    def __init__(
        self,
        driver: Driver,
        ledger: Ledger,
        *,
        before_ack: Callable[[], Awaitable[object]] | None,
        reconnect: RetryPolicy,
        request_timeout: float,
        settle_timeout: float,
        max_hold: float,
        observer: Observer | None,
    ) -> None:
        super().__init__()
        self.failure: BaseException | None = None
        self.draining: bool = False
        self.connections: int = 0
        self.readers: Readers | None = None
        self._closing = False
        self._due = math.inf  # when it must be closed: see `limit`
        self._limit: asyncio.TimerHandle | None = None  # while it is being closed
        self._driver = driver
        self._ledger = ledger
        self.before_ack = before_ack
        self._reconnect = reconnect
        self._request_timeout = request_timeout
        self._settle_timeout = settle_timeout
        self._max_hold = max_hold
        self._observer = observer
        self._events: SourceEvents | None = None
        self._session: Session | None = None
        self._reader: asyncio.Future[None] | None = None
        self._settlers: list[asyncio.Future[None]] = []
        self._pause: asyncio.Future[None] | None = None  # until the next attempt to connect
        self._must_flush = False
        self._has_warned = False
        self._repeats = Repeats(_log)
        self._starved_at = -1  # what was emitted when the reader was last told that credit is spent
        self._has_told = False  # whether the log says that it was spent

    # The tasks.

    def start_tasks(self) -> None:
        """Start the task that opens and closes the driver."""
        observers = () if self._observer is None else (self._observer,)
        if (observed := observing.opened(None, observers)) is not None:
            self._events = SourceEvents(observed, self._driver.name, self._ledger)
        self.start_task(self._run)

    def on_failure(self, error: BaseException) -> None:
        """Keep an error for the reader, unless the task was asked to stop."""
        if not self.stopping:
            self.failure = error

    def on_all_ended(self) -> None:
        """Wake everything that waits: nothing changes any more."""
        self._on_change()

    def ask_to_stop(self, *, next_turn: bool = False) -> None:
        """Stop the session as well: its tasks are not this owner's."""
        super().ask_to_stop(next_turn=next_turn)
        if self._session is not None:
            self._session.ask_to_stop()

    async def _run(self) -> None:
        failed = 0  # times in a row
        due = math.inf  # no attempt begins after this
        while True:
            lost, was_alive = await self._connect_once()
            if lost is None or (self._closing and not self._ledger.has_reached()):
                return
            if self._events is not None:
                self._events.lost(lost)
            if was_alive:
                failed = 0
            if not failed:
                due = self.loop.time() + self._reconnect.total_timeout
            failed += 1
            delay = await next_delay(self._reconnect, failed, lost, due)
            if delay is None:
                raise lost
            self._repeats.warning(
                "%s; the next attempt is in %.1f s",
                lost,
                delay,
                extra=facts(source=self._driver.name, attempt=failed, delay=delay),
            )
            await self._wait(delay)

    async def _wait(self, delay: float) -> None:
        """Wait until the next attempt."""
        self._pause = self.loop.create_future()
        timer = self.loop.call_later(delay, notify, self._pause)
        try:
            await self._pause
        finally:
            timer.cancel()
            self._pause = None

    async def _connect_once(self) -> tuple[ConnectionLost | None, bool]:
        """Run one connection; return why it was lost, if it was, and whether it was of any use."""
        session = Session(
            self._driver,
            self._ledger,
            on_change=self._on_change,
            before_ack=self.before_ack,
            request_timeout=self._request_timeout,
            max_hold=self._max_hold,
            events=self._events,
        )
        error: BaseException | None
        try:
            await self._bounded("open", self._driver.open(self))
            self.connections += 1
            if self.connections > 1:
                name = self._driver.name
                self._repeats.info("%s is connected again", name, extra=facts(source=name))
            if self._events is not None:
                self._events.connected()
            error = await self._run_session(session)
        except BaseException as raised:  # noqa: BLE001  # it is raised below
            error = raised
        self._session = None
        self._on_change()
        is_lost = isinstance(error, ConnectionLost)
        try:
            await shielded_clean_up(partial(self._close_driver, notes=not is_lost))
        except ConnectionLost:
            pass  # it is closed, in any case
        except Exception as closing:
            if error is None:
                raise
            add_note(error, f"while the connection was closed, {closing!r} was raised")
        if error is None or isinstance(error, ConnectionLost):
            return error, session.is_alive
        try:
            raise error
        finally:
            del error  # its traceback holds this frame

    async def _close_driver(self, *, notes: bool) -> None:
        """Close the driver; if the source is being closed, within what is left of its time.

        With ``notes``, it is noted before that it has not died with what is in flight.
        """
        try:
            if notes and (last := self._ledger.suspects.last_notes()):
                await self._last_call("note", self._driver.note(last))
        except PartitionsLost:
            pass  # others note what they do
        finally:
            await self._last_call("close", self._driver.close())

    async def _last_call(self, what: str, call: Awaitable[None]) -> None:
        left = max(_LAST_MOMENT, self._due - self.loop.time())
        await bounded(self._driver.name, what, min(self._request_timeout, left), call)

    async def _run_session(self, session: Session) -> BaseException | None:
        self._session = session
        session.start()
        if self._closing:
            session.close()
        elif self.draining:
            session.drain()
        await session.wait_ended()
        return session.error

    async def _bounded(self, what: str, call: Awaitable[None]) -> None:
        await bounded(self._driver.name, what, self._request_timeout, call)

    # The reader.

    def next(self, limit: int) -> list[Message[bytes]]:
        """Return up to ``limit`` messages, without waiting; `emit` must follow.

        There are none if something comes in their place, which `wait` returns or raises.
        """
        if (
            self.failure is not None
            or self._must_flush
            or self.draining
            or self._reader is not None
            or self.ended
        ):
            return []
        return self._ledger.next(limit)

    async def wait(self) -> Signal | None:
        """Wait until there is a message, or something comes in its place.

        A cancelled call loses nothing.

        Raises:
            RuntimeError: Another task is reading.
            BaseException: The source has failed.
        """
        if self._reader is not None:
            raise RuntimeError("another task is reading this source")
        ledger = self._ledger
        while True:
            if self.failure is not None:
                raise self.failure
            if self._must_flush:
                self._must_flush = False
                return Signal.FLUSH
            if self.draining or self.ended:
                return Signal.END
            if ledger.skip():
                self.on_skip()
            if ledger.next(1):
                return None
            if ledger.waits_for_reader() and self._starves():
                return Signal.FLUSH
            self._reader = self.loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None

    def _starves(self) -> bool:
        """Record that credit is spent; return whether the reader is to be told."""
        told, self._starved_at = self._starved_at, self._ledger.emitted
        if not self._has_told and not self._ledger.suspects.is_waiting:
            self._has_told = True
            _log.warning(
                "%s: all credit is spent, %d messages, and the pipeline waits for more of them: "
                "open windows are emitted before they are full (see max_in_flight)",
                self._driver.name,
                self._ledger.in_flight(),
                extra=facts(source=self._driver.name, messages=self._ledger.in_flight()),
            )
        return told != self._starved_at

    def emit(self, count: int) -> None:
        """Record that the first messages that `next` returned are emitted."""
        ledger = self._ledger
        ledger.emit(count)
        # Emission makes no room: more is wanted, if at all, because nothing is buffered any more.
        if not ledger.buffered and self._session is not None:
            self._session.on_emit()

    def on_skip(self) -> None:
        """Acknowledge what was passed over."""
        if self._session is not None:
            self._session.on_reach()

    def reach(self, number: int, partition: str | None = None) -> None:
        """Record that all that was emitted up to a number was handled."""
        if self._ledger.reach(number, partition) and self._session is not None:
            self._session.on_reach()

    def nack(self, message: Message[object], delay: float) -> bool:
        """Return a message to the broker, and whether it was in flight."""
        entry = self._ledger.find(message)
        if entry is None:
            return False
        self._ledger.nack(entry, delay)
        if self._session is not None:
            self._session.on_reach()
        self._on_change()
        return True

    def warn_of_unstored(self, least: int) -> None:
        """Warn once, if so many messages were acknowledged and no position was ever stored."""
        coverage = self._ledger.coverage
        if coverage is not None and coverage.unstored >= least and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "%s: %d messages were acknowledged, and no position was stored: nothing in the"
                " pipeline writes to what was given as positions=",
                self._driver.name,
                coverage.unstored,
                extra=facts(source=self._driver.name, messages=coverage.unstored),
            )

    def _on_change(self) -> None:
        """Wake the reader and everything that waits for acknowledgements: each looks again."""
        self.warn_of_unstored(_UNSTORED)
        notify(self._reader)
        if self.readers is not None:
            self.readers.on_change()
        settlers, self._settlers = self._settlers, []
        for settler in settlers:
            notify(settler)

    # Ownership: called by the driver.

    async def settled(self, partitions: Collection[str], /) -> bool:
        """Emit no more of partitions, and wait until what is in flight of them is acknowledged."""
        began = self.loop.time()
        settled = await self._settled(partitions)
        if self._events is not None:
            self._events.revoked(partitions, began, settled=settled)
        return settled

    async def _settled(self, partitions: Collection[str]) -> bool:
        ledger, suspects = self._ledger, self._ledger.suspects
        ledger.settle(partitions)
        if ledger.in_flight(partitions):
            self._must_flush = True
            notify(self._reader)
        if self.readers is not None:
            self.readers.on_change()
        session = self._session
        if session is not None:
            session.on_reach()  # to note that they are left in good order
        due = self.loop.time() + self._settle_timeout
        # Without a session nothing can be acknowledged.
        while session is not None and self._session is session:
            if not ledger.in_flight(partitions) and not suspects.is_owed(partitions):
                break
            if not await self._changed(due):
                return False
        return not ledger.in_flight(partitions)

    async def positions(self, partitions: Mapping[str, str], /) -> Mapping[str, Position]:
        """Take partitions; return where everything of each was handled: see `Ownership`."""
        ledger, store = self._ledger, self._driver.positions
        ledger.own(partitions)
        coverage = ledger.coverage
        if store is None or coverage is None:
            return {}
        keys = {
            name: f"{name} {identity}" if identity else name
            for name, identity in partitions.items()
            if not coverage.is_taken(name)
        }
        if keys:
            fences = ledger.fences
            try:
                taken = await store.take(self._driver.name, sorted(keys.values()))
            except JournalUnavailable as error:
                raise ConnectionLost(self._driver.name, str(error)) from error
            if ledger.fences != fences:
                reason = "partitions were lost while their positions were read"
                raise ConnectionLost(self._driver.name, reason)
            for name, key in keys.items():
                coverage.take(name, key, taken[key])
        found = {name: coverage.handled(name) for name in partitions}
        return {name: position for name, position in found.items() if position is not None}

    def noted(self, partition: str, note: str, after: Position, end: Position, /) -> None:
        """Begin to count the deliveries of a partition: see `Ownership`."""
        attempt = self._ledger.suspects.begin(partition, note, after, end)
        if attempt is not None:
            _log.warning(
                "%s: a process has died that read %s: of its messages, up to %d are delivered"
                " again, in small groups, to find out if one of them was the cause",
                self._driver.name,
                partition,
                attempt.width,
                extra=facts(source=self._driver.name, partition=partition, messages=attempt.width),
            )

    def give_up_later(self) -> None:
        """Emit more after a while, unless the reader reaches more: it may wait for that.

        For a reader that does not know that open windows are to be emitted.
        """
        if self._ledger.suspects.is_waiting:
            _ = self.loop.call_later(_PATIENCE, self._give_up, self._ledger.reached)

    def _give_up(self, reached: int) -> None:
        ledger = self._ledger
        if ledger.reached == reached and ledger.suspects.is_waiting and self._session is not None:
            ledger.suspects.give_up()
            self._session.on_reach()

    def out_of_credit(self) -> None:
        """Request that open windows are emitted: the broker waits for acknowledgements."""
        ledger = self._ledger
        if ledger.in_flight() and not ledger.buffered and not ledger.has_reached():
            self._must_flush = self._starves() or self._must_flush
            notify(self._reader)
        if self.readers is not None:
            self.readers.flush()

    def paused(self) -> Collection[str]:
        """Return the partitions to be left out of a fetch."""
        return self._ledger.paused()

    def lag(self, partitions: Mapping[str, int], /) -> None:
        """Keep what the broker has of partitions that was not fetched."""
        self._ledger.lag.update(partitions)
        if self._events is not None:
            self._events.lag(partitions)

    def fence(self, partitions: Collection[str] | None = None, /) -> None:
        """Forget what is held of partitions."""
        ledger = self._ledger
        before = ledger.fenced
        ledger.fence(partitions)
        if ledger.fenced > before:
            _log.warning(
                "%s: %d messages were in flight when their partitions were lost",
                self._driver.name,
                ledger.fenced - before,
                extra=facts(source=self._driver.name, messages=ledger.fenced - before),
            )
        if self._session is not None:
            self._session.on_emit()
            self._session.on_reach()
        self._on_change()

    def reopen(self, why: Exception) -> None:
        """Forget what is held, and connect again: it is delivered again."""
        self.fence()
        _ = self._ledger.reach(self._ledger.emitted) if not self._ledger.is_split else False
        if self._session is not None:
            self._session.give_up(ConnectionLost(self._driver.name, str(why)))

    # Waiting and closing: called by the user of the source.

    async def wait_acknowledged(self, partitions: Collection[str] | None) -> None:
        """Wait until nothing that was emitted is in flight.

        Raises:
            BaseException: The source has failed.
        """
        while self._ledger.in_flight(partitions):
            if self.failure is not None:
                raise self.failure
            if self.ended:
                return
            _ = await self._changed(math.inf)

    async def _changed(self, due: float) -> bool:
        """Wait for a change; return false if it is not there at ``due``."""
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._settlers.append(waiter)
        timer = None if due == math.inf else self.loop.call_at(due, notify, waiter)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
        return self.loop.time() < due

    def drain(self) -> None:
        """Fetch and emit nothing more."""
        self.draining = True
        self._ledger.suspects.stop()
        if self._session is not None:
            self._session.drain()
        self._on_change()

    async def close(self, timeout: float) -> None:
        """Acknowledge what was reached, give the rest back, disconnect; within a limit."""
        self._closing = True
        self.drain()
        if self._session is not None:
            self._session.close()
        elif not self._ledger.has_reached():
            self.ask_to_stop()  # it is connecting, or waits to do so, for nothing
        notify(self._pause)
        began = self.loop.time()
        self.limit(timeout)
        try:
            await self.wait_ended()
        finally:
            self._set_limit(None)
        if self._ledger.has_reached():
            _log.warning(
                "%s: %d messages were handled and could not be acknowledged within %g s",
                self._driver.name,
                self._ledger.in_flight(),
                self.loop.time() - began,
                extra=facts(source=self._driver.name, messages=self._ledger.in_flight()),
            )

    def limit(self, seconds: float) -> None:
        """Take no longer to close than ``seconds`` from now, unless there is a nearer limit.

        It may be called at any time, also while `close` is under way.
        """
        self._due = min(self._due, asyncio.get_running_loop().time() + seconds)
        if self._closing and not self.ended:
            self._set_limit(self._due)

    def _set_limit(self, due: float | None) -> None:
        """Set the timer that ends `close`, or stop it."""
        if self._limit is not None:
            self._limit.cancel()
        self._limit = None
        if due is not None and due < math.inf:
            self._limit = self.loop.call_at(due, self.ask_to_stop)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._session is not None
