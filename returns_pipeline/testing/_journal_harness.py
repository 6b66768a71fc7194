"""What the checks of a journal are made of: processes that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from returns_pipeline.compensation import CompensationRegistry
from returns_pipeline.compensation.protocol import DurableJournal, Intent
from returns_pipeline.errors import JournalError
from returns_pipeline.journal import recover

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from returns_pipeline.compensation import Compensation
    from returns_pipeline.compensation.protocol import RecoveryReport, StoredAction, StoredSaga

__all__ = ["Trial"]


class Trial:
    """What a check has to work with: processes, sagas of its own, and an undo that takes notes."""

    def __init__(
        self,
        factory: Callable[[], DurableJournal],
        silence: Callable[[Any], Awaitable[object]] | None,
    ) -> None:
        self._factory = factory
        self._silence = silence
        self._processes: list[DurableJournal] = []
        self._reader: DurableJournal | None = None
        self._recorded = 0
        self.sagas: set[str] = set()  # of this check
        self.undone: list[str] = []
        self.registry: CompensationRegistry = CompensationRegistry()
        self.undo: Compensation[[str]] = self.registry.compensation("note")(self._note)

    async def _note(self, name: str) -> None:
        self.undone.append(name)

    def process(self) -> DurableJournal:
        """Give a journal object of its own."""
        self._processes.append(self._factory())
        return self._processes[-1]

    async def silence(self, journal: DurableJournal) -> None:
        """Make others take it for dead."""
        assert self._silence is not None
        _ = await self._silence(journal)

    def intent(
        self, saga: str, name: str = "x", *, undo: Compensation[...] | None = None, **other: Any
    ) -> Intent:
        """Make something to be recorded, behind all that this check has made before."""
        self.sagas.add(saga)
        self._recorded += 1
        made = Intent(
            id=uuid4().hex,
            saga=saga,
            saga_name="check",
            position=f"{self._recorded:016d}",
            path="check/part",
            key=uuid4().hex,
            undo=undo or self.undo,
            args=(name,),
            kwargs={},
        )
        return dataclasses.replace(made, **other)

    async def record(self, journal: DurableJournal, saga: str, *names: str) -> list[str]:
        """Put actions on record, one after the other; give their ids."""
        intents = [self.intent(saga, name) for name in names]
        for intent in intents:
            await journal.record(intent)
        return [intent.id for intent in intents]

    async def dead(self, *names: str) -> str:
        """Leave a saga of a process that is no more."""
        saga, journal = uuid4().hex, self.process()
        _ = await self.record(journal, saga, *names)
        await journal.close()
        return saga

    async def listed(self) -> list[StoredSaga]:
        """Give the sagas of this check, as another process sees them."""
        if self._reader is None:
            self._reader = self.process()
        return [saga for saga in await self._reader.sagas() if saga.id in self.sagas]

    async def found(self, saga: str) -> StoredSaga | None:
        """Give a saga as another process sees it."""
        return next((found for found in await self.listed() if found.id == saga), None)

    async def names(self, saga: str) -> list[str]:
        """Give what the actions of a saga were recorded with, as another process sees them."""
        found = await self.found(saga)
        return [] if found is None else names_in(found)

    async def claim(self, journal: DurableJournal, *, besides: Iterable[str] = ()) -> list[str]:
        """Take over all sagas that can be; give those of this check, in order."""
        seen, mine = set(besides), list[str]()
        while (saga := await journal.claim(besides=seen)) is not None:
            seen.add(saga.id)
            if saga.id in self.sagas:
                mine.append(saga.id)
            else:
                await journal.release(saga.id)
        return mine

    async def recover(self) -> list[RecoveryReport]:
        """Undo, in a process of its own, what is left; report on the sagas of this check."""
        reports = await recover(self.process(), self.registry)
        return [report for report in reports if report.saga in self.sagas]

    async def end(self, timeout: float) -> None:
        """Close what is open and leave nothing to be undone, as far as that is possible."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(timeout):
                for journal in self._processes:
                    with contextlib.suppress(Exception):
                        await journal.close()
                sweeper = self._factory()
                try:
                    for saga in await self.claim(sweeper):
                        for action in (await self._opened(sweeper, saga)) or ():
                            await sweeper.mark(action.id).done()
                finally:
                    await sweeper.close()

    async def _opened(self, journal: DurableJournal, saga: str) -> list[StoredAction]:
        return [
            action
            for found in await journal.sagas()
            for action in found.actions
            if found.id == saga and action.state != "done"
        ]


def expect(what: str, seen: object, wanted: object) -> None:
    if seen != wanted:
        raise AssertionError(f"{what}: expected {short(wanted)}, saw {short(seen)}")


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}... ({len(text)} characters)"


async def refused(
    what: str, request: Awaitable[object], kind: type[JournalError] = JournalError
) -> None:
    try:
        given = await request
    except kind:
        return
    except Exception as error:
        raise AssertionError(f"{what}: expected {kind.__name__}, saw {error!r}") from error
    raise AssertionError(f"{what}: expected {kind.__name__}, but it was accepted, giving {given!r}")


async def together(requests: Iterable[Awaitable[object]]) -> list[object]:
    return list(await asyncio.gather(*requests, return_exceptions=True))


def names_in(saga: StoredSaga) -> list[str]:
    return [name_of(action) for action in saga.actions]


def name_of(action: StoredAction) -> str:
    return action.arguments.removeprefix('{"name": "').removesuffix('"}')


def states_of(saga: StoredSaga | None) -> list[tuple[str, str]]:
    return [] if saga is None else [(name_of(action), action.state) for action in saga.actions]


async def cancelled_after(turns: int, request: Awaitable[object]) -> object:
    """Begin a request and cancel it after so many turns of the loop; give its result, if any."""
    task = asyncio.ensure_future(request)
    for _ in range(turns):
        await asyncio.sleep(0)
    _ = task.cancel()
    _ = await asyncio.wait({task})
    return None if task.cancelled() else task.result()
