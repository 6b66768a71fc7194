"""Servers that accept a connection and do not finish their greeting: no socket stays open."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from returns_pipeline.connectors import Publisher, Source
from returns_pipeline.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from returns_pipeline.connectors import Driver, Sender

OFTEN = RetryPolicy(attempts=1000, wait=0.02)
# An answer to its first request: the server knows the first two versions of a request for metadata.
KAFKA_VERSIONS = bytes.fromhex("00000010 00000001 0000 00000001 0003 0000 0001")
NATS_INFO = b'INFO {"server_id":"a","version":"2.9.10","headers":true,"max_payload":1048576}\r\n'


def kafka(port: int) -> tuple[Driver, Sender, bytes]:
    module = pytest.importorskip("returns_pipeline.connectors.kafka", exc_type=ImportError)
    topic = module.KafkaTopic(f"127.0.0.1:{port}", "orders")
    return topic.driver("group"), topic.sender(), b""


def kafka_with_versions(port: int) -> tuple[Driver, Sender, bytes]:
    return (*kafka(port)[:2], KAFKA_VERSIONS)


def nats(port: int) -> tuple[Driver, Sender, bytes]:
    module = pytest.importorskip("returns_pipeline.connectors.nats", exc_type=ImportError)
    stream = module.NatsStream(f"nats://127.0.0.1:{port}", "orders")
    return stream.driver("group"), stream.sender("orders.new"), NATS_INFO


def postgres(port: int) -> tuple[Driver, Sender, bytes]:
    module = pytest.importorskip("returns_pipeline.connectors.postgres", exc_type=ImportError)
    log = module.PostgresLog(f"postgresql://root@127.0.0.1:{port}/test", "orders")
    return log.driver("group"), log.sender(), b""


def rabbitmq(port: int) -> tuple[Driver, Sender, bytes]:
    module = pytest.importorskip("returns_pipeline.connectors.rabbitmq", exc_type=ImportError)
    queue = module.RabbitQueue(f"amqp://guest:guest@127.0.0.1:{port}/", "orders")
    return queue.driver(), queue.sender(), b""


def redis(port: int) -> tuple[Driver, Sender, bytes]:
    module = pytest.importorskip("returns_pipeline.connectors.redis", exc_type=ImportError)
    stream = module.RedisStream(f"redis://127.0.0.1:{port}/0", "orders")
    return stream.driver("group"), stream.sender(), b""


@contextlib.asynccontextmanager
async def half_open(greeting: Callable[[], bytes], *, hangs: bool) -> AsyncIterator[int]:
    """Accept, greet, read once, and then say nothing more, or hang up."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            if greeting():
                writer.write(greeting())
                await writer.drain()
            _ = await reader.read(1)
            if hangs:
                _ = await reader.read()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1")
    async with server:
        yield server.sockets[0].getsockname()[1]


async def read(driver: Driver) -> None:
    async with Source(driver, reconnect=OFTEN) as source:
        _ = await anext(source)


async def publish(sender: Sender) -> None:
    async with Publisher(sender, encode=bytes, reconnect=OFTEN) as publisher:
        await publisher.publish(b"1")


@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("engine", [kafka, kafka_with_versions, nats, postgres, rabbitmq, redis])
def test_a_server_that_does_not_finish_its_greeting_costs_no_socket(
    engine: Callable[[int], tuple[Driver, Sender, bytes]],
    caplog: pytest.LogCaptureFixture,
    *,
    reads: bool,
    hangs: bool,
) -> None:
    caplog.set_level(logging.CRITICAL)

    async def main() -> None:
        greeting = b""
        async with half_open(lambda: greeting, hangs=hangs) as port:
            driver, sender, greeting = engine(port)
            work: Any = read(driver) if reads else publish(sender)
            working = asyncio.ensure_future(work)
            await asyncio.sleep(0.3)
            working.cancel()
            _ = await asyncio.wait([working])
            assert working.cancelled()

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", ResourceWarning)
        asyncio.run(main())
        gc.collect()
    assert not [each for each in found if issubclass(each.category, ResourceWarning)]
