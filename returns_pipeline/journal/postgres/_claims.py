"""`Claims`: takes over the sagas of dead owners, a few at a time, and returns them one by one.

A recovery requests one saga after the other. A transaction for each would cost more than most
undos, so a claim takes over some in advance: one at first, then twice as many each time they were
used up quickly. A saga that is not requested within a second is released: while one undo takes
long, other recoverers must not wait for sagas that are not being worked on.
"""

from __future__ import annotations

import asyncio
import collections
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from returns_pipeline.compensation.protocol import StoredSaga
from returns_pipeline.journal._face import fenced
from returns_pipeline.journal.postgres._ledger import Ledger
from returns_pipeline.journal.postgres._requests import Request, Row, log_failure
from returns_pipeline.journal.postgres._rows import saga_of
from returns_pipeline.journal.postgres._writer import Writer

__all__ = ["Claims"]

# The most sagas that one claim takes over.
_MOST: Final = 64
# If the sagas of a claim are used up within this time, in seconds, the next takes twice as many.
_QUICK: Final = 0.5
# Seconds after which sagas that were not requested are released.
_IDLE: Final = 1.0


class Claims:
    """Claims and releases sagas for one journal.

    A saga that was claimed in advance is in the ledger like any other claimed saga: its lease is
    renewed, and closing the journal releases it.

    Args:
        name: The journal's name, for errors.
        ledger: The journal's ledger.
        writer: The journal's writer.
        retention: Seconds that an undone action stays listed.
    """

    def __init__(self, name: str, ledger: Ledger, writer: Writer, retention: float) -> None:
        self.retention = retention
        self._name = name
        self._ledger = ledger
        self._writer = writer
        self._ahead: collections.deque[StoredSaga] = collections.deque()  # the newest first
        self._size = 1
        self._claimed_at = -math.inf  # on the loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._releasing: set[str] = set()  # sagas whose release was requested and not answered
        self._turn = asyncio.Lock()  # one claim at a time: the next uses what the last one found

    def reset(self) -> None:
        """Forget the sagas claimed in advance: the journal is closed, and has released them."""
        self._ahead.clear()
        self._releasing.clear()
        self._turn = asyncio.Lock()  # the old one belongs to the loop in which a task waited for it
        self._size, self._claimed_at = 1, -math.inf
        self._stop_timer()

    async def next(
        self, besides: AbstractSet[str], known: Mapping[str, int] | None
    ) -> StoredSaga | None:
        """Claim and return the newest saga of a dead owner: see `RecoverableJournal.claim`."""
        async with self._turn:
            return await self._next(besides, known)

    async def _next(
        self, besides: AbstractSet[str], known: Mapping[str, int] | None
    ) -> StoredSaga | None:
        self._stop_timer()
        while self._ahead:
            stored = self._ahead.popleft()
            if stored.id in besides:
                _ = self.send_release(stored.id)
            elif stored.id in self._ledger.sagas:  # and was not taken over or released since
                self._start_timer()
                return stored
        found = await self._claim(besides, known)
        if not found:
            return None
        self._ahead.extend(found[1:])
        self._start_timer()
        return found[0]

    async def _claim(
        self, besides: AbstractSet[str], known: Mapping[str, int] | None
    ) -> list[StoredSaga]:
        now = asyncio.get_running_loop().time()
        self._size = min(2 * self._size, _MOST) if now - self._claimed_at < _QUICK else 1
        self._claimed_at = now
        # Excluded are all sagas in the ledger. If another process has taken one of them over, a
        # scope here may still rely on it and must get `LeaseLost` first. Sagas that are being
        # released are not excluded: they are free when this request is carried out.
        held = self._ledger.sagas.keys() - self._releasing
        others = dict.fromkeys(besides | held, 1)
        row: Row = {"besides": others, "retention": self.retention, "limit": self._size}
        row["known"] = known
        found: list[StoredSaga] = await self._writer.ask(
            "claim", [row], self._claimed, on_orphaned=self._orphaned
        )
        return found

    def _claimed(self, answer: dict[str, Any]) -> list[StoredSaga]:
        for saga in answer["dropped"]:
            self._ledger.discard(saga)
        claimed: list[StoredSaga] = []
        for found in answer["found"]:
            stored = saga_of(found, alive=True)
            self._ledger.claimed(stored, found["epoch"])
            claimed.append(stored)
        return claimed

    def _orphaned(self, claimed: list[StoredSaga]) -> None:
        """Release sagas that were claimed for a caller that was cancelled."""
        ours = [stored.id for stored in claimed if stored.id in self._ledger.sagas]
        for saga in ours:
            self._ledger.discard(saga)
        if ours:  # and the journal was not closed meanwhile
            self._ledger.orphan()
            self._writer.reconnect()

    async def release(self, saga: str) -> None:
        """Allow other processes to claim a saga; raise `LeaseLost` if one has done so."""
        await self._writer.wait(self.send_release(saga))

    def send_release(self, saga: str) -> Request:
        """Request that other processes may claim a saga. This does not wait.

        When the request is carried out, the saga leaves the ledger. It also does if the request
        fails; the next batch that succeeds then releases the saga.
        """
        held = self._ledger.sagas.get(saga)
        if held is None:
            raise fenced(self._name, saga)

        def released(found: object) -> None:
            self._releasing.discard(saga)
            was_ours = self._ledger.sagas.get(saga) is held  # else it was requested twice
            self._ledger.discard(saga)
            if was_ours and not found:
                raise fenced(self._name, saga)

        def failed() -> None:
            self._releasing.discard(saga)
            self._ledger.discard(saga)

        row: Row = {"saga": saga, "epoch": held.epoch}
        request = self._writer.send("release", [row], released, failed, saga=saga)
        self._releasing.add(saga)
        return request

    # Sagas that were claimed in advance and not requested yet.

    def _start_timer(self) -> None:
        if self._ahead:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_IDLE, self._release_ahead)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _release_ahead(self) -> None:
        self._timer = None
        self._size = 1
        while self._ahead:
            saga = self._ahead.pop().id
            if saga in self._ledger.sagas:
                self.send_release(saga).future.add_done_callback(log_failure)
