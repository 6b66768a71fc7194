"""A proxy before a server, whose connections a test can cut."""

from __future__ import annotations

import asyncio
import contextlib


class CutProxy:
    """Passes connections on to a server.

    Attributes:
        port: Where it listens, on this machine.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> CutProxy:
        self._server = await asyncio.start_server(self._on_client, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, up_writer}
        try:
            await asyncio.gather(self._pass(reader, up_writer), self._pass(up_reader, writer))
        finally:
            for each in (writer, up_writer):
                each.close()
                self._writers.discard(each)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def cut(self) -> None:
        """Cut all connections; new ones are accepted."""
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def stop(self) -> None:
        await self.cut()
        if self._server is not None:
            self._server.close()
