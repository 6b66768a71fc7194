"""What tests of journals in PostgreSQL share: places, processes, a server, wires to be cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit, urlunsplit

import pytest
from servers import absent
from undoing import poison, undone

from returns_pipeline.compensation import Compensation, CompensationScope
from returns_pipeline.journal import PostgresJournal, recover

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from returns_pipeline.compensation import CompensationRegistry
    from returns_pipeline.journal import RecoveryReport


class PostgresCluster:
    """A server that may be stopped and started.

    Attributes:
        dsn: Where it is, whether it runs or not.
    """

    def __init__(self, binaries: Path, place: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._binaries = binaries
        self._place = place
        self._runs = False
        self.dsn = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
        self._do("initdb", "--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8")

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        if not self._runs:
            options = f"-p {self._port} -k {self._place} -h 127.0.0.1"
            self._do("pg_ctl", "-w", "-l", str(self._place / "log"), "-o", options, "start")
            self._runs = True

    def stop(self, mode: str = "fast") -> None:
        """Stop it: "immediate" is a crash."""
        if self._runs:
            self._do("pg_ctl", "-w", "-m", mode, "stop")
            self._runs = False

    def place(self, schema: str) -> Place:
        """Return a schema of it that does not exist yet."""
        return Place(self.dsn, schema)

    def _do(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), "-D", str(self._place / "data"), *arguments]
        # Into a file: the server keeps what it is given open.
        with (self._place / "output").open("w") as output:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
                cwd=self._place,
                user="postgres" if os.geteuid() == 0 else None,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            )
        assert done.returncode == 0, (self._place / "output").read_text()


@pytest.fixture(scope="session")
def _cluster() -> Iterator[PostgresCluster]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    binaries = found[-1].parent if found else Path(on_path).parent if on_path else None
    if binaries is None:
        absent("initdb and pg_ctl of PostgreSQL")
    # Not in pytest's own place, which the server's user may not enter.
    place = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(place, user.pw_uid, user.pw_gid)
        cluster = PostgresCluster(binaries, place)
        try:
            yield cluster
        finally:
            cluster.stop("immediate")
    finally:
        shutil.rmtree(place)


@pytest.fixture
def postgres_cluster(_cluster: PostgresCluster) -> PostgresCluster:
    """Return a running server that the test may stop. All tests that use this share it."""
    pytest.importorskip("asyncpg", reason="needs the package asyncpg")
    _cluster.start()
    return _cluster


class Place:
    """Makes journals in one schema of a database."""

    def __init__(self, dsn: str, schema: str, **options: object) -> None:
        self.dsn = dsn
        self.schema = schema
        self.options: dict[str, Any] = options

    def __call__(self, **options: Any) -> PostgresJournal:
        arguments: dict[str, Any] = {"dsn": self.dsn, "schema": self.schema}
        return PostgresJournal(**(arguments | self.options | options))

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Any]:
        connection = await import_module("asyncpg").connect(self.dsn)
        try:
            yield connection
        finally:
            await connection.close()

    async def execute(self, statement: str) -> None:
        async with self.database() as connection:
            await connection.execute(statement.replace("{schema}", self.schema))

    async def value(self, query: str) -> Any:
        async with self.database() as connection:
            return await connection.fetchval(query.replace("{schema}", self.schema))

    async def recovered(
        self, journal: PostgresJournal, registry: CompensationRegistry
    ) -> list[RecoveryReport]:
        """Recover, as soon as the dead are known to be dead: leases of others end at once."""
        await self.execute(
            "UPDATE {schema}.owner SET expires = clock_timestamp() "
            f"WHERE expires IS NOT NULL AND id <> '{journal._writer.delivery.owner}'"
        )
        found: list[RecoveryReport] = []

        async def any_dead() -> bool:
            # The server may need a moment to see that a killed process is no longer there.
            found.extend(await recover(journal, registry))
            return bool(found)

        await self.until(any_dead)
        return found

    @staticmethod
    def forked(work: Callable[[Child], Coroutine[None, None, None]]) -> None:
        """Do work in a process that is then killed."""
        with Child(work) as child:
            child.wait()

    @staticmethod
    async def until(condition: Callable[[], Coroutine[None, None, bool]]) -> None:
        """Ask until it is so."""
        end = time.monotonic() + 10
        while not await condition():
            assert time.monotonic() < end
            await asyncio.sleep(0.01)

    @staticmethod
    async def states(journal: PostgresJournal) -> dict[str, list[tuple[str, str, int]]]:
        """Return what became of the actions of each saga, by its name."""
        found: dict[str, list[tuple[str, str, int]]] = {}
        for saga in await journal.sagas():  # of one name there may be several: the newest first
            states = [(it.arguments, it.state, it.attempts) for it in saga.actions]
            found.setdefault(saga.name, []).extend(states)
        return found

    @staticmethod
    async def left_open(
        journal: PostgresJournal, name: str, undo: Compensation[[str]], *undos: str
    ) -> None:
        """Register what is never settled, as in a process that dies."""
        scope = CompensationScope(name, journal=journal)
        for one in undos:
            await scope.register(undo, one)
        scope._records = []  # otherwise it warns when it is collected


class Child:
    """A process that works, reports how far it is, and is killed in the end."""

    def __init__(self, work: Callable[[Child], Coroutine[None, None, None]]) -> None:
        self._reads, self._writes = os.pipe()
        self._listens, self._tells = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                asyncio.run(work(self))
            except BaseException as error:
                self.say(repr(error))
            finally:
                self.say("end")
                os.kill(os.getpid(), signal.SIGKILL)
        os.close(self._writes)

    def say(self, what: str) -> None:
        os.write(self._writes, f"{what}\n".encode())

    def hear(self) -> None:
        """In the child: wait for the parent, with the loop blocked."""
        os.read(self._listens, 1)

    def tell(self) -> None:
        os.write(self._tells, b".")

    def line(self) -> str:
        """In the parent: wait for what the child says."""
        said = b""
        while not said.endswith(b"\n"):
            byte = os.read(self._reads, 1)
            if not byte:
                return "dead"
            said += byte
        return said.decode().strip()

    def wait(self) -> None:
        assert self.line() == "end"

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)
        if number == signal.SIGSTOP:
            os.waitpid(self.pid, os.WUNTRACED)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        for end in self._reads, self._listens, self._tells:
            os.close(end)


def place_of(dsn: str, **options: object) -> Place:
    """Return the place that the fixture `postgres_dsn` made."""
    (schema,) = re.findall(r"test_\w+", dsn)
    return Place(dsn, schema, **options)


@pytest.fixture
def place(postgres_dsn: str) -> Place:
    """Return a schema of the test's own."""
    return place_of(postgres_dsn)


