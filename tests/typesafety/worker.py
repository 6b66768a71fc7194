# mypy: disable-error-code="unused-awaitable, unused-coroutine"
# pyright: reportUnusedCoroutine=false
"""Never run. What mypy and pyright infer for workers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Never, assert_type

from returns.result import Result, Success

from returns_pipeline import CompensationRegistry, ResultStream, StepContext
from returns_pipeline.connectors import DeadLetter, Message, Publisher, Source, SourceStatistics
from returns_pipeline.errors import DecodeError, TooManyDeliveries
from returns_pipeline.worker import (
    StoppedBy,
    Worker,
    WorkerHealth,
    WorkerReport,
    run_worker,
    serve_health,
)

if TYPE_CHECKING:
    from returns_pipeline.journal import PostgresJournal


@dataclass
class Order:
    """What is sold."""

    seats: int


Unread = DeadLetter[DecodeError | TooManyDeliveries]
Orders = ResultStream[Message[Order], Unread]


async def persist(window: list[Message[Order]], step: StepContext) -> Result[int, OSError]:
    return Success(len(window))


def shop(messages: Orders, ctx: StepContext) -> ResultStream[int, Unread | OSError]:
    return messages.chunks_or_timeout(500, 2.0).bind_step(persist, ctx)


def seats(messages: Orders) -> ResultStream[int, Unread]:
    return messages.map(lambda message: message.value.seats)


async def bury(letter: Unread | OSError) -> None: ...


async def bury_unread(letter: Unread) -> Result[int, str]:
    return Success(letter.message.deliveries)


async def workers(
    source: Source[Order, DecodeError],
    journal: PostgresJournal,
    registry: CompensationRegistry,
    publisher: Publisher[Order],
) -> None:
    """The errors of a report, and of dead letters, are those of the pipeline."""
    report = await run_worker(source, shop, journal=journal, registry=registry)
    assert_type(report, WorkerReport[Unread | OSError])
    assert_type(report.failure, Unread | OSError | None)
    assert_type(report.stopped_by, StoppedBy)
    assert_type(report.statistics, SourceStatistics)
    await run_worker(source, seats, dead_letters=publisher.publish)
    assert_type(report.exit_code, int)
    assert_type(StoppedBy.SIGNAL.exit_code, int)
    assert_type(await run_worker(source, seats), WorkerReport[Unread])
    assert_type(
        await run_worker(source, shop, dead_letters=bury, stop=asyncio.Event()),
        WorkerReport[Unread | OSError],
    )
    assert_type(
        await run_worker(source, seats, dead_letters=bury_unread, stop=asyncio.sleep(9)),
        WorkerReport[Unread],
    )
    assert_type(
        await run_worker(source, lambda messages: messages.map(lambda each: each.value.seats)),
        WorkerReport[Unread],
    )
    assert_type(
        await run_worker(
            source, lambda messages, ctx: messages.chunks_or_timeout(9, 1).bind_step(persist, ctx)
        ),
        WorkerReport[Unread | OSError],
    )
    assert_type(await run_worker(source, shop, per_partition=True), WorkerReport[Unread | OSError])
    assert_type((report.partition, report.partitions), tuple[str | None, Mapping[str, int]])
    wider: WorkerReport[object] = report
    run_worker(source, shop, dead_letters=bury_unread)  # type: ignore[arg-type, misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
    run_worker(source, lambda messages: messages.run())  # type: ignore[arg-type, return-value]  # pyright: ignore[reportCallIssue, reportArgumentType]
    run_worker(source, shop, per_partition="yes")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    run_worker(source, shop, stop=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    run_worker(source)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    narrower: WorkerReport[Never] = report  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del wider, narrower


async def objects(source: Source[Order, DecodeError], raw: Source[bytes, Never]) -> None:
    """A worker knows the errors of its pipeline."""
    worker = Worker(source, shop, dead_letters=bury, stuck_after=60, per_partition=True)
    assert_type(worker, Worker[Unread | OSError])
    assert_type(await worker.run(), WorkerReport[Unread | OSError])
    assert_type(worker.health(), WorkerHealth)
    assert_type((worker.health().ready, worker.health().alive), tuple[bool, bool])
    assert_type(worker.health().stuck, tuple[str, ...])
    assert_type(worker.statistics(), SourceStatistics)
    assert_type(Worker(raw, lambda messages: messages), Worker[DeadLetter[TooManyDeliveries]])
    any_worker: Worker[object] = worker
    worker.health(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Worker(raw, shop)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    WorkerHealth("running", True, True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    async with serve_health(worker, 8080, host="::1") as port:
        assert_type(port, int)
    serve_health(source, 8080)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    StoppedBy()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    del any_worker
