"""`Delivery`: sends the batches of one owner, so that each is carried out once and in order.

A connection may be lost between a batch and its answer. Then it is unknown whether the batch was
carried out. It is sent again over another connection, with the same number: the server carries it
out, or repeats its answer (*exactly-once* delivery, by a sequence number). `Sending` holds what is
known at each moment.

An answer may also be out of date. While the connection was lost, or the answer was late, another
process may have taken over the sagas of the batch: see `Delivery.is_stale`.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar
from uuid import uuid4

from returns_pipeline.errors import JournalError, JournalUnavailable
from returns_pipeline.journal.postgres._connection import ServerConnection
from returns_pipeline.journal.postgres._driver import FAILURES, ends, is_answer, passes
from returns_pipeline.journal.postgres._requests import JOINED, Request, Row, Step

__all__ = ["Delivery", "Sending"]

T = TypeVar("T")

# Seconds before the next attempt to connect: doubled each time, up to the second number.
_BACK_OFF: Final = (0.01, 1.0)


class Sending(enum.Enum):
    """What is known of the batch that was sent last.

    ```
    UNSENT ---sent---> SENT ---answered---> ANSWERED
       ^                | |
       +----refused-----+ +---sent---> REPEATED ---answered---> ANSWERED_AGAIN
                                       |      ^
                                       +------+ sent, refused
    ```

    Attributes:
        UNSENT: The server did nothing: it never received the batch, or refused it.
        SENT: The batch was sent once and not answered: it is *in doubt*.
        REPEATED: It was sent more than once and not answered. It is in doubt even if the server
            refuses it now: an earlier sending may have been carried out.
        ANSWERED: It was carried out, and the answer is fresh.
        ANSWERED_AGAIN: It was carried out, perhaps long ago and over a connection that was lost.
    """

    UNSENT = enum.auto()
    SENT = enum.auto()
    REPEATED = enum.auto()
    ANSWERED = enum.auto()
    ANSWERED_AGAIN = enum.auto()

    @property
    def in_doubt(self) -> bool:
        """Whether it is unknown if the batch was carried out."""
        return self in {Sending.SENT, Sending.REPEATED}

    def sent(self) -> Sending:
        """Return the state after a sending, the first one or another."""
        return Sending.REPEATED if self.in_doubt else Sending.SENT

    def refused(self) -> Sending:
        """Return the state after the server answered the last sending with an error."""
        return Sending.REPEATED if self is Sending.REPEATED else Sending.UNSENT

    def answered(self) -> Sending:
        """Return the state after an answer."""
        return Sending.ANSWERED_AGAIN if self is Sending.REPEATED else Sending.ANSWERED


class Delivery:
    """Sends the batches of one owner.

    All methods but `persist` are called by the task of the `Writer`, one at a time.

    Args:
        connection: The connection to the server.
        name: The journal's name, for errors.
        lease: Seconds that a lease lasts; 0 if the session itself shows that the owner is alive.
        patience: Seconds to try for before a request fails.

    Attributes:
        connection: The connection to the server.
        owner: The id under which this journal owns sagas.
        patience: Seconds to try for.
    """

    # Why a batch is carried out once. The server keeps, in the row of the owner, the number of the
    # last batch and its answer, written in the same transaction as the batch itself. It locks that
    # row first, so a second sending waits for a first one that is still running. A batch with the
    # last number gets the kept answer; one with a smaller number is refused. `_batch` only grows,
    # and a new owner has another row: no two batches share a number.

    def __init__(
        self, connection: ServerConnection, name: str, *, lease: float, patience: float
    ) -> None:
        self.connection = connection
        self.patience = patience
        self._name = name
        self._lease = lease
        self.be_new_owner()

    def be_new_owner(self) -> None:
        """Take another id: what was sent before belongs to the old one."""
        self.owner = uuid4().hex
        self._batch = 0
        self._sending = Sending.UNSENT
        self._renewed_at = -math.inf

    @property
    def next_batch(self) -> int:
        """The number of the next batch. The server keeps that of the last one it carried out."""
        return self._batch + 1

    @property
    def in_doubt(self) -> bool:
        """Whether it is unknown if the last batch was carried out."""
        return self._sending.in_doubt

    @property
    def is_stale(self) -> bool:
        """Whether another process may have taken over since the last batch was carried out.

        That is possible if the batch was sent more than once, or if its answer came later than the
        end of the lease that it renewed.
        """
        late = self._lease > 0 and self.since_renewal() >= self._lease
        return late or self._sending is Sending.ANSWERED_AGAIN

    def since_renewal(self) -> float:
        """Return the seconds since the last batch that was answered; infinity if there was none."""
        return _clock() - self._renewed_at

    # Batches.

    async def carry_out(self, steps: list[Step], requests: int) -> list[Any]:
        """Send steps, and return the answer to each of the ``requests`` requests.

        For the joined kinds the answer is whether the request was granted.
        """
        self._batch += 1
        number, self._sending = self._batch, Sending.UNSENT
        bodies: list[object] = [step.body for step in steps]

        async def attempt() -> list[Any]:
            await self.connection.open(self.owner)
            begun = _clock()  # before sending, so that this lease ends before the server's
            self._sending = self._sending.sent()
            try:
                answers = await self.connection.apply(self.owner, number, self._lease, bodies)
            except FAILURES as error:
                if is_answer(error):
                    self._sending = self._sending.refused()
                raise
            self._sending = self._sending.answered()
            self._renewed_at = begun
            return answers

        outcomes: list[Any] = [None] * requests
        for step, answer in zip(steps, await self._until_answered(attempt), strict=True):
            for place in step.places:
                joined = step.body["do"] in JOINED  # answered by the places that are refused
                outcomes[place] = place not in answer if joined else answer
        return outcomes

    async def confirm(self, batch: list[Request], outcomes: list[Any]) -> None:
        """Replace in ``outcomes`` each grant that another process has made untrue.

        This matters where the caller acts on the grant: an effect follows a record, an undo follows
        the record of its attempt. The request is a change without any columns, which the server
        grants if the saga still belongs to this owner. It is repeated until an answer arrives in
        time.

        Raises:
            JournalError: No answer arrived in time; the batch is in doubt.
        """
        places = [
            place
            for place, request in enumerate(batch)
            if outcomes[place] is True and request.kind in {"record", "change"}
        ]
        rows: dict[object, Row] = {}  # one UPDATE changes each row only once
        for n in places:
            given = batch[n].rows[0]
            key = {name: given[name] for name in ("id", "saga", "epoch") if name in given}
            _ = rows.setdefault(key["id"], {"n": n, "epoch": 1} | key)
        step = Step({"do": "change", "rows": list(rows.values())}, places)
        deadline = self.deadline()
        while places and self.is_stale:
            try:
                self.check_in_time(deadline)
                again = await self.carry_out([step], len(batch))
            except BaseException:
                self._sending = (
                    Sending.SENT
                )  # the batch is on record, without its caller's knowledge
                raise
            for place in places:
                first = rows[batch[place].rows[0]["id"]]["n"]
                assert isinstance(first, int)
                outcomes[place] = again[first]

    def deadline(self) -> float:
        """Return the time on the loop's clock at which the patience ends that begins now."""
        return asyncio.get_running_loop().time() + self.patience

    def check_in_time(self, deadline: float) -> None:
        """Raise `JournalUnavailable` after the deadline: the server is too slow for the lease."""
        if asyncio.get_running_loop().time() > deadline:
            reason = "answers come too late: the lease has ended before"
            raise JournalUnavailable(self._name, reason)

    async def leave(self) -> None:
        """Release all sagas of this owner, if the server can be reached; end the connection."""
        self._batch += 1

        async def leave() -> None:
            if self._lease:  # otherwise other processes would have to wait for the lease to end
                await self.connection.open(self.owner)
            if self.connection.is_open:
                steps: list[object] = [{"do": "leave"}]
                _ = await self.connection.apply(self.owner, self._batch, self._lease, steps)

        with contextlib.suppress(*FAILURES, JournalError):
            if self.connection.is_open or self._renewed_at > -math.inf:
                await self._until_answered(leave)
        with contextlib.suppress(asyncio.CancelledError):
            await self.connection.close()
        self.connection.drop()

    # Attempts.

    async def _until_answered(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until there is an answer, even if the task is cancelled.

        The task works for many callers. Only a loop that is being shut down cancels it, and
        rollbacks still need the journal then.
        """

        async def once() -> T:
            try:
                return await attempt()
            except FAILURES as error:
                if ends(error):
                    self.connection.drop()  # it may be broken without having noticed
                raise

        while True:
            try:
                return await self.persist(once)
            except asyncio.CancelledError:
                # In the middle of a statement. The next attempt finds out what the statement did.
                self.connection.drop()

    async def persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until there is an answer, or the patience ends."""
        deadline = self.deadline()
        delay, longest = _BACK_OFF
        while True:
            try:
                return await attempt()
            except FAILURES as error:
                if not passes(error) or asyncio.get_running_loop().time() + delay > deadline:
                    raise
            await asyncio.sleep(delay)
            delay = min(2 * delay, longest)


def _clock() -> float:
    """Return real seconds, including those in which the machine was suspended.

    Leases run on the server's time. The loop's clock may be virtual, and most clocks stop while the
    machine sleeps.
    """
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