@pytest.fixture(params=["session", "lease"])
def make(postgres_dsn: str, request: pytest.FixtureRequest) -> Place:
    """Return the same, for journals of both kinds of liveness."""
    return place_of(postgres_dsn, liveness=request.param)


@pytest.fixture
def child() -> type[Child]:
    """Return the class of processes, to be used in a ``with`` statement."""
    return Child


class Wire:
    """A way to a server that is cut at the n-th piece of data, whichever its direction.

    Args:
        dsn: Of the server.

    Attributes:
        dsn: Where to connect instead.
        left: Pieces until it is cut; what comes after is not counted until this is set again.
        delivers: Whether the piece at which it is cut still arrives.
        half: Whether the server does not learn that it was cut.
        closes: Whether it refuses connections from then on.
        closed: Whether it refuses connections.
        connections: How many there have been.
    """

    def __init__(self, dsn: str) -> None:
        self._parts = urlsplit(dsn)
        self.dsn = ""
        self._writers: set[asyncio.StreamWriter] = set()  # to clients
        self._backs: set[asyncio.StreamWriter] = set()  # to the server
        self._tasks: set[asyncio.Task[None]] = set()
        self.left = -1
        self.delivers = False
        self.half = False
        self.closes = False
        self.closed = False
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        user = self._parts.netloc.rpartition("@")[0]
        self.dsn = urlunsplit(self._parts._replace(netloc=f"{user}@127.0.0.1:{port}"))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.half = False
        self.cut()
        await asyncio.gather(*self._tasks)

    def cut(self) -> None:
        """End all connections abruptly."""
        self.closed = self.closes
        for writer in self._writers if self.half else {*self._writers, *self._backs}:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self._writers.add(writer)
        if self.closed:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(self._parts.hostname, self._parts.port or 5432)
        self._backs.add(back)
        await asyncio.gather(self._relay(reader, back), self._relay(there, writer))
        self._writers.discard(writer)
        self._backs.discard(back)
        for end in writer, back:
            with contextlib.suppress(OSError):
                await end.wait_closed()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                self.left -= 1
                if self.left == 0 and not self.delivers:
                    self.cut()
                    return
                writer.write(data)
                if self.left == 0:
                    await writer.drain()
                    self.cut()
                    return
        if not self.half:
            writer.close()


class Pooler:
    """A transaction pooler: each transaction of a client is another server process's.

    Args:
        dsn: Of the server.

    Attributes:
        dsn: Where to connect instead.
        transactions: How many there have been.
    """

    def __init__(self, dsn: str) -> None:
        self._parts = urlsplit(dsn)
        self._tasks: set[asyncio.Task[None]] = set()
        self.dsn = ""
        self.transactions = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        user = self._parts.netloc.rpartition("@")[0]
        # A pooler refuses most settings of a session.
        self.dsn = urlunsplit(self._parts._replace(netloc=f"{user}@127.0.0.1:{port}", query=""))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.gather(*self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        backs: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while len(hello := await self._message(reader, typed=False)) == 8:
                writer.write(b"N")  # no encryption
            for number in range(2):
                host, port = self._parts.hostname, self._parts.port or 5432
                backs.append(await asyncio.open_connection(host, port))
                backs[-1][1].write(hello)
                message = b""
                while message[:1] != b"Z":
                    message = await self._message(backs[-1][0])
                    if number == 0:
                        writer.write(message)
            answers = asyncio.create_task(self._answer(writer, backs))
            try:
                while (message := await self._message(reader))[:1] != b"X":
                    backs[0][1].write(message)
            finally:
                answers.cancel()
        for end in writer, *(back for _, back in backs):
            end.close()
            with contextlib.suppress(ConnectionError):
                await end.wait_closed()

    async def _answer(
        self,
        writer: asyncio.StreamWriter,
        backs: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]],
    ) -> None:
        while True:
            message = await self._message(backs[0][0])
            if message[:1] + message[5:] == b"ZI":  # the end of a transaction
                self.transactions += 1
                backs.reverse()
            writer.write(message)

    @staticmethod
    async def _message(reader: asyncio.StreamReader, *, typed: bool = True) -> bytes:
        head = await reader.readexactly(5 if typed else 4)
        return head + await reader.readexactly(int.from_bytes(head[-4:]) - 4)


@pytest.fixture
def pooler() -> type[Pooler]:
    """Return the class of transaction poolers, to be used in an ``async with`` statement."""
    return Pooler


@pytest.fixture
def wire() -> type[Wire]:
    """Return the class of ways that can be cut, to be used in an ``async with`` statement."""
    return Wire


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    undone.clear()
    poison.clear()
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("journal")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"
