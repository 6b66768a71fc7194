"""A worker as it is deployed: ``python -m returns_pipeline.worker deployed_worker:worker``."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from returns.result import Result, Success

from returns_pipeline import CompensationRegistry, ResultStream, StepContext
from returns_pipeline.connectors import DeadLetter, Message, Source
from returns_pipeline.errors import DecodeError, TooManyDeliveries
from returns_pipeline.journal import SqliteJournal
from returns_pipeline.testing import MemoryBroker
from returns_pipeline.worker import Worker, serve_health

Unread = DeadLetter[DecodeError | TooManyDeliveries]
registry = CompensationRegistry()
rows: dict[str, int] = {}
broker = MemoryBroker(partitions=4)  # in production: NatsStream(...), KafkaTopic(...)


@registry.compensation("delete-rows")
async def delete_rows(key: str) -> None:
    rows.pop(key, None)


async def persist(window: list[Message[int]], step: StepContext) -> Result[int, str]:
    await step.register(delete_rows, step.key)
    rows[step.key] = len(window)
    return Success(len(window))


def billing(
    messages: ResultStream[Message[int], Unread], ctx: StepContext
) -> ResultStream[int, Unread | str]:
    return messages.chunks_or_timeout(500, 2.0).bind_step(persist, ctx)


async def bury(letter: Unread | str) -> None:
    print("dead letter:", letter)


@asynccontextmanager
async def worker() -> AsyncGenerator[Worker[Unread | str]]:
    async with SqliteJournal("billing.db") as journal:  # of many machines: PostgresJournal(dsn)
        yield Worker(
            Source(broker.driver("billing"), decode=int, max_in_flight=2_000),
            billing,
            journal=journal,
            registry=registry,
            dead_letters=bury,
            recover_every=60.0,
            drain_timeout=25.0,  # below the 30 seconds after which Kubernetes kills
            stuck_after=300.0,
        )


async def get(port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    return answer.split(" ", 2)[1]


async def main() -> None:
    broker.publish(*[b"%d" % number for number in range(1200)])
    async with worker() as ours, serve_health(ours, 0, host="127.0.0.1") as port:
        print("before it runs:", await get(port, "/live"), await get(port, "/ready"))
        running = asyncio.ensure_future(ours.run())
        await asyncio.sleep(0.5)
        print("while it runs: ", await get(port, "/live"), await get(port, "/ready"))
        os.kill(os.getpid(), signal.SIGTERM)  # as a deployment does
        report = await running
    print("stopped by", report.stopped_by.value, "with exit code", report.exit_code)
    print(sum(rows.values()), "written,", broker.backlog("billing"), "not acknowledged")


if __name__ == "__main__":
    asyncio.run(main())
