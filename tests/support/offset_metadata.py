"""A proxy before Tansu that keeps the metadata of committed offsets, as Kafka does."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from io import BytesIO
from typing import TYPE_CHECKING, Any

from aiokafka.protocol import commit

if TYPE_CHECKING:
    from collections.abc import Callable

_COMMIT, _FETCH = 8, 9


class OffsetMetadata:
    """Passes connections on to a broker, in a thread of its own."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, int], str] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._target = 0

    def start(self) -> int:
        """Listen, for a broker that begins after this; return the port."""
        self._thread.start()
        starting = asyncio.start_server(self._on_client, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        return int(self._server.sockets[0].getsockname()[1])

    def connect_to(self, port: int) -> None:
        self._target = port

    def stop(self) -> None:
        async def end() -> None:
            self._server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        asked: dict[int, tuple[int, Any]] = {}

        def request(frame: bytes) -> bytes:
            key, version, number, size = struct.unpack(">hhih", frame[:10])
            if key in {_COMMIT, _FETCH}:
                name = "OffsetCommit" if key == _COMMIT else "OffsetFetch"
                kind = getattr(commit, f"{name}Request_v{version}")
                asked[number] = key, kind.decode(BytesIO(frame[10 + max(size, 0) :]))
            return frame

        def answer(frame: bytes) -> bytes:
            (number,) = struct.unpack(">i", frame[:4])
            if number not in asked:
                return frame
            key, what = asked.pop(number)
            done = type(what).RESPONSE_TYPE.decode(BytesIO(frame[4:]))
            if key == _COMMIT:
                self._keep(what, done)
                return frame
            done.topics = [
                (topic, [self._noted(what.consumer_group, topic, each) for each in partitions])
                for topic, partitions in done.topics
            ]
            body: bytes = done.encode()
            return frame[:4] + body

        try:
            await asyncio.gather(
                _pass(reader, up_writer, request), _pass(up_reader, writer, answer)
            )
        finally:
            for each in (writer, up_writer):
                each.close()

    def _keep(self, what: Any, done: Any) -> None:
        refused = {
            (topic, number)
            for topic, partitions in done.topics
            for number, error in partitions
            if error
        }
        for topic, partitions in what.topics:
            for number, *_, metadata in partitions:
                if (topic, number) not in refused:
                    self._kept[what.consumer_group, topic, number] = metadata

    def _noted(self, group: str, topic: str, partition: tuple[Any, ...]) -> tuple[Any, ...]:
        number, offset, _, error = partition
        return number, offset, self._kept.get((group, topic, number), ""), error


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Callable[[bytes], bytes]
) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            (size,) = struct.unpack(">i", await reader.readexactly(4))
            frame = change(await reader.readexactly(size))
            writer.write(struct.pack(">i", len(frame)) + frame)
            await writer.drain()
    writer.close()
