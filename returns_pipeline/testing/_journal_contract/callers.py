"""Cases of the journal contract: cancelled callers, and the end of a journal."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from returns_pipeline.errors import JournalError
from returns_pipeline.journal import recover
from returns_pipeline.testing._journal_harness import (
    Check,
    Harness,
    cancelled_after,
    case,
    expect,
    states_of,
    together,
)

__all__ = ["CASES"]

CASES: dict[str, Check] = {}


@case(
    CASES, "a cancelled caller harms no other: its request is carried out completely, or not at all"
)
async def _cancelled(harness: Harness) -> None:
    journal = harness.process()
    for turns in range(6):
        saga = uuid4().hex
        intent = harness.intent(saga, "x")
        beside = harness.intent(uuid4().hex, "beside")
        other = asyncio.ensure_future(journal.record(beside))
        _ = await cancelled_after(turns, journal.record(intent))
        await other
        await journal.forget([beside.id])
        try:
            await journal.forget([intent.id])
        except JournalError:
            await journal.flush()
            expect("on record, after a commit was refused", await harness.names(saga), [])
        _ = await cancelled_after(turns, journal.sagas())
    expect("on record", await harness.listed(), [])


@case(CASES, "a cancelled recovery releases what it claimed")
async def _cancelled_recovery(harness: Harness) -> None:
    journal = harness.process()
    _ = await journal.claim(besides=set())  # open it first
    for turns in range(8):
        saga = await harness.dead("x")
        _ = await cancelled_after(turns, recover(journal, harness.registry))
        reports = await harness.recover()
        listed = states_of(await harness.found(saga))
        expect(
            f"states, after {turns} turns of the loop and another recovery", listed, [("x", "done")]
        )
        expect("undone", harness.undone, ["x"])
        harness.undone.clear()
        expect("how often", len(reports), min(len(reports), 1))


@case(
    CASES,
    "an action that was given up can be retried while its owner lives, and recovered by others",
)
async def _retried_alive(harness: Harness) -> None:
    journal, saga = harness.process(), uuid4().hex
    stuck, kept = await harness.record(journal, saga, "stuck", "kept")
    await journal.mark(stuck).begin()
    await journal.mark(stuck).give_up(OSError("poison"))
    person = harness.process()
    expect("retried", await person.retry(saga), 1)
    harness.sagas.update(it.id for it in await person.sagas() for a in it.actions if a.id == stuck)
    reports = await harness.recover()
    done = [name for report in reports for entry in report.done for name in entry.args]
    expect("undone by others", done, ["stuck"])
    await journal.forget([kept])


@case(CASES, "closing twice, or closing a journal that was never used, does nothing")
async def _closed(harness: Harness) -> None:
    unused, journal = harness.process(), harness.process()
    await unused.close()
    await unused.close()
    saga = uuid4().hex
    _ = await harness.record(journal, saga, "x")
    await journal.close()
    await journal.close()
    found = await harness.stored(saga)
    expect("alive", found.alive, False)
    expect("claimed", await harness.claim(harness.process()), [saga])


@case(CASES, "requests that wait when a journal is closed are carried out")
async def _closed_at_work(harness: Harness) -> None:
    journal, sagas = harness.process(), [uuid4().hex for _ in range(20)]
    intents = [harness.intent(saga) for saga in sagas]
    requests = [asyncio.ensure_future(journal.record(intent)) for intent in intents]
    await asyncio.sleep(0)
    await journal.close()
    outcomes = await together(requests)
    wrong = [it for it in outcomes if it is not None and not isinstance(it, JournalError)]
    expect("errors that are none of a journal", wrong, [])
    kept = [saga for saga, outcome in zip(sagas, outcomes, strict=True) if outcome is None]
    claimed = await harness.claim(harness.process())
    expect("claimed, of the sagas reported as recorded", sorted(claimed), sorted(kept))
