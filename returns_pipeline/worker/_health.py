"""`serve_health`: the health of a worker by HTTP, for probes.

Probes ask for a path, and look at the status. So a protocol of asyncio is enough: no package is
needed, no task runs, and what a client sends is read up to the end of its headers.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final, cast

from returns_pipeline._engine import checks
from returns_pipeline.worker._worker import Worker

__all__ = ["serve_health"]

# Bytes of a request's line and headers, and seconds for it to arrive.
_LONGEST: Final = 16_384
_PATIENCE: Final = 5.0
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


@asynccontextmanager
async def serve_health(
    worker: Worker[object], port: int, *, host: str | None = None
) -> AsyncGenerator[int]:
    """Answer probes by HTTP while the block runs.

    - ``GET /live``: 200 if `WorkerHealth.alive`, else 503. For Kubernetes: a ``livenessProbe``.
    - ``GET /ready``: 200 if `WorkerHealth.ready`, else 503.
    - ``GET /statistics``: `SourceStatistics`.

    Each has a JSON object of what it is about. Nothing else can be read or changed.

    Args:
        worker: Whose health it is.
        port: Where to listen; 0 for any free port.
        host: On which address; by default on all, as probes come from outside.

    Returns:
        An asynchronous context manager, whose value is the port.

    Raises:
        InvalidArgument: ``port`` is out of range, when the block is entered.
        OSError: The port is in use, or the address is not one of this machine.

    >>> from returns_pipeline.connectors import Source
    >>> from returns_pipeline.testing import MemoryBroker, run
    >>> async def main() -> None:
    ...     source = Source(MemoryBroker().driver("sums"), decode=int)
    ...     worker = Worker(source, lambda messages: messages)
    ...     async with serve_health(worker, 0, host="127.0.0.1") as port:
    ...         report = await worker.run(stop=asyncio.sleep(9.0))
    ...         print(port > 0, report.stopped_by)
    >>> run(main())
    True StoppedBy.STOP
    """
    number = checks.count("port", port, least=0)
    loop = asyncio.get_running_loop()
    open_ones: set[asyncio.Transport] = set()
    server = await loop.create_server(lambda: _Connection(worker, open_ones), host, number)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for transport in list(open_ones):
            transport.abort()  # since Python 3.12, `wait_closed` waits for them
        await server.wait_closed()


class _Connection(asyncio.Protocol):
    """One request; its connection is closed after the answer."""

    def __init__(self, worker: Worker[object], open_ones: set[asyncio.Transport]) -> None:
        self._worker = worker
        self._open = open_ones
        self._received = b""
        self._has_answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._open.add(self._transport)
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._timer.cancel()
        self._open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        if self._has_answered:
            return
        self._received += data
        head, end, _ = self._received.partition(b"\r\n\r\n")
        if not end and len(self._received) <= _LONGEST:
            return
        self._has_answered = True
        if not end or len(head) > _LONGEST:
            self._answer(431, {}, with_body=True)
            return
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3:
            self._answer(400, {}, with_body=True)
        elif words[0] not in {b"GET", b"HEAD"}:
            self._answer(405, {}, with_body=True)
        else:
            self._answer(*self._look(words[1].split(b"?")[0]), with_body=words[0] == b"GET")

    def _look(self, path: bytes) -> tuple[int, Mapping[str, object]]:
        """Return the status and the facts of a path."""
        if path == b"/statistics":
            return 200, dataclasses.asdict(self._worker.statistics())
        health = self._worker.health()
        for name, is_well in ((b"/live", health.alive), (b"/ready", health.ready)):
            if path == name:
                return (200 if is_well else 503), dataclasses.asdict(health)
        return 404, {}

    def _answer(self, status: int, facts: Mapping[str, object], *, with_body: bool) -> None:
        body = json.dumps({"status": _REASONS[status], **facts}).encode()
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._transport.write(head.encode() + (body if with_body else b""))
        self._transport.close()
