"""The shortest worker, as a process on real servers: it is killed, and writes every order once."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")
nats = pytest.importorskip("nats", reason="needs the package nats-py")

from own_brokers import OwnNats

import order_worker

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).parents[2] / "docs" / "workers.md"
TABLE = "CREATE TABLE orders (number int PRIMARY KEY, seats int NOT NULL, batch text NOT NULL)"


def test_the_page_has_the_program() -> None:
    assert f"```py\n{inspect.getsource(order_worker.consume)}```" in PAGE.read_text("utf-8")
    assert TABLE in (order_worker.__doc__ or "").replace("\n", " ")


@pytest.mark.slow
def test_a_worker_that_is_killed_writes_every_order_once(
    tmp_path: Path, postgres_database: str
) -> None:
    with OwnNats(tmp_path) as broker:
        server = f"nats://127.0.0.1:{broker.port}"
        asyncio.run(asyncio.wait_for(_killed(server, postgres_database), 90))


async def _killed(server: str, database: str) -> None:
    client = await nats.connect(server)
    jetstream = client.jetstream()
    for name in ("orders", "letters"):
        await jetstream.add_stream(name=name, subjects=[f"{name}.>"])
    # As the worker would make it, but for the time until it takes another worker for dead.
    config = nats.js.api.ConsumerConfig(
        durable_name="billing", ack_policy="explicit", ack_wait=1.0, max_ack_pending=-1
    )
    await jetstream.add_consumer("orders", config)
    connection = await asyncpg.connect(database)
    await connection.execute(TABLE)

    async def publish(numbers: range) -> None:
        for number in numbers:
            await jetstream.publish("orders.new", b'{"number": %d, "seats": 2}' % number)

    async def until(done: Callable[[int], bool]) -> None:
        while True:
            if done(await connection.fetchval("SELECT count(*) FROM orders")):
                return
            await asyncio.sleep(0.02)

    async def start() -> asyncio.subprocess.Process:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
        program = [sys.executable, order_worker.__file__, server, database]
        return await asyncio.create_subprocess_exec(*program, env=environment)

    await publish(range(600))
    await jetstream.publish("orders.new", b"oops")
    killed = await start()
    await until(lambda count: count >= 500)
    killed.kill()
    await killed.wait()
    await publish(range(600, 1200))
    worker = await start()
    await until(lambda count: count == 1200)
    worker.send_signal(signal.SIGTERM)
    assert await worker.wait() == 0

    rows = await connection.fetch("SELECT number, seats FROM orders ORDER BY number")
    assert [tuple(row) for row in rows] == [(number, 2) for number in range(1200)]
    info = await jetstream.consumer_info("orders", "billing")
    assert (info.num_pending, info.num_ack_pending) == (0, 0)
    # A worker that is killed before its acknowledgement sends the letter again.
    letters = await jetstream.stream_info("letters")
    assert letters.state.messages in {1, 2}
    for number in range(1, letters.state.messages + 1):
        letter = await jetstream.get_msg("letters", number)
        assert letter.data == b"oops"
        assert "JSON is malformed" in letter.headers["error"]
    await connection.close()
    await client.close()
