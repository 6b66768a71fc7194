"""The values of metrics that the six questions do not ask for."""

# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("opentelemetry.sdk.metrics")
pytest.importorskip("prometheus_client")

from measured import BACK_ENDS, Measured
from returns.result import Failure, Result, Success

from returns_pipeline import (
    CompensationRegistry,
    CompensationScope,
    ResultStream,
    StepContext,
    telemetry,
    to_result,
)
from returns_pipeline.connectors import Outgoing, Publisher, Source
from returns_pipeline.journal import PostgresJournal, SqliteJournal, recover
from returns_pipeline.policies import RetryPolicy, rate_limit, with_retry, with_timeout
from returns_pipeline.telemetry import JournalRequest, Recovered
from returns_pipeline.testing import MemoryBroker, Recorder, run, timed
from returns_pipeline.worker import run_worker

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=BACK_ENDS)
def measured(request: pytest.FixtureRequest) -> Measured:
    return request.param()  # type: ignore[no-any-return]


async def refund(order: int) -> None:
    await asyncio.sleep(1.0)


def test_an_undo_that_hangs_is_seen(measured: Measured) -> None:
    running = "returns_pipeline.undo.running"
    seen: list[float] = []

    async def main() -> None:
        scope = CompensationScope("shop", observer=measured.observer)
        await scope.register(refund, 1)
        undoing = asyncio.ensure_future(scope.compensate())
        await asyncio.sleep(0.5)
        seen.append(measured.total(running, pipeline="shop", undo="refund"))
        await undoing
        seen.append(measured.total(running, pipeline="shop", undo="refund"))

    run(main())
    assert seen == [1, 0]


def test_what_a_publisher_has_sent_and_what_was_refused(measured: Measured) -> None:
    sent = "messaging.client.sent.messages"
    where = {"pipeline": "", "messaging_system": "memory"}

    async def main() -> None:
        sender = MemoryBroker().sender()
        async with Publisher(sender, observer=measured.observer) as publisher:
            await publisher.publish_all([1, 2, 3])
            await publisher.publish_all([1, Outgoing(2, partition=9)])
            assert measured.total("returns_pipeline.publisher.in_flight", **where) == 0

    run(main())
    assert measured.total(sent, **where) == 5
    assert measured.total(sent, error_type="refused", **where) == 1
    assert measured.total(sent, messaging_operation_name="send", **where) == 5
    duration = "messaging.client.operation.duration"
    assert measured.count(duration, messaging_operation_type="send", **where) == 2


def test_messages_that_no_broker_has_answered_are_in_flight(measured: Measured) -> None:
    """And then unconfirmed, as their call was cancelled."""
    in_flight = "returns_pipeline.publisher.in_flight"
    seen: list[float] = []

    class Silent:
        """A broker that never answers."""

        name = "memory invoices"
        deduplicates = False

        async def connect(self) -> Silent:
            return self

        async def send(self, batch: object) -> None:
            await asyncio.sleep(3600.0)

        async def close(self) -> None: ...

    async def main() -> None:
        async with Publisher(Silent(), observer=measured.observer) as publisher:
            sending = asyncio.ensure_future(publisher.publish_all([1, 2, 3]))
            await asyncio.sleep(1.0)
            seen.append(measured.total(in_flight, messaging_destination_name="invoices"))
            sending.cancel()
            await asyncio.wait({sending})
            seen.append(measured.total(in_flight, messaging_destination_name="invoices"))

    run(main())
    assert seen == [3, 0]
    sent = "messaging.client.sent.messages"
    assert measured.total(sent, error_type="unconfirmed") == measured.total(sent) == 3


async def hang() -> Result[int, OSError]:
    await asyncio.sleep(3600.0)
    return Success(1)


def test_retries_and_time_limits_are_counted_by_step(measured: Measured) -> None:
    outcomes = [Failure(OSError()), Failure(KeyError()), Success(1)]

    async def charge(_: StepContext) -> Result[int, Exception]:
        return outcomes.pop(0)

    async def main() -> None:
        ctx = StepContext("shop", observer=measured.observer)
        assert await to_result(with_retry(charge, RetryPolicy(5))(ctx)) == Success(1)
        with telemetry.use(measured.observer, pipeline="shop"):
            assert isinstance(await to_result(with_timeout(hang, 2.0)()), Failure)

    run(main())
    retries = "returns_pipeline.step.retries"
    assert measured.total(retries, stage="charge") == 2
    assert measured.total(retries, stage="charge", error_type="KeyError") == 1
    timeouts = "returns_pipeline.step.timeouts"
    assert measured.total(timeouts, pipeline="shop", stage="hang", abandoned="false") == 1


def test_waits_for_a_limiter_are_added(measured: Measured) -> None:
    limit = rate_limit(1, per=2.0)

    async def ask() -> Result[int, str]:
        return Success(1)

    async def main() -> None:
        with telemetry.use(measured.observer, pipeline="shop"):
            for _ in range(3):
                assert await to_result(limit(ask)()) == Success(1)

    run(main())
    assert measured.total("returns_pipeline.limiter.wait", pipeline="shop") == pytest.approx(4.0)


