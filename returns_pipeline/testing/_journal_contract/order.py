"""Cases of the journal contract: the order in which actions are undone."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from uuid import uuid4

from returns_pipeline.compensation import CompensationScope
from returns_pipeline.compensation.protocol import (
    ActionRecord,
    DurableJournal,
    HandledPositions,
    Intent,
)
from returns_pipeline.errors import JournalError
from returns_pipeline.testing._journal_harness import (
    Check,
    Harness,
    case,
    expect,
    names_in,
)

__all__ = ["CASES"]

CASES: dict[str, Check] = {}


@dataclasses.dataclass
class _Tape:
    """A journal that only records the requests of scopes, to be made to another journal later."""

    calls: list[Callable[[DurableJournal], Awaitable[None]]] = dataclasses.field(
        default_factory=list[Callable[["DurableJournal"], Awaitable[None]]]
    )

    saga: str = ""  # that of the last action

    async def record(self, intent: Intent, /) -> None:
        self.saga = intent.saga
        self.calls.append(lambda journal: journal.record(intent))

    async def forget(
        self, ids: Sequence[str], /, positions: Sequence[HandledPositions] = ()
    ) -> None:
        self.calls.append(lambda journal: journal.forget(ids, positions))

    def forget_later(
        self, ids: Sequence[str], on_lost: Callable[[JournalError], object], /
    ) -> None: ...

    async def flush(self) -> None: ...

    def move(self, ids: Sequence[str], /, *, saga: str, name: str, prefix: str) -> None:
        async def move(journal: DurableJournal) -> None:
            journal.move(ids, saga=saga, name=name, prefix=prefix)

        self.calls.append(move)

    def abandon(self, ids: Sequence[str], /) -> None: ...

    def mark(self, _: str, /) -> ActionRecord:
        return self

    async def begin(self) -> None: ...

    async def done(self) -> None: ...

    async def give_up(self, error: object) -> None: ...


@case(CASES, "actions are returned the last registered first, in whatever order they were recorded")
async def _order(harness: Harness) -> None:
    journal, saga = harness.process(), uuid4().hex
    intents = [harness.intent(saga, str(n)) for n in range(12)]
    for intent in intents[::2] + intents[::-1][::2]:
        await journal.record(intent)
    newest_first = [str(n) for n in reversed(range(12))]
    expect("listed", await harness.names(saga), newest_first)
    await journal.close()
    _ = await harness.recover()
    expect("undone", harness.undone, newest_first)


@case(
    CASES,
    "actions that scopes absorbed are undone in the order in which the scopes would undo them",
)
async def _absorbed(harness: Harness) -> None:
    tape = _Tape()
    root, one, two = (CompensationScope(name, journal=tape) for name in ("root", "one", "two"))
    for scope, name in [(root, "a"), (one, "b"), (two, "c"), (one, "d"), (root, "e")]:
        await scope.register(harness.undo, name)
    three = CompensationScope("three", journal=tape)
    four = three.child("four")
    for scope, name in [(three, "f"), (four, "g"), (two, "h"), (three, "i"), (four, "j")]:
        await scope.register(harness.undo, name)
    root.absorb(two, as_one=True)
    root.absorb(one)
    await root.register(harness.undo, "k")
    three.absorb(four, as_one=True)
    root.absorb(three, as_one=True)
    outer = CompensationScope("outer", journal=tape)
    outer.absorb(root, as_one=True)
    await outer.register(harness.undo, "l")
    _ = await outer.compensate()
    wanted = harness.undone.copy()
    harness.undone.clear()
    journal = harness.process()
    for call in tape.calls:
        await call(journal)
    harness.sagas.add(tape.saga)
    expect("listed", await harness.names(tape.saga), wanted)
    await journal.close()
    reports = await harness.recover()
    expect("undone", harness.undone, wanted)
    expect("together, as", [report.name for report in reports], ["outer"])


@case(
    CASES,
    "a move is carried out in its turn: a later commit finds the actions, and the old saga is gone",
)
async def _move(harness: Harness) -> None:
    journal, old, new = harness.process(), uuid4().hex, uuid4().hex
    ids = await harness.record(journal, old, "a", "b")
    harness.sagas.add(new)
    journal.move(ids[:1], saga=new, name="new", prefix="5.")
    journal.move(ids[1:], saga=new, name="new", prefix="4.")
    (third,) = await harness.record(journal, new, "c")
    (found,) = await harness.listed()
    expect("the saga", (found.id, found.name), (new, "new"))
    positions = sorted([action.position for action in found.actions], reverse=True)
    expect("positions, which sort", [action.position for action in found.actions], positions)
    expect("listed", names_in(found), ["a", "b", "c"])
    journal.move([third], saga=old, name="old", prefix="")
    await journal.forget([third, *ids])
    await journal.flush()
    expect("on record", await harness.listed(), [])
