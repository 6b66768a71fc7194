"""Cases of the journal contract: recording, committing, and what is stored of an action."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import math
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

from returns_pipeline.compensation import current_key
from returns_pipeline.errors import JournalError
from returns_pipeline.testing._journal_harness import (
    ODD,
    UNSTORABLE,
    Check,
    Harness,
    case,
    expect,
    names_in,
    refused,
    states_of,
    together,
)

# Actions of a large saga.
MANY = 2_000

__all__ = ["CASES"]

CASES: dict[str, Check] = {}


@case(CASES, "an action is on record, with all its data, before record() returns")
async def _record(harness: Harness) -> None:
    journal, saga = harness.process(), uuid4().hex
    intent = harness.intent(saga, "first", saga_name="job", path="job/part")
    before = time.time()
    await journal.record(intent)
    found = await harness.found(saga)
    if found is None:
        raise AssertionError("another process does not see what record() has returned from")
    expect("the saga's name", found.name, "job")
    expect("its owner is alive", (found.alive, found.owner != ""), (True, True))
    if not before - 3600 < found.began < time.time() + 3600:
        raise AssertionError(f"it began at {found.began!r}, which is not now: {before!r}")
    (action,) = found.actions
    seen = dataclasses.asdict(action)
    wanted = {
        "id": intent.id,
        "position": intent.position,
        "path": "job/part",
        "key": intent.key,
        "name": "note",
        "version": 1,
        "arguments": '{"name": "first"}',
        "state": "pending",
        "attempts": 0,
        "next_attempt": 0.0,
        "error": "",
    }
    expect("the action", seen, wanted)
    await journal.forget([intent.id])


@case(CASES, "an id is recorded once")
async def _duplicate(harness: Harness) -> None:
    journal, saga = harness.process(), uuid4().hex
    intent = harness.intent(saga, "first")
    await journal.record(intent)
    again = dataclasses.replace(intent, args=("second",), position="9")
    await refused("a second action of the same id", journal.record(again))
    elsewhere = dataclasses.replace(again, saga=uuid4().hex)
    await refused("one in another saga", journal.record(elsewhere))
    await refused("one of another process", harness.process().record(elsewhere))
    expect("on record", await harness.names(saga), ["first"])
    await journal.forget([intent.id])


@case(CASES, "a committed action is gone, and so is a saga without actions")
async def _forget(harness: Harness) -> None:
    journal, saga = harness.process(), uuid4().hex
    first, second = await harness.record(journal, saga, "first", "second")
    await journal.forget([first])
    await journal.flush()
    expect("on record", await harness.names(saga), ["second"])
    await journal.forget([second])
    await journal.flush()
    expect("the saga", await harness.found(saga), None)
    await journal.forget([])
    (third,) = await harness.record(journal, saga, "third")
    expect("on record in the same saga, later", await harness.names(saga), ["third"])
    await journal.forget([third])
    await journal.close()
    expect("to be undone", await harness.claim(harness.process()), [])


@case(CASES, "a commit that is left to the journal is written soon, without what is not open")
async def _forget_later(harness: Harness) -> None:
    journal, one, other = harness.process(), uuid4().hex, uuid4().hex
    ids = await harness.record(journal, one, "a", "b", "c")
    ids += await harness.record(journal, other, "d")
    await journal.mark(ids[2]).done()
    lost: list[JournalError] = []
    journal.forget_later([uuid4().hex, ids[0], ids[2], ids[3]], lost.append)
    await journal.flush()
    expect("the saga", states_of(await harness.found(one)), [("c", "done"), ("b", "pending")])
    expect("the other saga", await harness.found(other), None)
    journal.forget_later(ids, lost.append)
    await journal.close()
    expect("the lost commits", lost, [])
    _ = await harness.recover()
    expect("undone after a close", harness.undone, [])


@case(CASES, "a commit is all or nothing")
async def _all_or_nothing(harness: Harness) -> None:
    journal, one, other = harness.process(), uuid4().hex, uuid4().hex
    ids = await harness.record(journal, one, "a", "b")
    ids += await harness.record(journal, other, "c")
    await refused("a commit with an unknown id", journal.forget([*ids, uuid4().hex]))
    await refused("a commit with an unknown id in front", journal.forget([uuid4().hex, *ids]))
    await journal.flush()
    seen = await harness.names(one) + await harness.names(other)
    expect("on record after a commit that was refused", seen, ["b", "a", "c"])
    await journal.forget(ids)
    await journal.flush()
    expect("on record after one over two sagas", await harness.listed(), [])


@case(CASES, "an id that does not exist is refused, and nothing changes")
async def _unknown(harness: Harness) -> None:
    journal, saga = harness.process(), uuid4().hex
    (id_,) = await harness.record(journal, saga, "x")
    nobody = uuid4().hex
    mark = journal.mark(nobody)
    requests: dict[str, Callable[[], Awaitable[object]]] = {
        "forget()": lambda: journal.forget([nobody]),
        "mark().begin()": mark.begin,
        "mark().done()": mark.done,
        "mark().give_up()": lambda: mark.give_up(OSError("no")),
        "defer()": lambda: journal.defer(nobody, "no"),
        "postpone()": lambda: journal.postpone(nobody, OSError("no"), 1.0),
        "release()": lambda: journal.release(nobody),
    }
    for what, request in requests.items():
        await refused(f"{what} of an unknown id", request())
    expect("retry() of an unknown saga", await journal.retry(nobody), 0)
    expect("discard() of an unknown saga", await journal.discard(nobody, "no"), 0)
    expect("the action", states_of(await harness.found(saga)), [("x", "pending")])
    await journal.forget([id_])


@case(CASES, "of requests made together, one that is refused does not fail the others")
async def _group(harness: Harness) -> None:
    journal = harness.process()
    taken = harness.intent(uuid4().hex, "taken")
    await journal.record(taken)
    intents = [harness.intent(uuid4().hex, str(n)) for n in range(60)]
    intents[30] = dataclasses.replace(taken, saga=intents[30].saga)
    outcomes = await together(journal.record(intent) for intent in intents)
    refused = [n for n, outcome in enumerate(outcomes) if outcome is not None]
    expect("which of 60 were refused", refused, [30])
    expect("how", isinstance(outcomes[30], JournalError), True)
    listed = {saga.id for saga in await harness.listed()}
    expect("on record", len(listed), 60)
    good = [[intent.id] for intent in intents if intent.id != taken.id]
    good[30:30] = [[taken.id, uuid4().hex]]
    outcomes = await together(journal.forget(ids) for ids in good)
    refused = [n for n, outcome in enumerate(outcomes) if outcome is not None]
    expect("which of 60 commits were refused", refused, [30])
    await journal.flush()
    expect("on record", [saga.id for saga in await harness.listed()], [taken.saga])
    await journal.forget([taken.id])


@case(CASES, "a saga may have thousands of actions")
async def _big(harness: Harness) -> None:
    journal, saga = harness.process(), uuid4().hex
    intents = [harness.intent(saga, str(n)) for n in range(MANY)]
    outcomes = await together(journal.record(intent) for intent in intents)
    expect("refused", [outcome for outcome in outcomes if outcome is not None], [])
    newest_first = [str(n) for n in reversed(range(MANY))]
    expect("on record", await harness.names(saga), newest_first)
    await journal.close()
    journal = harness.process()
    claimed = await journal.claim(besides=set())
    expect("claimed", None if claimed is None else names_in(claimed), newest_first)
    ids = [intent.id for intent in intents]
    await refused("a commit of all and one more", journal.forget([*ids, uuid4().hex]))
    expect("on record after it", len(await harness.names(saga)), MANY)
    await journal.forget(ids)
    await journal.flush()
    expect("on record after the commit", await harness.names(saga), [])


@case(
    CASES,
    "names are any text; one that cannot be stored is refused or escaped, and harms no other",
)
async def _unicode(harness: Harness) -> None:
    journal, saga = harness.process(), uuid4().hex
    undo = harness.registry.compensation(ODD)(harness.undo.func)
    fair = harness.intent(saga, undo=undo, saga_name=ODD, path=f"{ODD}/{ODD}", args=(ODD,))
    await journal.record(fair)
    found = await harness.found(saga)
    seen = found and (found.name, found.actions[0].path, found.actions[0].name)
    expect("names", seen, (ODD, f"{ODD}/{ODD}", ODD))
    odd = [
        harness.intent(uuid4().hex, saga_name=UNSTORABLE),
        harness.intent(uuid4().hex, path=UNSTORABLE),
        harness.intent(uuid4().hex, args=(UNSTORABLE,)),
        harness.intent(uuid4().hex, "fine"),
    ]
    outcomes = await together(journal.record(intent) for intent in odd)
    wrong = [it for it in outcomes if it is not None and not isinstance(it, JournalError)]
    expect("errors that are none of a journal", wrong, [])
    expect("what came along with them", outcomes[-1], None)
    kept = [it.saga for it, outcome in zip(odd, outcomes, strict=True) if outcome is None]
    expect("on record", {s.id for s in await harness.listed()}, {saga, *kept})
    await journal.close()
    reports = await harness.recover()
    expect("undone", {report.saga for report in reports if report.done}, {saga, *kept})
    expect("the oldest with", harness.undone[-1], ODD)


class _Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class _Point:
    x: float
    seen: datetime.datetime
    colours: tuple[_Colour, ...]


@case(
    CASES,
    "an undo is called with arguments equal to those it was registered with, and the same key",
)
async def _arguments(harness: Harness) -> None:
    called: list[tuple[object, ...]] = []

    @harness.registry.compensation("arguments")
    async def undo(
        n: int,
        price: decimal.Decimal,
        point: _Point,
        raw: bytes,
        deep: dict[str, list[float | None]],
        *,
        text: str,
    ) -> None:
        called.append((n, price, point, raw, deep, text, current_key()))

    now = datetime.datetime.now(datetime.UTC)
    values = (
        2**63 - 1,
        decimal.Decimal("12345678901234567890.10"),
        _Point(-0.1, now, (_Colour.RED,)),
        bytes(range(256)),
        {ODD: [1e-300, None, math.inf], "": []},
    )
    intent = harness.intent(uuid4().hex, undo=undo, args=values, kwargs={"text": ODD * 50})
    journal = harness.process()
    await journal.record(intent)
    await journal.close()
    (report,) = await harness.recover()
    expect("stuck", report.stuck, ())
    expect("called with", called, [(*values, ODD * 50, intent.key)])
