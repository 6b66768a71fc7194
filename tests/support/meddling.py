"""A journal that answers late, refuses, or has its caller cancelled: at the n-th request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from returns_pipeline.errors import AlreadyCommitted, JournalUnavailable
from returns_pipeline.testing import FaultyJournal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from returns_pipeline.compensation import ActionRecord, Intent
    from returns_pipeline.compensation.protocol import HandledPositions
    from returns_pipeline.testing import DurableJournal


@dataclass
class Meddler:
    """What befalls the requests of scopes. They are numbered from 1, in the order they are made.

    Attributes:
        late: Seconds, by kind of request, that pass before it is passed on, and again after it is
            answered.
        refused: The numbers of the requests that are refused.
        unheard: The numbers of the commits that are carried out, and then refused.
        cancels: The number of the request during which ``cancel`` is called.
        answered: Whether that is after the request was carried out, and not before.
        cancel: Cancels the program.
        count: How many requests there were.
        refusals: The kinds of those that were refused.
    """

    late: Mapping[str, float] = field(default_factory=dict)
    refused: range = range(0)
    unheard: range = range(0)
    cancels: int = 0
    answered: bool = False
    cancel: Callable[[], object] = bool
    count: int = 0
    refusals: set[str] = field(default_factory=set)

    async def around(self, name: str, request: Callable[[], Awaitable[None]]) -> None:
        """Pass a request on, or not."""
        self.count += 1
        number = self.count
        await self._wait(name, here=number == self.cancels and not self.answered)
        if number in self.refused:
            self.refusals.add(name)
            raise JournalUnavailable("meddling", f"{name} is refused")
        await request()
        if name == "forget" and number in self.unheard:
            self.refusals.add("unheard")
            raise JournalUnavailable("meddling", "there is no answer")
        await self._wait(name, here=number == self.cancels and self.answered)

    async def _wait(self, name: str, *, here: bool) -> None:
        if here:
            self.cancel()
        if (seconds := self.late.get(name, 1.0 if here else 0.0)) > 0:
            await asyncio.sleep(seconds)


class MeddlingJournal(FaultyJournal):
    """Passes requests of scopes on to another journal, by way of a `Meddler`."""

    def __init__(self, journal: DurableJournal, meddler: Meddler) -> None:
        super().__init__(journal, bool)
        self._meddler = meddler

    async def record(self, intent: Intent, /) -> None:
        await self._meddler.around("record", lambda: self._journal.record(intent))

    async def forget(
        self, ids: Sequence[str], /, positions: Sequence[HandledPositions] = ()
    ) -> None:
        left = self._uncommitted(ids)
        carried_out = False

        async def request() -> None:
            nonlocal carried_out
            await self._journal.forget(left, positions)
            carried_out = True

        try:
            await self._meddler.around("forget", request)
        except JournalUnavailable:
            if carried_out:
                self._committed.update(ids)
            raise

    async def flush(self) -> None:
        await self._meddler.around("flush", self._journal.flush)

    def mark(self, action: str, /) -> ActionRecord:
        is_committed = action in self._committed
        return _Record(self._journal.mark(action), self._meddler, is_committed=is_committed)


class _Record:
    def __init__(self, record: ActionRecord, meddler: Meddler, *, is_committed: bool) -> None:
        self._record = record
        self._meddler = meddler
        self._is_committed = is_committed

    async def begin(self) -> None:
        await self._meddler.around("begin", self._begin)

    async def _begin(self) -> None:
        if self._is_committed:
            raise AlreadyCommitted("meddling", "the action was committed")
        await self._record.begin()

    async def done(self) -> None:
        await self._meddler.around("done", self._done)

    async def _done(self) -> None:
        await self._record.done()

    async def give_up(self, error: object) -> None:
        await self._meddler.around("give_up", lambda: self._record.give_up(error))
