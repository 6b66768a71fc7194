"""`Delivery`: has the server carry out batches of one owner, each once and in order.

A connection may be lost between a batch and its answer. Then nobody knows whether the batch was
carried out, and it is sent again, with its number, by another connection: the server carries it out
or repeats its answer. `Sending` keeps what is known at each moment.

An answer may also be true no longer. While the connection was lost, or the answer late, another
process may have taken over what the batch was about: see `Delivery.is_stale`.
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
        UNSENT: The server did nothing: it has not got the batch, or has refused it.
        SENT: The batch was sent once, and there is no answer: it is *in doubt*.
        REPEATED: It was sent more than once, and there is no answer. It is in doubt even if the
            server refuses it now: an earlier sending may have been carried out.
        ANSWERED: It was carried out, and the answer is new.
        ANSWERED_AGAIN: It was carried out; perhaps long ago, and by a connection that was lost.
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
        """Return the state once the batch was sent, for the first time or again."""
        return Sending.REPEATED if self.in_doubt else Sending.SENT

    def refused(self) -> Sending:
        """Return the state after an error that is the server's answer to the last sending."""
        return Sending.REPEATED if self is Sending.REPEATED else Sending.UNSENT

    def answered(self) -> Sending:
        """Return the state after an answer."""
        return Sending.ANSWERED_AGAIN if self is Sending.REPEATED else Sending.ANSWERED


class Delivery:
    """Delivers the batches of one owner.

    All of it is called by the task of the `Writer`, one call at a time, save `persist`.

    Args:
        connection: The way to the server.
        name: The journal's name, for errors.
        lease: Seconds that a sign of life is good for; 0 if the session itself is the sign.
        patience: Seconds to try for, before a request fails.

    Attributes:
        connection: The way to the server.
        owner: The id under which this journal owns sagas.
        patience: Seconds to try for.
    """

    def __init__(
        self, connection: ServerConnection, name: str, *, lease: float, patience: float
    ) -> None:
        self.connection = connection
        self.patience = patience
        self._name = name
        self._lease = lease
        self.be_new_owner()

    def be_new_owner(self) -> None:
        """Have another id from now on, and nothing to do with what was sent before."""
        self.owner = uuid4().hex
        self._batch = 0
        self._sending = Sending.UNSENT
        self._renewed_at = -math.inf

    @property
    def in_doubt(self) -> bool:
        """Whether it is unknown if the last batch was carried out."""
        return self._sending.in_doubt

    @property
    def is_stale(self) -> bool:
        """Whether another process may have taken over since the last batch was carried out.

        That is so if the answer came by another connection than the batch went by; or later than
        the lease that the batch renewed.
        """
        late = self._lease > 0 and self.since_renewal() >= self._lease
        return late or self._sending is Sending.ANSWERED_AGAIN

    def since_renewal(self) -> float:
        """Return for how many seconds there was no sign of life; infinity if there was none yet."""
        return _clock() - self._renewed_at

    # Batches.

    async def carry_out(self, steps: list[Step], requests: int) -> list[Any]:
        """Have steps carried out, and return the answer to each of so many requests.

        For the joined kinds it is whether the request was granted.
        """
        self._batch += 1
        number, self._sending = self._batch, Sending.UNSENT
        bodies: list[object] = [step.body for step in steps]

        async def attempt() -> list[Any]:
            await self.connection.open(self.owner)
            begun = _clock()  # before: the server counts the lease from when it has the batch
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
        """Withdraw from ``outcomes`` what was granted and is not so any more.

        It matters where the caller does something next: an effect after a record, an undo after the
        note that an attempt begins. A change that changes nothing asks whether the saga is still
        this owner's, until the answer comes in time.

        Raises:
            JournalError: It cannot be known; what was carried out is in doubt.
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
        """Return when the patience ends that begins now, on the loop's clock."""
        return asyncio.get_running_loop().time() + self.patience

    def check_in_time(self, deadline: float) -> None:
        """Raise `JournalUnavailable` after the deadline: the server is too slow for the lease."""
        if asyncio.get_running_loop().time() > deadline:
            reason = "answers come too late: the lease has ended before"
            raise JournalUnavailable(self._name, reason)

    async def leave(self) -> None:
        """Release everything of this owner, if the server can be told, and end the connection."""
        self._batch += 1

        async def leave() -> None:
            if self._lease:  # without a word the others would have to wait for its end
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
        """Try until there is an answer, also through cancellations of the task.

        The task works for many callers: only a loop that ends cancels it, and a rollback still
        needs the journal then.
        """

        async def once() -> T:
            try:
                return await attempt()
            except FAILURES as error:
                if ends(error):
                    self.connection.drop()  # it may be broken without knowing it
                raise

        while True:
            try:
                return await self.persist(once)
            except asyncio.CancelledError:
                # In the middle of a statement: what it did is found out by another connection.
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
    """Return real seconds, those included in which the machine was suspended.

    Leases run on the server's time: neither the loop's clock, which may be virtual, nor one that
    stops with the machine will do.
    """
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
