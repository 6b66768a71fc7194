"""A proxy before Tansu, which does what Kafka does and Tansu does not, or not rightly.

It coordinates the groups of consumers, and keeps the metadata of committed offsets.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import struct
import threading
from io import BytesIO
from typing import Any, Final

from aiokafka.protocol import commit
from kafka_groups import NONE, Groups

group = importlib.import_module("aiokafka.protocol.group")
_KINDS: Final = {
    8: (commit, "OffsetCommitRequest"),
    9: (commit, "OffsetFetchRequest"),
    11: (group, "JoinGroupRequest"),
    12: (group, "HeartbeatRequest"),
    13: (group, "LeaveGroupRequest"),
    14: (group, "SyncGroupRequest"),
}
# How a connection ends. Python 3.11 logs a cancelled one as an error.
_ENDED: Final = OSError, asyncio.IncompleteReadError, asyncio.CancelledError


class KafkaProxy:
    """Passes connections on to a broker, in a thread of its own.

    Attributes:
        groups: The groups of consumers.
    """

    def __init__(self) -> None:
        self.groups = Groups()
        self._kept: dict[tuple[str, str, int], str] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._target = 0
        self._connections: set[asyncio.Task[Any] | None] = set()  # the loop knows tasks weakly

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
        self._connections.add(task := asyncio.current_task())

        async def ask(frame: bytes) -> bytes:
            up_writer.write(struct.pack(">i", len(frame)) + frame)
            return await _read(up_reader)

        try:
            with contextlib.suppress(*_ENDED):
                # One request after the other, as Kafka does it: an answer that waits for other
                # members delays what its client has sent after it.
                while True:
                    answer = await self._answer(await _read(reader), ask)
                    writer.write(struct.pack(">i", len(answer)) + answer)
                    await writer.drain()
        finally:
            self._connections.discard(task)
            for each in (writer, up_writer):
                each.close()

    async def _answer(self, frame: bytes, ask: Any) -> bytes:
        key, version, number, size = struct.unpack(">hhih", frame[:10])
        if key not in _KINDS:
            answered: bytes = await ask(frame)
            return answered
        module, name = _KINDS[key]
        kind = getattr(module, f"{name}_v{version}")
        head = frame[: 10 + max(size, 0)]
        what = kind.decode(BytesIO(frame[len(head) :]))
        if key in {8, 9}:
            body = await self._offsets(key, what, head, ask)
        else:
            body = (await self._coordinate(key, version, what)).encode()
        return struct.pack(">i", number) + body

    async def _offsets(self, key: int, what: Any, head: bytes, ask: Any) -> bytes:
        name, refused = what.consumer_group, NONE
        if key == 8:
            member, generation = what.consumer_id, what.consumer_group_generation_id
            refused = self.groups.may_commit(name, member, generation)
            what.consumer_id, what.consumer_group_generation_id = "", -1  # Tansu knows no groups
        if refused:
            topics = [
                (topic, [(each[0], refused) for each in found]) for topic, found in what.topics
            ]
            done = what.RESPONSE_TYPE(*[0] * (len(what.RESPONSE_TYPE.SCHEMA.names) - 1), topics)
        else:
            body = await ask(head + what.encode())
            done = what.RESPONSE_TYPE.decode(BytesIO(body[4:]))
        if key == 8:
            self._keep(what, done)
        else:
            done.topics = [
                (topic, [self._noted(name, topic, each) for each in partitions])
                for topic, partitions in done.topics
            ]
        encoded: bytes = done.encode()
        return encoded

    async def _coordinate(self, key: int, version: int, what: Any) -> Any:
        kind, groups, name, member = what.RESPONSE_TYPE, self.groups, what.group, what.member_id
        throttle = [0] * ("throttle_time_ms" in kind.SCHEMA.names)
        if key == 11:
            times = what.session_timeout / 1000, what.rebalance_timeout / 1000
            it = await groups.join(name, member, times, what.group_protocols[0])
            members = [
                (each, None, metadata) if version >= 5 else (each, metadata)
                for each, metadata in it.members
            ]
            found = it.error, it.generation, it.protocol, it.leader, it.member, members
            return kind(*throttle, *found)
        if key == 14:
            assigned = dict(what.group_assignment)
            return kind(*throttle, *await groups.sync(name, member, what.generation_id, assigned))
        if key == 12:
            return kind(*throttle, groups.heartbeat(name, member, what.generation_id))
        return kind(*throttle, groups.leave(name, member))

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


async def _read(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)
