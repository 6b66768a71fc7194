"""`Writer`: one task that sends requests to the server, many in one transaction.

Requests that are made while a batch is on its way become the next batch: many scopes share one
flush of the server's disk. (Databases call this *group commit*.) The task exists only while there
is something to do. It works for all callers, so the cancellation of a caller does not reach it, and
it ignores its own.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final, Literal

from returns_pipeline import telemetry
from returns_pipeline.errors import JournalError, JournalUnavailable
from returns_pipeline.journal._events import JournalEvents
from returns_pipeline.journal._face import fenced
from returns_pipeline.journal._statistics import JournalStatistics
from returns_pipeline.journal.postgres._address import AddressSource
from returns_pipeline.journal.postgres._connection import ServerConnection
from returns_pipeline.journal.postgres._delivery import Delivery
from returns_pipeline.journal.postgres._driver import FAILURES, explain, spares_others
from returns_pipeline.journal.postgres._ledger import Ledger
from returns_pipeline.journal.postgres._requests import (
    ALONE,
    FREEING,
    KEPT,
    MOST_REQUESTS,
    WITHOUT_CALLER,
    Kind,
    Request,
    Row,
    Step,
    doubts_of,
    log_failure,
    refuse,
    steps_of,
    unchanged,
)

__all__ = ["Writer"]

_log = logging.getLogger("returns_pipeline.journal")

# One batch in this many deletes a few expired rows, so that a process that never recovers anything
# does not leave them all to others.
_TIDY_EVERY: Final = 64
# Seconds until an "abandon" that failed is tried again without another request.
_PAUSE: Final = 1.0


class Writer:
    """Carries out the requests of one journal.

    Any task of the loop may call the public methods. The private ones run in the writer's own task,
    except where they say otherwise.

    Between two batches, the ledger has what the server confirmed. A request with an unknown outcome
    leaves a duty in the ledger (`Ledger.doubt`, `Ledger.orphan`), and the next batch begins with
    that duty. So an action that was refused to its caller does not stay on record, and a saga that
    was claimed for a caller that is gone is released.

    Args:
        source: Returns the address to connect to.
        name: The journal's name, for errors and tasks.
        ledger: The journal's ledger.
        schema: The schema of the tables.
        create: Whether missing tables are created.
        lease: Seconds of a lease; 0 if the session shows that the owner is alive.
        retention: Seconds that an undone action stays listed.
        patience: Seconds to try for before a request fails.
        observer: Gets events, besides the observers of `telemetry.use`.

    Attributes:
        delivery: Sends the batches.
    """

    # The life of a request: `send` puts it into `_requests`; `_next_batch` takes it from there;
    # `_carry_out` sends it; `_settle` or `_fail` resolves its future. A request of a kind in `KEPT`
    # that fails goes from `_fail` to `_kept`, with a new future, and begins the next batch.
    #
    # Invariants. There is one task at a time, and it sends one batch at a time: so requests reach
    # the server in the order in which they were made, and the ledger changes in the same order.
    # `_run` sets `_task` to None without an await after it found no request: so `_start` either
    # finds the task, which will see the request, or makes another.
    #
    # Why a batch is not sent again after a failure: it may be on record ("in doubt"). Its requests
    # fail, their records go to `Ledger.doubt`, and the next batch removes them ("drop"). A claim in
    # doubt is undone by "disown". Only if the server surely refused the batch are its requests sent
    # one by one, so that one bad request does not fail the others.

    def __init__(
        self,
        source: AddressSource,
        name: str,
        ledger: Ledger,
        *,
        schema: str,
        create: bool,
        lease: float,
        retention: float,
        patience: float,
        observer: telemetry.Observer | None,
    ) -> None:
        connection = ServerConnection(
            source,
            name,
            schema=schema,
            create=create,
            pooled=lease > 0,
            patience=patience,
            on_lost=self.reconnect,
        )
        self.delivery = Delivery(connection, name, lease=lease, patience=patience)
        self._name = name
        self._observer = observer
        self._events: JournalEvents | None = None  # while it has a loop
        self._ledger = ledger
        self._lease = lease
        self._retention = retention
        self._batches = 0
        self._process = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None  # the one the connection belongs to
        self._task: asyncio.Task[None] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._requests: collections.deque[Request] = collections.deque()
        self._kept: list[Request] = []  # these begin the next batch: see `KEPT`
        self._again: asyncio.TimerHandle | None = None  # begins it, if no other request does
        self._posted: set[asyncio.Future[Any]] = set()  # `flush` waits for these
        self._lost: JournalError | None = None  # with a loop: `flush` and `close` raise it once
        self._sending = 0  # how many requests are in the batch that is being carried out
        self._done = JournalStatistics()  # counted for each batch

    # For callers.

    def check_loop(self) -> asyncio.AbstractEventLoop:
        """Return the running loop, if this journal may be used in it and in this process.

        If the loop of the connection was closed, the journal becomes a new owner in this loop.

        Raises:
            JournalError: It may not be used here. Nothing was changed.
        """
        if os.getpid() != self._process:
            reason = "it belongs to the process that this one was forked from"
            raise JournalError(self._name, reason)
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop and self._loop.is_closed():
            self._forsake_loop()
        if self._loop is not None and self._loop is not loop:
            raise JournalError(self._name, "it was opened in another event loop: close it there")
        return loop

    def _forsake_loop(self) -> None:
        """Become a new owner: the loop of the connection is closed, and its tasks will never run.

        The server ends the session when the socket is shut down. Then `recover` treats what was
        open as that of any dead owner.
        """
        self._loop = self._task = self._renewal = None
        self._requests.clear()
        self._lost = self._lose_late_commits() or self._lost
        self.delivery.connection.forsake()
        self._be_new_owner()

    # The results are `Any`: their type depends on the kind of request, which the caller knows.

    def statistics(self) -> JournalStatistics:
        """Return what it has written, and what waits."""
        waiting = len(self._requests) + len(self._kept) + self._sending
        return replace(self._done, waiting=waiting, deferred=len(self._posted))

    async def ask(
        self,
        kind: Kind,
        rows: Iterable[Row] = (),
        on_done: Callable[[Any], Any] = unchanged,
        on_failed: Callable[[], None] = lambda: None,
        *,
        on_orphaned: Callable[[Any], None] = lambda _: None,
        saga: str = "",
    ) -> Any:
        """Make a request, wait for it, and return its result: see `Request`.

        Cancel safety: a request that was not sent yet is dropped. One that was sent is carried out,
        and then ``on_orphaned`` is called with its result.
        """
        request = self.send(kind, rows, on_done, on_failed, on_orphaned=on_orphaned, saga=saga)
        return await self.wait(request)

    async def wait(self, request: Request) -> Any:
        """Return the result of a request: see `ask`."""
        future = request.future
        try:
            return await future
        except asyncio.CancelledError:
            # The future may be done already, and the caller cancelled before it could continue.
            if future.done() and not future.cancelled() and future.exception() is None:
                request.on_orphaned(future.result())
            raise

    def send(
        self,
        kind: Kind,
        rows: Iterable[Row] = (),
        on_done: Callable[[Any], Any] = unchanged,
        on_failed: Callable[[], None] = lambda: None,
        *,
        on_orphaned: Callable[[Any], None] = lambda _: None,
        saga: str = "",
        future: asyncio.Future[Any] | None = None,
    ) -> Request:
        """Make a request, in order with all others. This does not wait."""
        loop = self.check_loop()
        if self._loop is None:
            self._events = JournalEvents.opened("PostgresJournal", self._observer)
        self._loop = loop
        future = self._loop.create_future() if future is None else future
        request = Request(kind, list(rows), future, on_done, on_failed, on_orphaned, saga)
        self._requests.append(request)
        self._start()
        return request

    def withdraw(self, request: Request) -> bool:
        """Take a request back, as if it had failed; return whether it was not sent yet."""
        if request not in self._requests:
            return False
        self._requests.remove(request)
        request.on_failed()
        return True

    def post(self, kind: Literal["move", "abandon"], row: Row, saga: str) -> None:
        """Make a request that no caller waits for.

        If the server is away, the next batch that succeeds carries it out: see `KEPT`.
        """
        future = self.send(kind, [row], saga=saga).future
        future.add_done_callback(log_failure)
        future.add_done_callback(self._posted.discard)
        self._posted.add(future)

    async def flush(self) -> None:
        """Wait until each posted request is carried out, or kept for the next batch.

        Raises:
            JournalError: A late commit cannot be written now.
        """
        await self._posted_ended()
        self._report_loss()
        if self._ledger.late_commits:
            await self.ask("nothing")

    def _report_loss(self) -> None:
        """Raise the loss of late commits together with their loop, once."""
        lost, self._lost = self._lost, None
        if lost is not None:
            raise lost

    async def _posted_ended(self) -> None:
        _ = self.check_loop()
        if self._posted:
            _ = await asyncio.wait(set(self._posted))

    async def look(self, statement: str) -> list[Any]:
        """Run a reading statement over a connection of its own, after all posted requests."""
        await self._posted_ended()
        try:
            return await self.delivery.persist(lambda: self.delivery.connection.look(statement))
        except FAILURES as error:
            raise explain(error, self._name) from error

    async def close(self) -> None:
        """Carry out the waiting requests, release all sagas and end the connection."""
        if self._loop is not None and self._loop.is_closed():
            _ = self.check_loop()  # it forsakes that loop: nothing is left to close
        if self._loop is not None or self._kept or self._ledger.has_duties:
            await self.ask("leave")
        self._report_loss()

    def reconnect(self) -> None:
        """Send a batch soon, which reconnects if necessary, if anything depends on it.

        Called when the connection ended: another process may take over what is open if this one
        does not come back. Also called when a cancelled caller left a duty.
        """
        has_duties = self._ledger.has_duties or self._kept
        if self._loop is not None and (self._ledger.sagas or has_duties):
            self.send("reconnect").future.add_done_callback(log_failure)

    # The task.

    def _start(self) -> None:
        if self._task is None and self._requests:
            # In an empty context: it works for all callers, not only for the first one.
            self._task = asyncio.create_task(
                self._run(), name=f"journal {self._name}", context=contextvars.Context()
            )
            self._task.add_done_callback(self._stopped)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        # The task ignores cancellations from its first step on (see `Delivery._until_answered`). If
        # one came before that step, no request was taken, and another task is started.
        if self._task is task:
            self._task = None
        if task.cancelled() or task.exception() is None:
            self._start()

    async def _run(self) -> None:
        """Carry out requests until none are left."""
        while batch := self._next_batch():
            if batch[0].kind == "leave":
                await self._leave(batch[0])
            else:
                await self._carry_out_and_count(batch)
        is_needed = self._ledger.sagas or self._ledger.has_duties or self._kept
        if not self.delivery.connection.is_open and not is_needed:
            self._loop = None  # the journal may be used in another loop now
        self._task = None

    async def _carry_out_and_count(self, batch: list[Request]) -> None:
        began = time.monotonic()
        self._sending = len(batch)
        try:
            await self._carry_out(batch)
        finally:
            self._sending = 0
            self._done = JournalStatistics(
                answered=self._done.answered + len(batch) - len(self._kept),
                transactions=self._done.transactions + 1,
                last_transaction=time.monotonic() - began,
            )

    def _next_batch(self) -> list[Request]:
        """Return the requests of the next transaction, in order, the kept ones first."""
        batch: list[Request] = []
        while self._requests and len(batch) < MOST_REQUESTS:
            first = self._requests[0]
            if first.future.cancelled() and first.kind not in WITHOUT_CALLER:
                self._requests.popleft().on_failed()
            elif first.kind not in ALONE:
                batch.append(self._requests.popleft())
            else:
                if not batch:
                    batch.append(self._requests.popleft())
                break
        if not batch or batch[0].kind == "leave":
            return batch  # kept requests wait for another one, or for the timer
        kept, self._kept = self._kept, []
        return kept + batch

    async def _carry_out(self, batch: list[Request]) -> None:
        """Send a batch, and resolve the future of each of its requests, whatever happens."""
        began = asyncio.get_running_loop().time()
        try:
            outcomes = await self._commit(batch)
        except Exception as error:  # noqa: BLE001  # the callers get any error
            self._report(batch, began, failed=True)
            if not isinstance(error, FAILURES):
                self.delivery.connection.drop()  # a bug: its state is unknown
            # A batch in doubt may be on record: it must not be carried out a second time.
            if len(batch) > 1 and not self.delivery.in_doubt and spares_others(error):
                for request in batch:
                    await self._carry_out([request])
            else:
                self._fail(batch, error)
            return
        self._report(batch, began, failed=False)
        self._settle(batch, outcomes)
        if self._lease and self._ledger.sagas and (self._renewal is None or self._renewal.done()):
            self._renewal = asyncio.create_task(
                self._renew(), name=f"lease of {self._name}", context=contextvars.Context()
            )

    def _report(self, batch: list[Request], began: float, *, failed: bool) -> None:
        """Report a batch, before its callers get their outcomes."""
        if self._events is not None:
            took = asyncio.get_running_loop().time() - began
            kinds = [request.kind for request in batch]
            self._events.answered(kinds, len(batch), took, len(self._requests), failed=failed)

    async def _commit(self, batch: list[Request]) -> list[Any]:
        """Send a batch, preceded by the duties of the ledger; return outcomes that are still true.

        An answer may have come so late that another process took the sagas over meanwhile: see
        `Delivery.is_stale`. Grants are then confirmed, and a claim is released and made again.
        """
        deadline = self.delivery.deadline()
        while True:
            outcomes = await self._carry_out_with_duties(batch)
            if batch[-1].kind != "claim":
                await self._confirm(batch, outcomes)
                return outcomes
            if not self.delivery.is_stale:
                return outcomes
            # Another process may have claimed the same sagas meanwhile: release them, claim again.
            self._ledger.orphan()
            self.delivery.check_in_time(deadline)

    async def _confirm(self, batch: list[Request], outcomes: list[Any]) -> None:
        try:
            await self.delivery.confirm(batch, outcomes)
        except BaseException:
            for request, outcome in zip(batch, outcomes, strict=True):
                if request.kind == "forget" and outcome:
                    self._ledger.committed(str(row.get("id")) for row in request.rows)
            raise

    async def _end_doubts(self) -> None:
        """Ask what became of the last batch, if it was not answered and may have committed actions.

        This is a batch of its own, which changes nothing. The next one depends on what is known.
        """
        if self._ledger.has_doubts:
            (last,) = await self.delivery.carry_out([Step({"do": "last"}, [0])], 1)
            self._ledger.end_doubts(last["batch"], last["answers"])

    async def _carry_out_with_duties(self, batch: list[Request]) -> list[Any]:
        await self._end_doubts()
        duties = self._ledger.take_duties()
        steps: list[Step] = []
        tidying: list[Step] = []
        if self._batches % _TIDY_EVERY == 0:
            tidying.append(Step({"do": "expire", "retention": self._retention}, []))
        self._batches += 1
        if ids := [*duties.in_doubt, *duties.late]:
            expected = [action for action, is_expected in duties.late.items() if is_expected]
            steps.append(Step({"do": "drop", "ids": ids, "expected": expected}, [len(batch)]))
        if duties.orphaned:
            steps.append(Step({"do": "disown", "held": list(self._ledger.sagas)}, []))
        number = self.delivery.next_batch
        try:
            steps += steps_of(batch, self._ledger.counts_on, self._ledger.is_committed)
            *outcomes, lost_ids = await self.delivery.carry_out(steps + tidying, len(batch) + 1)
        except BaseException:
            self._ledger.restore(duties)
            if self.delivery.in_doubt:
                self._ledger.doubt_commits(doubts_of(steps, number))
            raise
        if taken := duties.late.keys() & set(lost_ids or ()):
            lost = fenced(self._name)
            _log.error("%s: %d were past their pivot", lost, len(taken))
            self._ledger.lose_late(taken, lost)
        for action in duties.late:
            self._ledger.settled(action)
        return outcomes

    def _settle(self, batch: list[Request], outcomes: list[Any]) -> None:
        """Resolve the requests of a batch that was carried out."""
        for request, outcome in zip(batch, outcomes, strict=True):
            try:
                if request.kind in {"record", "forget"} and not outcome:
                    raise fenced(self._name, request.saga)
                result = request.on_done(outcome)
            except JournalError as error:
                request.on_failed()
                refuse(request, error)
            else:
                if not request.future.done():
                    request.future.set_result(result)
                else:
                    request.on_orphaned(result)

    def _fail(self, batch: list[Request], error: Exception) -> None:
        """Fail the requests of a batch that was not carried out, or is in doubt."""
        if isinstance(error, (*FAILURES, JournalError)):
            error = explain(error, self._name)
        has_new_duties = False
        for request in batch:
            request.on_failed()
            refuse(request, error)
            frees = request.kind in FREEING
            if frees or (request.kind in KEPT and isinstance(error, JournalUnavailable)):
                has_new_duties |= frees and not request.kept
                request.future = request.future.get_loop().create_future()
                request.future.add_done_callback(log_failure)
                request.kept = True
                self._kept.append(request)
            if request.kind == "record" and self.delivery.in_doubt:
                self._ledger.doubt(str(row["id"]) for row in request.rows)
                has_new_duties = True
            if request.kind == "claim" and (self.delivery.in_doubt or self.delivery.is_stale):
                self._ledger.orphan()
                has_new_duties = True
        if has_new_duties:  # only then, or a batch that can never succeed would be sent forever
            self.compensate_soon()
        abandons = any(request.kind == "abandon" for request in self._kept)
        if self._again is None and (abandons or self._ledger.late_commits):
            loop = asyncio.get_running_loop()
            self._again = loop.call_later(_PAUSE, self._try_kept_again)

    def _try_kept_again(self) -> None:
        self._again = None
        self.reconnect()

    def compensate_soon(self) -> None:
        """Send a batch soon that carries out the duties of the ledger, if there is a connection.

        Without one, the next request does that. Other processes may take the sagas over until then,
        which is correct, too.
        """
        if self.delivery.connection.is_open:
            self.reconnect()

    async def _leave(self, request: Request) -> None:
        """Release all sagas, if the server can be reached, and become a new owner."""
        await self._compensate_in_doubt()
        lost = self._lose_late_commits()
        if self._renewal is not None:
            _ = self._renewal.cancel()
        await self.delivery.leave()
        self._be_new_owner()
        for waiting in self._requests:
            if waiting.kind == "reconnect":  # nothing depends on the connection any more
                _ = waiting.future.cancel()
        if lost is not None:
            refuse(request, lost)
        elif not request.future.done():
            request.future.set_result(None)

    def _lose_late_commits(self) -> JournalUnavailable | None:
        """Return the error of late commits that this owner cannot write any more, and report it."""
        if not (late := self._ledger.late_commits):
            return None
        reason = f"{late} commits were not written, and will be undone"
        lost = JournalUnavailable(self._name, reason)
        _log.error("%s", lost)
        self._ledger.lose_all_late(lost)
        return lost

    def _be_new_owner(self) -> None:
        self.delivery.be_new_owner()
        self._ledger.reset()
        self._kept.clear()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._posted.clear()

    async def _compensate_in_doubt(self) -> None:
        """Carry out the kept requests and the duties: no other batch comes before the leave."""
        if self._kept or self._ledger.has_duties:
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            future.add_done_callback(log_failure)
            kept, self._kept = self._kept, []
            await self._carry_out([*kept, Request("nothing", [], future)])

    async def _renew(self) -> None:
        """Renew the lease while anything is open. This runs in a task of its own."""
        while self._ledger.sagas:
            await asyncio.sleep(self._lease / 3)
            # In real time, like the lease: a loop on virtual time would renew it too often.
            if self.delivery.since_renewal() >= self._lease / 4:
                with contextlib.suppress(JournalError):
                    await self.ask("nothing")
