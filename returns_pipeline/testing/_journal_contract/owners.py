"""Cases of the journal contract: owners that live, die, release a saga, or lose it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import uuid4

from returns_pipeline.compensation.protocol import DurableJournal
from returns_pipeline.errors import JournalError, LeaseLost
from returns_pipeline.testing._journal_harness import (
    Check,
    Harness,
    case,
    expect,
    refused,
    states_of,
)

__all__ = ["CASES", "EVICTED"]

CASES: dict[str, Check] = {}


@case(CASES, "the sagas of a live owner are not taken over")
async def _alive(harness: Harness) -> None:
    journal, saga = harness.process(), uuid4().hex
    ids = await harness.record(journal, saga, "x")
    expect("claimed by another", await harness.claim(harness.process()), [])
    expect("claimed by itself", await harness.claim(journal), [])
    ids += await harness.record(journal, saga, "y")
    await journal.mark(ids[1]).begin()
    await journal.forget(ids)
    await journal.close()


@case(CASES, "the sagas of a dead process are taken over, the newest first")
async def _dead(harness: Harness) -> None:
    sagas = [await harness.dead("x") for _ in range(3)]
    journal = harness.process()
    listed = [(saga.id, saga.alive) for saga in await harness.listed()]
    expect("listed", listed, [(saga, False) for saga in reversed(sagas)])
    skipped = await harness.claim(journal, besides=[sagas[1]])
    expect("claimed, with the second excluded", skipped, [sagas[2], sagas[0]])
    expect("claimed by another", await harness.claim(harness.process()), [sagas[1]])
    owners = {saga.owner for saga in await harness.listed()}
    expect("how many owners there are", len(owners), 2)


@case(CASES, "sagas that a process had claimed are taken over when it dies, too")
async def _dead_again(harness: Harness) -> None:
    saga = await harness.dead("x")
    for attempt in range(3):
        journal = harness.process()
        expect(f"claimed, time {attempt + 1}", await harness.claim(journal), [saga])
        await journal.close()


@case(CASES, "several recoverers share the work")
async def _shared(harness: Harness) -> None:
    both = asyncio.Barrier(2)

    @harness.registry.compensation("meet")
    async def meet(name: str) -> None:
        async with asyncio.timeout(10.0):
            _ = await both.wait()  # there must be two at work
        harness.undone.append(name)

    for _ in range(2):
        journal = harness.process()
        await journal.record(harness.intent(uuid4().hex, undo=meet))
        await journal.close()
    recoverers = [harness.recover() for _ in range(2)]
    reports = await asyncio.gather(*recoverers)
    expect("sagas undone by each", [[len(it.done) for it in own] for own in reports], [[1], [1]])


@case(CASES, "no two recoverers run one action, or two actions of one saga")
async def _exclusive(harness: Harness) -> None:
    running: set[str] = set()
    clashes: list[str] = []

    @harness.registry.compensation("slow")
    async def slow(name: str) -> None:
        saga = name.partition(".")[0]
        if saga in running:
            clashes.append(name)
        running.add(saga)
        for _ in range(3):
            await asyncio.sleep(0)
        running.discard(saga)
        harness.undone.append(name)

    journal = harness.process()
    for n in range(8):
        saga = uuid4().hex
        for k in range(3):
            await journal.record(harness.intent(saga, f"{n}.{k}", undo=slow))
    await journal.close()
    recoverers = [harness.recover() for _ in range(4)]
    _ = await asyncio.gather(*recoverers)
    expect("undone while another of the saga was", clashes, [])
    wanted = sorted(f"{n}.{k}" for n in range(8) for k in range(3))
    expect("undone", sorted(harness.undone), wanted)
    each = [[name for name in harness.undone if name.startswith(f"{n}.")] for n in range(8)]
    expect("the order in each", each, [[f"{n}.{k}" for k in (2, 1, 0)] for n in range(8)])


@case(CASES, "a released saga can be claimed, and nothing about it is lost")
async def _released(harness: Harness) -> None:
    saga = await harness.dead("a", "b")
    journal, other = harness.process(), harness.process()
    expect("claimed", await harness.claim(journal), [saga])
    expect("claimed by another", await harness.claim(other), [])
    await journal.release(saga)
    found = await harness.found(saga)
    expect("alive", found and found.alive, False)
    expect("claimed after the release", await harness.claim(other), [saga])
    expect("states", states_of(await harness.found(saga)), [("b", "pending"), ("a", "pending")])


@case(CASES, "an owner that released a saga, or was closed, gets LeaseLost and changes nothing")
async def _fenced(harness: Harness) -> None:
    first, second, third = harness.process(), harness.process(), harness.process()
    saga = uuid4().hex
    ids = await harness.record(first, saga, "a", "b")
    await first.release(saga)
    expect("claimed", await harness.claim(second), [saga])
    await _check_fenced(harness, first, saga, ids, "the first owner")
    await second.release(saga)
    expect("claimed", await harness.claim(third), [saga])
    await _check_fenced(harness, second, saga, ids, "the second owner")
    await third.close()
    expect("claimed", await harness.claim(harness.process()), [saga])


EVICTED: Final = "an owner that lost its lease unnoticed gets LeaseLost and changes nothing"


@case(CASES, EVICTED)
async def _evicted(harness: Harness) -> None:
    saga, elsewhere = uuid4().hex, uuid4().hex
    first, second = harness.process(), harness.process()
    ids = await harness.record(first, saga, "a", "b")
    await harness.evict(first)
    expect("claimed", await harness.claim(second), [saga])
    await _check_fenced(harness, first, saga, ids, "the owner without a lease")
    kept = harness.intent(elsewhere, "mine")
    with contextlib.suppress(LeaseLost):  # it may be another owner by now
        await first.record(kept)
        await first.forget([kept.id])
    for id_ in reversed(ids):
        await second.mark(id_).done()


async def _check_fenced(
    harness: Harness, zombie: DurableJournal, saga: str, ids: list[str], owner: str
) -> None:
    before = await harness.found(saga)
    mark, target = zombie.mark(ids[0]), uuid4().hex
    harness.sagas.add(target)
    requests: dict[str, Callable[[], Awaitable[object]]] = {
        "record()": lambda: zombie.record(harness.intent(saga, "late")),
        "forget()": lambda: zombie.forget(ids),
        "mark().begin()": mark.begin,
        "mark().done()": mark.done,
        "mark().give_up()": lambda: mark.give_up(OSError("no")),
        "defer()": lambda: zombie.defer(ids[0], "no"),
        "postpone()": lambda: zombie.postpone(ids[0], OSError("no"), 1.0),
        "release()": lambda: zombie.release(saga),
    }
    for what, request in requests.items():
        await refused(f"{what} by {owner}", request(), LeaseLost)
    zombie.move(ids, saga=target, name="stolen", prefix="0.")
    await refused(f"forget() after move() by {owner}", zombie.forget(ids), LeaseLost)
    lost: list[JournalError] = []
    try:
        zombie.forget_later(ids, lost.append)
        await zombie.flush()
    except LeaseLost as error:
        lost.append(error)
    expect(f"the loss of a late commit was reported to {owner}", bool(lost), True)
    expect(f"the saga, after all that {owner} tried", await harness.found(saga), before)
    expect("what it would have moved it to", await harness.found(target), None)
