"""`serve_health`: what probes are answered, whatever they send."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from returns_pipeline.connectors import Source
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.testing import MemoryBroker, run
from returns_pipeline.worker import Worker, serve_health


def worker_of(broker: MemoryBroker, **how: Any) -> Worker[Any]:
    async def slow(message: object) -> object:
        await asyncio.sleep(50)
        return message

    source = Source(broker.driver("shop"), decode=int)
    return Worker(source, lambda messages: messages.map_async(slow), **how)


async def ask(port: int, request: bytes) -> tuple[int, dict[str, Any] | None]:
    """Send a request; return the status, and the facts."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
        await writer.wait_closed()
    return (int(head.split()[1]) if head else 0), json.loads(body) if body else None


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: probe\r\n\r\n".encode()


def test_probes_learn_whether_the_worker_is_ready_and_alive() -> None:
    async def main() -> None:
        broker = MemoryBroker()
        broker.publish(b"1", b"2")
        worker = worker_of(broker, stuck_after=20.0)
        async with serve_health(worker, 0, host="127.0.0.1") as port:
            assert (await ask(port, get("/ready")))[0] == 503
            running = asyncio.create_task(worker.run(asyncio.sleep(30)))
            await asyncio.sleep(1)
            status, facts = await ask(port, get("/ready?from=probe"))
            assert status == 200
            assert facts is not None
            assert (facts["state"], facts["ready"], facts["status"]) == ("running", True, "OK")
            assert (await ask(port, get("/live")))[0] == 200
            _, statistics = await ask(port, get("/statistics"))
            assert statistics is not None
            assert (statistics["in_flight"], statistics["connected"]) == (1, True)
            await asyncio.sleep(25)
            status, facts = await ask(port, get("/live"))
            assert status == 503
            assert facts is not None
            assert facts["stalled_for"] > 20
            await running
            assert (await ask(port, get("/ready")))[0] == 503

    run(main())


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/"), 404),
        (get("/live/x"), 404),
        (b"POST /live HTTP/1.1\r\n\r\n", 405),
        (b"HEAD /live HTTP/1.1\r\n\r\n", 200),
        (b"hello\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /live HTTP/1.1\r\n" + b"x: y\r\n" * 5000 + b"\r\n", 431),
        (b"x" * 20_000, 431),
    ],
)
def test_anything_else_is_refused(request_: bytes, status: int) -> None:
    async def main() -> None:
        async with serve_health(worker_of(MemoryBroker()), 0, host="127.0.0.1") as port:
            got, facts = await ask(port, request_)
            assert got == status
            assert (facts is None) == request_.startswith(b"HEAD")

    run(main())


def test_a_request_may_come_in_parts_but_not_too_slowly() -> None:
    async def main() -> None:
        async with serve_health(worker_of(MemoryBroker()), 0, host="127.0.0.1") as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for part in (b"GET /li", b"ve HTTP/1.1\r", b"\n\r", b"\n", b"GET /ready"):
                writer.write(part)
                await asyncio.sleep(0.1)
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
            writer.close()
            await writer.wait_closed()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /live")
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    run(main(), patience=0.1)


def test_the_end_of_the_block_ends_open_connections() -> None:
    async def main() -> None:
        async with serve_health(worker_of(MemoryBroker()), 0, host="127.0.0.1") as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0.1)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        with pytest.raises(OSError, match=r"refused|failed"):
            await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(InvalidArgument, match="port"):
            async with serve_health(worker_of(MemoryBroker()), -1):
                pass

    run(main())
