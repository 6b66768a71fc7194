"""The tools of the cases of the journal contract: processes, sagas and checks."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias
from uuid import uuid4

from returns_pipeline.compensation import Compensation, CompensationRegistry
from returns_pipeline.compensation.protocol import (
    DurableJournal,
    Intent,
    RecoveryReport,
    StoredAction,
    StoredSaga,
)
from returns_pipeline.errors import JournalError
from returns_pipeline.journal import recover

__all__ = [
    "ODD",
    "UNSTORABLE",
    "Check",
    "Harness",
    "cancelled_after",
    "case",
    "expect",
    "name_of",
    "names_in",
    "refused",
    "states_of",
    "together",
]

# Text that careless quoting, encoding or formatting would change.
ODD: Final = "naïve “quotes” '; DROP TABLE action; -- \\ % {x} ☃ 🐍 \u202eright-to-left\n\ttab"
# Text that not every store can hold.
UNSTORABLE: Final = "half a pair \ud800 and \0 a zero"


class Harness:
    """The journals, sagas and undo action of one case.

    A journal object represents a process, and closing it the end of that process. A case sees only
    the sagas that it made itself: the store may have others, of earlier cases or of other programs.

    Attributes:
        sagas: The ids of the sagas of this case.
        undone: The names that the undo action was called with, in order.
        registry: Holds the undo action, and those that a case adds.
        undo: Appends its name to ``undone``.
    """

    def __init__(
        self,
        factory: Callable[[], DurableJournal],
        evict: Callable[[Any], Awaitable[object]] | None,
    ) -> None:
        self._factory = factory
        self._evict = evict
        self._processes: list[DurableJournal] = []
        self._reader: DurableJournal | None = None
        self._recorded = 0
        self.sagas: set[str] = set()
        self.undone: list[str] = []
        self.registry: CompensationRegistry = CompensationRegistry()
        self.undo: Compensation[[str]] = self.registry.compensation("note")(self._note)

    async def _note(self, name: str) -> None:
        self.undone.append(name)

    def process(self) -> DurableJournal:
        """Return a new journal object."""
        self._processes.append(self._factory())
        return self._processes[-1]

    async def evict(self, journal: DurableJournal) -> None:
        """Make the others believe that this process is dead."""
        assert self._evict is not None
        _ = await self._evict(journal)

    def intent(
        self, saga: str, name: str = "x", *, undo: Compensation[...] | None = None, **other: Any
    ) -> Intent:
        """Make an action to be recorded, newer than all that this case has made before."""
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
        """Record actions, one after the other; return their ids."""
        intents = [self.intent(saga, name) for name in names]
        for intent in intents:
            await journal.record(intent)
        return [intent.id for intent in intents]

    async def dead(self, *names: str) -> str:
        """Record a saga in a process that ends at once; return its id."""
        saga, journal = uuid4().hex, self.process()
        _ = await self.record(journal, saga, *names)
        await journal.close()
        return saga

    async def listed(self, *, done: bool = True) -> list[StoredSaga]:
        """Return the sagas of this case, as another process sees them."""
        if self._reader is None:
            self._reader = self.process()
        return [saga for saga in await self._reader.sagas(done=done) if saga.id in self.sagas]

    async def found(self, saga: str) -> StoredSaga | None:
        """Return a saga as another process sees it; `None` if it is not on record."""
        return next((found for found in await self.listed() if found.id == saga), None)

    async def stored(self, saga: str) -> StoredSaga:
        """Return a saga that must be on record."""
        found = await self.found(saga)
        if found is None:
            raise AssertionError(f"saga {saga} is not on record any more")
        return found

    async def names(self, saga: str) -> list[str]:
        """Return the names of a saga's actions, as another process sees them."""
        found = await self.found(saga)
        return [] if found is None else names_in(found)

    async def claim(
        self,
        journal: DurableJournal,
        *,
        besides: Iterable[str] = (),
        known: Mapping[str, int] | None = None,
    ) -> list[str]:
        """Claim all sagas that can be claimed; return those of this case, in order."""
        seen, mine = set(besides), list[str]()
        while (saga := await journal.claim(besides=seen, known=known)) is not None:
            seen.add(saga.id)
            if saga.id in self.sagas:
                mine.append(saga.id)
            else:
                await journal.release(saga.id)
        return mine

    async def recover(self) -> list[RecoveryReport]:
        """Recover, in a process of its own; return the reports on the sagas of this case."""
        reports = await recover(self.process(), self.registry)
        return [report for report in reports if report.saga in self.sagas]

    async def end(self, timeout: float) -> None:
        """Close all journals, and leave nothing to be undone, as far as that is possible."""
        # A journal that fails here has failed its case already, or fails the next one.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(timeout):
                for journal in self._processes:
                    with contextlib.suppress(Exception):
                        await journal.close()
                sweeper = self._factory()
                try:
                    for saga in await self.claim(sweeper):
                        for action in await self._open_actions(sweeper, saga):
                            await sweeper.mark(action.id).done()
                finally:
                    await sweeper.close()

    async def _open_actions(self, journal: DurableJournal, saga: str) -> list[StoredAction]:
        return [
            action
            for found in await journal.sagas()
            for action in found.actions
            if found.id == saga and action.state != "done"
        ]


Check: TypeAlias = Callable[[Harness], Awaitable[None]]


def case(cases: dict[str, Check], claim: str) -> Callable[[Check], Check]:
    """Add the decorated check to the cases, under the claim that it checks."""

    def add(check: Check) -> Check:
        cases[claim] = check
        return check

    return add


def expect(what: str, seen: object, wanted: object) -> None:
    """Raise `AssertionError` unless both are equal."""
    if seen != wanted:
        raise AssertionError(f"{what}: expected {_shortened(wanted)}, saw {_shortened(seen)}")


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}... ({len(text)} characters)"


async def refused(
    what: str, request: Awaitable[object], kind: type[JournalError] = JournalError
) -> None:
    """Raise `AssertionError` unless the request raises such an error."""
    try:
        answer = await request
    except kind:
        return
    except Exception as error:
        raise AssertionError(f"{what}: expected {kind.__name__}, saw {error!r}") from error
    raise AssertionError(f"{what}: expected {kind.__name__}, but it returned {answer!r}")


async def together(requests: Iterable[Awaitable[object]]) -> list[object]:
    """Make the requests at the same time; return their answers and errors in order."""
    return list(await asyncio.gather(*requests, return_exceptions=True))


def names_in(saga: StoredSaga) -> list[str]:
    """Return the names of the actions, as `Harness.intent` made them."""
    return [name_of(action) for action in saga.actions]


def name_of(action: StoredAction) -> str:
    """Return the name that `Harness.intent` gave the action."""
    return action.arguments.removeprefix('{"name": "').removesuffix('"}')


def states_of(saga: StoredSaga | None) -> list[tuple[str, str]]:
    """Return the name and state of each action."""
    return [] if saga is None else [(name_of(action), action.state) for action in saga.actions]


async def cancelled_after(turns: int, request: Awaitable[object]) -> object:
    """Begin a request and cancel it after some turns of the loop; return its answer, if any."""
    task = asyncio.ensure_future(request)
    for _ in range(turns):
        await asyncio.sleep(0)
    _ = task.cancel()
    _ = await asyncio.wait({task})
    return None if task.cancelled() else task.result()