def test_what_a_stage_holds_while_it_waits_for_its_reader(measured: Measured) -> None:
    async def main() -> None:
        items = timed(1, 2, 3, 4, 5)
        stream = ResultStream.of(items).observed(measured.observer, name="shop")
        async for _ in stream.chunks_or_timeout(2, 9.0):
            await asyncio.sleep(5.0)

    run(main())
    wait, held = "returns_pipeline.stage.wait", "returns_pipeline.stage.in_flight"
    assert measured.total(wait, pipeline="shop") > 0
    assert measured.total(held, pipeline="shop", stage="chunks_or_timeout") == 2


def test_waits_of_the_last_second_are_reported_at_the_end(measured: Measured) -> None:
    """Steps at once report once a second: what came after that is not lost."""
    recorder = Recorder()

    async def echo(item: int) -> int:
        return item

    async def main() -> None:
        stream = ResultStream.of(timed(*range(8))).observed(
            recorder, measured.observer, name="shop"
        )
        async for _ in stream.map_async(echo, concurrency=2):
            await asyncio.sleep(0.125)

    run(main())
    waits = recorder.of(telemetry.Backpressure)
    assert len(waits) == 2
    assert waits[0].waits == 1
    assert waits[1].waits > 1
    assert measured.total("returns_pipeline.stage.wait") == sum(each.waited for each in waits)
    assert sum(each.waited for each in waits) >= 0.5


def test_workers_that_run_and_drain(measured: Measured) -> None:
    running = "returns_pipeline.worker.running"
    seen: list[float] = []

    async def main() -> None:
        source = Source(MemoryBroker().driver("sums"), decode=int)
        work = run_worker(
            source,
            lambda messages: messages,
            name="billing",
            stop=asyncio.sleep(9.0),
            observer=measured.observer,
        )
        working = asyncio.ensure_future(work)
        await asyncio.sleep(1.0)
        seen.append(measured.total(running, pipeline="billing"))
        await working
        seen.append(measured.total(running, pipeline="billing"))

    run(main())
    assert seen == [1, 0]
    assert measured.total("returns_pipeline.worker.drains", pipeline="billing") == 1


registry = CompensationRegistry()


@registry.compensation("refund")
async def give_back(order: int) -> None:
    """Do nothing."""


@pytest.mark.parametrize("kind", ["SqliteJournal", "PostgresJournal"])
def test_requests_to_a_journal_are_measured(
    measured: Measured, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Two records in one batch, their commit; then what a dead process left."""
    recorder = Recorder()

    def opened() -> SqliteJournal | PostgresJournal:
        if kind == "SqliteJournal":
            return SqliteJournal(tmp_path / "j.db")
        dsn, schema = request.getfixturevalue("journal_schema")
        return PostgresJournal(dsn, schema=schema)

    async def main() -> None:
        with telemetry.use(measured.observer, recorder, pipeline="shop"):
            journal = opened()
            async with journal:
                scopes = [CompensationScope(f"{n}", journal=journal) for n in range(2)]
                await asyncio.gather(*[scope.register(give_back, 1) for scope in scopes])
                await scopes[0].commit()
                scopes[1]._records = []  # the process forgets it
            async with opened() as journal:
                await recover(journal, registry)

    asyncio.run(main())
    requests = recorder.of(JournalRequest)
    assert {(event.pipeline, event.journal) for event in requests} == {("shop", kind)}
    assert not any(event.failed for event in requests)
    assert sum(event.size for event in requests if event.kind == "record") == 2
    assert next(event.size for event in requests if event.kind == "forget") == 1
    assert all(event.duration > 0 for event in requests)
    duration = "returns_pipeline.journal.duration"
    assert measured.count(duration, journal=kind) == len(requests)
    assert measured.count(duration, journal=kind, outcome="failed") == 0
    records = [event for event in requests if event.kind == "record"]
    assert measured.count(duration, journal=kind, kind="record") == len(records)
    total = sum(event.duration for event in records)
    assert measured.sum(duration, kind="record") == pytest.approx(total)
    assert measured.total("returns_pipeline.journal.queued", journal=kind) == 0
    assert sum(event.undone for event in recorder.of(Recovered)) == 1
    recovered = "returns_pipeline.journal.recovered"
    assert measured.total(recovered, journal=kind, outcome="done") == 1
    assert measured.total(recovered, journal=kind, outcome="stuck") == 0


@pytest.mark.parametrize("by_stream", [True, False])
def test_items_that_a_slow_branch_did_not_get_are_counted(
    measured: Measured, *, by_stream: bool
) -> None:
    """When it is read again, and when it leaves; its reader is told of the first alone."""
    told: list[tuple[int, int]] = []
    dropped = "returns_pipeline.broadcast.dropped"

    async def main() -> None:
        source = ResultStream.of(timed(*range(12)))
        if by_stream:
            source = source.observed(measured.observer, name="shop")
        fast, slow = source.broadcast(
            2, buffer=2, overflow="drop_oldest", on_drop=lambda *gap: told.append(gap)
        )
        async with (
            contextlib.aclosing(aiter(fast)) as items,
            contextlib.aclosing(aiter(slow)) as others,
        ):
            for _ in range(5):
                await anext(items)
            await anext(others)
            assert measured.total(dropped, pipeline="shop", stage="broadcast", branch="1") == 3
            async for _ in items:
                pass
        assert measured.total(dropped, branch="1") == 9

    if by_stream:
        run(main())
    else:
        with telemetry.use(measured.observer, pipeline="shop"):
            run(main())
    assert told == [(1, 3)]
    assert measured.total(dropped) == 9
