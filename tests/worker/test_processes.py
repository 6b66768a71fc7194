"""Workers as real processes: stopped, restarted, and killed forever while they work."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen
from uuid import uuid4

import pytest
from servers import absent

asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")

from returns_pipeline.connectors.postgres import PostgresLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("shop_program.py")
COUNT = 40


class Shop:
    """A database with a log and a table of effects, and the processes that work for it."""

    def __init__(self, dsn: str, place: Path) -> None:
        self.dsn = dsn
        self.place = place
        self.name = f"shop_{uuid4().hex[:8]}"
        self.nats: str | None = None
        self.processes: list[subprocess.Popen[str]] = []

    def run(self, statement: str, *arguments: object) -> list[Any]:
        async def main() -> list[Any]:
            connection = await asyncpg.connect(self.dsn)
            try:
                rows: list[Any] = await connection.fetch(statement, *arguments)
                return rows
            finally:
                await connection.close()

        return asyncio.run(main())

    def create(self, count: int = COUNT) -> None:
        self.run("CREATE TABLE effect (number int, key text)")

        async def main() -> None:
            log = PostgresLog(self.dsn, self.name)
            await log.create(2)
            connection = await asyncpg.connect(self.dsn)
            async with connection.transaction():
                for number in range(count):
                    await log.append(connection, str(number).encode())
            await connection.close()

        asyncio.run(main())

    def start(self, *command: str, **settings: object) -> subprocess.Popen[str]:
        number = len(self.processes)
        environment = {
            **os.environ,
            "SHOP_DSN": self.dsn,
            "SHOP_NAME": self.name,
            **({"SHOP_NATS": self.nats} if self.nats else {}),
            **{f"SHOP_{name.upper()}": str(value) for name, value in settings.items()},
            "PYTHONPATH": str(PROGRAM.parent),
        }
        with (self.place / f"log-{number}").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.processes.append(process)
        return process

    def start_worker(self, *options: str, **settings: object) -> subprocess.Popen[str]:
        return self.start(
            "-m", "returns_pipeline.worker", "shop_program:worker", *options, **settings
        )

    def log(self, process: subprocess.Popen[str]) -> str:
        return (self.place / f"log-{self.processes.index(process)}").read_text()

    def effects(self) -> list[int]:
        return [row["number"] for row in self.run("SELECT number FROM effect ORDER BY number")]

    def wait_for(self, done: Callable[[], object], what: str) -> float:
        """Wait; return after how many seconds it was done."""
        began = time.monotonic()
        while time.monotonic() < began + 60:
            if done():
                return time.monotonic() - began
            time.sleep(0.05)
        logs = "\n".join(self.log(process) for process in self.processes)
        pytest.fail(f"{what} did not come: {self.effects()}\n{logs}")

    def stop(self, process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, self.log(process)

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            _ = process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self.run(f"DROP SCHEMA IF EXISTS journal_{self.name} CASCADE")


@contextmanager
def shop_in(dsn: str, place: Path) -> Iterator[Shop]:
    shop = Shop(dsn, place)
    try:
        yield shop
    finally:
        shop.end()


@pytest.fixture
def shop(postgres_dsn: str, tmp_path: Path) -> Iterator[Shop]:
    with shop_in(postgres_dsn, tmp_path) as made:
        yield made


def facts_of(shop: Shop, process: subprocess.Popen[str], path: str) -> dict[str, Any]:
    """Ask a worker that was started with ``--health 127.0.0.1:0``."""
    shop.wait_for(lambda: "at port" in shop.log(process), "the worker")
    found = re.search(r"at port (\d+)", shop.log(process))
    assert found is not None
    with urlopen(f"http://127.0.0.1:{found[1]}{path}", timeout=10) as answer:
        facts: dict[str, Any] = json.load(answer)
        return facts


def test_sigterm_in_an_open_window_emits_it_and_nothing_is_done_twice(shop: Shop) -> None:
    shop.create()
    first = shop.start_worker("--health", "127.0.0.1:0", window=1000)
    shop.wait_for(lambda: facts_of(shop, first, "/statistics")["emitted"] == COUNT, "all messages")
    assert facts_of(shop, first, "/ready")["ready"]
    assert shop.effects() == []
    shop.stop(first)
    assert shop.effects() == list(range(COUNT))
    assert "was stopped by: signal; 1 handled" in shop.log(first)
    # Nothing is left for the next one.
    second = shop.start_worker("--health", "127.0.0.1:0", window=1000)
    shop.wait_for(lambda: facts_of(shop, second, "/statistics")["connected"], "a connection")
    time.sleep(0.5)
    assert facts_of(shop, second, "/statistics")["emitted"] == 0
    shop.stop(second)


def test_what_is_killed_forever_is_undone_by_another_worker_within_seconds(shop: Shop) -> None:
    """A worker in the middle of a window, and a web handler in the middle of a saga."""
    shop.create()
    doomed = shop.start_worker(hangs=13)
    handler = shop.start(str(PROGRAM), "77")
    assert handler.stdout is not None
    assert handler.stdout.readline() == "paying\n"
    shop.wait_for(lambda: 13 in shop.effects(), "the half of a window")
    survivor = shop.start_worker("--health", "127.0.0.1:0")
    shop.wait_for(lambda: facts_of(shop, survivor, "/statistics")["connected"], "a connection")
    half = shop.run("SELECT key FROM effect WHERE number = 13")[0]["key"]
    time.sleep(1.2)  # at least one recovery
    assert {13, 77} <= set(shop.effects())  # their owners are alive: nothing is taken from them
    for process in (doomed, handler):
        process.kill()
        process.wait()
    seconds = shop.wait_for(
        lambda: not shop.run("SELECT 1 FROM effect WHERE key = $1 OR number = 77", half),
        "the undo",
    )
    assert seconds < 20
    shop.wait_for(lambda: set(shop.effects()) == set(range(COUNT)), "all messages")
    shop.stop(survivor)
    # A window that was committed and not yet acknowledged when it was killed may be there twice.
    twice = [number for number in shop.effects() if shop.effects().count(number) > 1]
    assert len(set(twice)) <= 5
    assert not shop.run("SELECT 1 FROM effect WHERE key = $1", half)


def test_a_worker_on_nats_killed_forever_is_undone_by_another(shop: Shop) -> None:
    nats = pytest.importorskip("nats", reason="needs the package nats-py")
    address = os.environ.get("RETURNS_PIPELINE_NATS", "127.0.0.1:4222")
    shop.create(0)

    async def fill() -> None:
        try:
            client = await nats.connect(
                f"nats://{address}", allow_reconnect=False, connect_timeout=2
            )
        except Exception as error:
            absent(f"NATS at {address}: {error}")
        stream = client.jetstream()
        await stream.add_stream(name=shop.name, subjects=[shop.name])
        for number in range(COUNT):
            await stream.publish(shop.name, str(number).encode())
        await client.close()

    async def delete() -> None:
        client = await nats.connect(f"nats://{address}")
        await client.jetstream().delete_stream(shop.name)
        await client.close()

    asyncio.run(fill())
    shop.nats = address
    try:
        doomed = shop.start_worker(hangs=13)
        shop.wait_for(lambda: 13 in shop.effects(), "the half of a window")
        half = shop.run("SELECT key FROM effect WHERE number = 13")[0]["key"]
        survivor = shop.start_worker()
        doomed.kill()
        doomed.wait()
        shop.wait_for(lambda: not shop.run("SELECT 1 FROM effect WHERE key = $1", half), "the undo")
        shop.wait_for(lambda: set(shop.effects()) == set(range(COUNT)), "all messages")
        shop.stop(survivor)
    finally:
        asyncio.run(delete())


def children_of(process: subprocess.Popen[str]) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()]


def is_there(pid: int) -> bool:
    try:
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].startswith(" Z")
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_several_processes_are_kept_and_stopped_and_do_not_outlive_their_parent(
    shop: Shop,
) -> None:
    shop.create()
    parent = shop.start_worker("--processes", "2")
    shop.wait_for(lambda: len(children_of(parent)) == 2, "two processes")
    shop.wait_for(lambda: set(shop.effects()) == set(range(COUNT)), "all messages")
    victim, other = children_of(parent)
    os.kill(victim, signal.SIGKILL)
    shop.wait_for(
        lambda: len(found := children_of(parent)) == 2 and victim not in found, "another process"
    )
    assert other in children_of(parent)
    shop.stop(parent)
    assert not is_there(other)
    killed = shop.start_worker("--processes", "2")
    shop.wait_for(lambda: len(children_of(killed)) == 2, "two processes")
    children = children_of(killed)
    killed.kill()
    killed.wait()
    shop.wait_for(lambda: not any(map(is_there, children)), "the end of the orphans")


def test_a_signal_while_it_imports_ends_it_in_order(shop: Shop, tmp_path: Path) -> None:
    slow = tmp_path / "slow_shop.py"
    slow.write_text("import time\nprint('importing', flush=True)\ntime.sleep(1)\nworker = None\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "returns_pipeline.worker", "slow_shop:worker"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    shop.processes.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
