"""`Writer`: one task that has requests carried out, many in a transaction.

Requests made while a batch is on its way make up the next batch: many scopes share one flush to the
server's disk. The task exists only while there is something to do. It works for all callers, so no
caller's cancellation reaches it, and it survives its own.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import os
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

from returns_pipeline.errors import JournalError, JournalUnavailable
from returns_pipeline.journal._face import fenced
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
    log_failure,
    refuse,
    steps_of,
    unchanged,
)

__all__ = ["Writer"]

# Batches of which one deletes a few rows that nobody needs any more: a process that never recovers
# anything must not leave them all to others.
_TIDY_EVERY: Final = 64
# Seconds until what was abandoned, and could not be written, is tried again by itself.
_PAUSE: Final = 1.0


class Writer:
    """Carries out the requests of one journal.

    ``ask`` and ``send`` are called by any task of the loop. Everything private runs in the writer's
    own task, save the few methods that say otherwise.

    Between two batches, the ledger holds what the server confirmed. A request whose outcome is not
    known leaves a duty in the ledger (`Ledger.doubt`, `Ledger.orphan`), and the next batch begins
    with that. So what a caller was refused is not left on record, and what it never heard of is
    released.

    Args:
        source: Says where to connect.
        name: The journal's name, for errors and tasks.
        ledger: Of the journal.
        schema: Where the tables are.
        create: Whether tables are made if there are none.
        lease: Seconds of a lease; 0 if the session shows that the owner lives.
        retention: Seconds that an action which was undone stays listed.
        patience: Seconds to try for.

    Attributes:
        delivery: Has batches carried out.
    """

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
        self._ledger = ledger
        self._lease = lease
        self._retention = retention
        self._batches = 0
        self._process = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None  # that the connection belongs to
        self._task: asyncio.Task[None] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._requests: collections.deque[Request] = collections.deque()
        self._kept: list[Request] = []  # they begin the next batch: see `KEPT`
        self._again: asyncio.TimerHandle | None = None  # when that is, if nothing is asked for
        self._posted: set[asyncio.Future[Any]] = set()  # what `flush` waits for

    # For callers.

    def check_loop(self) -> asyncio.AbstractEventLoop:
        """Return the running loop, if this journal may be used in it and in this process.

        Raises:
            JournalError: It may not. Nothing was changed.
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
        """Be a new owner: the loop of the connection is closed, and nothing in it ends any more.

        The server ends the session with its socket. What was open is recovered as that of any dead
        owner.
        """
        self._loop = self._task = self._renewal = None
        self._requests.clear()
        self.delivery.connection.forsake()
        self._be_new_owner()

    # Any: which result a request has is known to the one who makes it.

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
        """Have a request carried out, and return its result: see `Request`.

        Cancel safety: a request that was not sent yet is dropped. One that was sent is carried out,
        and ``on_orphaned`` called with the result.
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
        """Make a request, in order with all others, and return it without waiting."""
        self._loop = self.check_loop()
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

        If the server is away it is carried out with the next batch that succeeds: see `KEPT`.
        """
        future = self.send(kind, [row], saga=saga).future
        future.add_done_callback(log_failure)
        future.add_done_callback(self._posted.discard)
        self._posted.add(future)

    async def flush(self) -> None:
        """Wait until each request on its way that was posted is carried out, or is kept."""
        _ = self.check_loop()
        if self._posted:
            _ = await asyncio.wait(set(self._posted))

    async def look(self, statement: str) -> list[Any]:
        """Read what is on record, after what was posted, by a connection of its own."""
        await self.flush()
        try:
            return await self.delivery.persist(lambda: self.delivery.connection.look(statement))
        except FAILURES as error:
            raise explain(error, self._name) from error

    async def close(self) -> None:
        """Carry out what is waiting, release everything and end the connection."""
        if self._loop is not None and self._loop.is_closed():
            _ = self.check_loop()  # nothing is left to be closed
        if self._loop is not None or self._kept or self._ledger.has_duties:
            await self.ask("leave")

    def reconnect(self) -> None:
        """Have a batch soon that makes the connection anew, if anything depends on it.

        Called when the connection ended, before another process takes over what is open; and for
        callers that were cancelled. Any task may call this.
        """
        has_duties = self._ledger.has_duties or self._kept
        if self._loop is not None and (self._ledger.sagas or has_duties):
            self.send("reconnect").future.add_done_callback(log_failure)

    # The task.

    def _start(self) -> None:
        if self._task is None and self._requests:
            # In a context of its own: it works for all callers, not for the one that came first.
            self._task = asyncio.create_task(
                self._run(), name=f"journal {self._name}", context=contextvars.Context()
            )
            self._task.add_done_callback(self._stopped)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        # From its first step on it survives cancellations. One may have come before that.
        if self._task is task:
            self._task = None
        if task.cancelled() or task.exception() is None:
            self._start()

    async def _run(self) -> None:
        """Carry out requests until there are none."""
        while batch := self._next_batch():
            if batch[0].kind == "leave":
                await self._leave(batch[0])
            else:
                await self._carry_out(batch)
        if not self.delivery.connection.is_open and not self._ledger.sagas:
            self._loop = None  # nothing binds the journal to this loop
        self._task = None

    def _next_batch(self) -> list[Request]:
        """Take as many requests as one transaction may have, in order, after what is kept."""
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
            return batch  # what is kept waits until there is something else to do
        kept, self._kept = self._kept, []
        return kept + batch

    async def _carry_out(self, batch: list[Request]) -> None:
        """Have a batch carried out, and give its requests their outcome, whatever it is."""
        try:
            outcomes = await self._commit(batch)
        except Exception as error:  # noqa: BLE001  # the callers are told, whatever it is
            if not isinstance(error, FAILURES):
                self.delivery.connection.drop()
            # A batch in doubt may be on record. It is not carried out a second time.
            if len(batch) > 1 and not self.delivery.in_doubt and spares_others(error):
                for request in batch:
                    await self._carry_out([request])
            else:
                self._fail(batch, error)
            return
        self._settle(batch, outcomes)
        if self._lease and self._ledger.sagas and (self._renewal is None or self._renewal.done()):
            self._renewal = asyncio.create_task(
                self._renew(), name=f"lease of {self._name}", context=contextvars.Context()
            )

    async def _commit(self, batch: list[Request]) -> list[Any]:
        """Have a batch carried out after what is to be put right; return what holds of it now."""
        deadline = self.delivery.deadline()
        while True:
            outcomes = await self._carry_out_with_duties(batch)
            if batch[-1].kind != "claim":
                await self.delivery.confirm(batch, outcomes)
                return outcomes
            if not self.delivery.is_stale:
                return outcomes
            # Another process may have claimed the same meanwhile: release it, and claim anew.
            self._ledger.orphan()
            self.delivery.check_in_time(deadline)

    async def _carry_out_with_duties(self, batch: list[Request]) -> list[Any]:
        duties = self._ledger.take_duties()
        steps: list[Step] = []
        tidying: list[Step] = []
        if self._batches % _TIDY_EVERY == 0:
            tidying.append(Step({"do": "expire", "retention": self._retention}, []))
        self._batches += 1
        if duties.in_doubt:
            steps.append(Step({"do": "drop", "ids": duties.in_doubt}, []))
        if duties.orphaned:
            steps.append(Step({"do": "disown", "held": list(self._ledger.sagas)}, []))
        try:
            steps += steps_of(batch, self._ledger.counts_on)
            return await self.delivery.carry_out(steps + tidying, len(batch))
        except BaseException:
            self._ledger.restore(duties)
            raise

    def _settle(self, batch: list[Request], outcomes: list[Any]) -> None:
        """Set the result of each request of a batch that was carried out."""
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
        """Fail each request of a batch that was not carried out, or is in doubt."""
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
        if has_new_duties:  # only then: a batch that can never succeed must not call for the next
            self.compensate_soon()
        if self._again is None and any(request.kind == "abandon" for request in self._kept):
            loop = asyncio.get_running_loop()
            self._again = loop.call_later(_PAUSE, self._try_kept_again)

    def _try_kept_again(self) -> None:
        # A connection that has ended needs no more: its owner is dead to others, or soon will be.
        self._again = None
        self.reconnect()

    def compensate_soon(self) -> None:
        """Have a batch soon that puts right what is in doubt, if the server is there.

        Where it is not, the next request does it: other processes may take over meanwhile, which is
        right, too.
        """
        if self.delivery.connection.is_open:
            self.reconnect()

    async def _leave(self, request: Request) -> None:
        """Release everything, as far as the server can be told, and be a new owner."""
        await self._compensate_in_doubt()
        if self._renewal is not None:
            _ = self._renewal.cancel()
        await self.delivery.leave()
        self._be_new_owner()
        for waiting in self._requests:
            if waiting.kind == "reconnect":  # there is nothing to be kept any more
                _ = waiting.future.cancel()
        if not request.future.done():
            request.future.set_result(None)

    def _be_new_owner(self) -> None:
        self.delivery.be_new_owner()
        self._ledger.reset()
        self._kept.clear()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._posted.clear()

    async def _compensate_in_doubt(self) -> None:
        """Do what the next batch would have begun with: no other comes before this owner leaves."""
        if self._kept or self._ledger.has_duties:
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            future.add_done_callback(log_failure)
            kept, self._kept = self._kept, []
            await self._carry_out([*kept, Request("nothing", [], future)])

    async def _renew(self) -> None:
        """Send a sign of life in time, as long as something is open: a task of its own."""
        while self._ledger.sagas:
            await asyncio.sleep(self._lease / 3)
            # The lease runs on the server's time: a loop on virtual time would ask too often.
            if self.delivery.since_renewal() >= self._lease / 4:
                with contextlib.suppress(JournalError):
                    await self.ask("nothing")
