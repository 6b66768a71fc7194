# mypy: disable-error-code="unused-awaitable, unused-coroutine"
# pyright: reportUnusedCoroutine=false
"""Never run. What the checkers say of the tools for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, assert_type

from returns.io import IOResult

from returns_pipeline.connectors import Driver, Sender
from returns_pipeline.journal import SqliteJournal, StoredSaga
from returns_pipeline.testing import (
    Deadlock,
    DurableJournal,
    FaultInjector,
    FaultyJournal,
    LeakedTasks,
    MemoryBroker,
    PublisherQueue,
    QueueUnderTest,
    Scripted,
    ScriptError,
    VirtualTimeLoop,
    Wait,
    advance,
    check_connector,
    check_journal,
    check_publisher,
    inject_everywhere,
    pause_clock,
    run,
    script,
    timed,
    timeline,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

    from returns.future import FutureResult


async def work(n: int) -> str:
    return str(n)


async def scenario(faults: FaultInjector) -> None:
    assert_type(await faults.run(work(1)), str)
    await faults.point("here")
    assert_type(faults.fired, bool)
    assert_type(faults.where, str)
    faults.run(work)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    faults.point(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def broker(driver: Driver) -> None:
    """A broker in memory has drivers like any other."""
    memory = MemoryBroker(4, shared=True, redeliver_after=timedelta(minutes=1))
    assert_type(memory.publish(b"a", b"b", key=b"k", headers={"h": "v"}), None)
    assert_type(memory.driver("group"), Driver)
    assert_type(memory.backlog("group"), int)
    assert_type(memory.disconnect(), None)
    assert_type(memory.stop(), None)
    assert_type(memory.start(), None)
    assert_type(memory.evict(driver), None)
    assert_type(memory.forget_acks("group", 2), None)
    MemoryBroker("4")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    memory.publish("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    memory.driver()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    memory.backlog(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    memory.disconnect(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    memory.stop(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    memory.start(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    memory.evict(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    memory.forget_acks("group", "2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def conformance(queue: QueueUnderTest, log: SqliteJournal) -> None:
    """The factory makes a queue, and `disconnect` takes one."""

    async def make() -> QueueUnderTest:
        return queue

    async def cut(broken: QueueUnderTest) -> None:
        del broken

    assert_type(queue.driver(), Driver)
    assert_type(await queue.publish([b"a"]), None)
    assert_type(await queue.remove(), None)
    assert_type(await check_connector(make, disconnect=cut, patience=5), None)
    check_connector(queue)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(MemoryBroker().sender(), Sender)
    MemoryBroker().sender("a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    wrong: QueueUnderTest = log  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    queue.driver(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    queue.publish("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    queue.remove(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    del wrong


async def clock(step: FutureResult[int, OSError]) -> None:
    """The type is what the coroutine returns, or what the awaitable returns."""
    assert_type(run(work(1)), str)
    assert_type(run(work(1), patience=0.5, debug=True), str)
    assert_type(run(work(1), epoch=datetime(2026, 1, 2, tzinfo=UTC), patience=timedelta(1)), str)
    run(work(1), epoch="now")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(run(step), IOResult[int, OSError])
    assert_type(run(asyncio.sleep(1, 7)), int)
    await advance(2.5)
    virtual = VirtualTimeLoop(patience=2)
    loop: asyncio.AbstractEventLoop = virtual
    assert_type(loop.time(), float)
    assert_type(await virtual.advance(1), None)
    virtual.jump(1.5)
    virtual.advance("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    virtual.jump("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pause_clock() as paused:
        assert_type(paused, None)
    with virtual.pause_clock() as paused:
        assert_type(paused, None)
    virtual.pause_clock(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pause_clock(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    run(work(1), 0.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    raised: list[AssertionError] = [Deadlock(), LeakedTasks()]
    run(work)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    advance("2.5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    VirtualTimeLoop(1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    deadlock: Deadlock = LeakedTasks()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    leak: LeakedTasks = Deadlock()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del raised, deadlock, leak


async def sources(source: AsyncIterable[int]) -> None:
    """A source emits the items of its script."""
    assert_type(script("a-b|"), Scripted[str])
    assert_type(script("a-b|", step=0.5, values={"a": 1, "b": 2}), Scripted[int])
    assert_type(timed(1, Wait(2.0), 3), Scripted[int])
    assert_type(timed(1, ScriptError("no")), Scripted[int])
    assert_type(await timeline(source, limit=3), list[tuple[float, int]])
    assert_type(await timeline(source, error=OSError), list[tuple[float, int | OSError]])
    script(1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    script("a", 0.5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    timed(step=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    timeline([1])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Wait("2 s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    narrower: Scripted[bool] = timed(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    system: OSError = ScriptError()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del narrower, system


def faults() -> None:
    """An injector strikes with a cancellation, an error, or what makes one."""
    assert_type(FaultInjector(1), FaultInjector)
    assert_type(FaultInjector.every(OSError), Iterator[FaultInjector])
    assert_type(inject_everywhere(scenario, OSError("no"), times=2), int)
    FaultInjector("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    FaultInjector(1, "no")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    FaultInjector.every(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    inject_everywhere(work)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class HalfAJournal:
    """Lacks most of what a journal must have."""

    async def sagas(self, *, done: bool = True) -> list[StoredSaga]:
        return []


async def journals() -> None:
    """A factory of anything that has the methods will do, and ``silence`` is for what it makes."""

    async def silence(journal: SqliteJournal) -> str:
        return str(journal)

    journal: DurableJournal = SqliteJournal("journal.db")
    assert_type(await journal.sagas(), list[StoredSaga])
    assert_type(await journal.retry("saga"), int)
    assert_type(await journal.discard("saga", "by hand"), int)
    assert_type(await journal.close(), None)
    assert_type(await journal.claim(besides={"saga"}), StoredSaga | None)
    assert_type(await journal.release("saga"), None)
    assert_type(await journal.defer("action", "unknown name"), None)
    assert_type(await journal.postpone("action", OSError("no"), 1.5), None)
    assert_type(await journal.mark("action").begin(), None)
    await journal.claim(besides="saga")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await journal.release()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await journal.defer("action")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await journal.postpone("action", OSError("no"))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    journal.mark(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await check_journal(lambda: SqliteJournal("journal.db"), silence=silence, timeout=5)
    await check_journal(lambda: journal)
    wrong: DurableJournal = HalfAJournal()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(wrong)
    await check_journal(HalfAJournal)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    await check_journal(lambda: journal, silence=silence)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    await journal.retry(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await journal.discard("saga")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await journal.close(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await journal.sagas(1)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
    faulty = FaultyJournal(journal, FaultInjector(3, OSError))
    assert_type(FaultyJournal(faulty, print), FaultyJournal)
    FaultyJournal(journal)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    FaultyJournal(HalfAJournal(), print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def publishing(queue: PublisherQueue, plain: QueueUnderTest) -> None:
    """What is published to has a sender as well."""

    async def make() -> PublisherQueue:
        return queue

    async def cut(broken: PublisherQueue) -> None:
        await broken.remove()

    assert_type(queue.sender(), Sender)
    assert_type(await check_publisher(make, disconnect=cut, quiet=1), None)
    check_publisher(queue)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    queue.sender(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    wrong: PublisherQueue = plain  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del wrong
