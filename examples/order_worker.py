"""Write orders from NATS JetStream to PostgreSQL: `consume` is a whole worker, made to be killed.

There are the streams "orders" and "letters", and a table:
CREATE TABLE orders (number int PRIMARY KEY, seats int NOT NULL, batch text NOT NULL).
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

import asyncpg
from returns.future import future_safe

from returns_pipeline import CompensationRegistry, StepContext
from returns_pipeline.connectors import Message, Publisher, Source
from returns_pipeline.connectors.nats import NatsStream
from returns_pipeline.journal import PostgresJournal
from returns_pipeline.worker import run_worker


@dataclass
class Order:
    """A message: ``{"number": 1, "seats": 2}``."""

    number: int
    seats: int


UPSERT = "INSERT INTO orders VALUES ($1, $2, $3) ON CONFLICT (number) DO UPDATE SET batch = $3"


async def consume(server: str, database: str) -> int:
    """Write windows of 500 orders or 2 seconds, each completely or not at all, until SIGTERM."""
    registry = CompensationRegistry()
    async with asyncpg.create_pool(database) as pool, PostgresJournal(database) as journal:

        @registry.compensation("delete-batch")
        async def delete_batch(batch: str) -> None:
            await pool.execute("DELETE FROM orders WHERE batch = $1", batch)

        @future_safe(exceptions=(asyncpg.PostgresError, OSError))
        async def persist(window: list[Message[Order]], step: StepContext) -> None:
            await step.register(delete_batch, step.key)  # on record before the effect
            orders = [(each.value.number, each.value.seats, step.key) for each in window]
            await pool.executemany(UPSERT, orders)  # all of them, or none

        report = await run_worker(
            Source(NatsStream(server, "orders").driver("billing"), decode=Order),
            lambda messages, ctx: messages.chunks_or_timeout(500, 2.0).bind_step(persist, ctx),
            journal=journal,
            registry=registry,
            dead_letters=Publisher(NatsStream(server, "letters").sender("letters.orders")),
        )
    return report.exit_code


if __name__ == "__main__":
    sys.exit(asyncio.run(consume(*sys.argv[1:])))
