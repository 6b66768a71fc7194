"""Brokers of a test's own, which it may kill and start again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Self

from servers import absent

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class OwnBroker:
    """A server in a directory, at a port that was free.

    Attributes:
        program: What must be on the PATH, or the path of it.
        port: Where it listens.
        place: Where it keeps its files.
    """

    program: str
    seconds = 20.0

    def __init__(self, place: Path) -> None:
        self.place = place
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        found = shutil.which(self.program)
        if found is None:
            absent(f"the program {self.program}")
        with (self.place / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [found, *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.place,
                env={**os.environ, **self.environment()},
                start_new_session=True,
            )
        deadline = time.monotonic() + self.seconds
        while not self.is_ready():
            if time.monotonic() > deadline or self._process.poll() is not None:
                absent(f"{self.program}, which did not start: see {self.place}")
            time.sleep(0.02)

    def is_ready(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Kill it: what it has not written is lost."""
        if self._process is not None:
            os.kill(self.pid(), signal.SIGKILL)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Stop it in good order, and start it again."""
        assert self._process is not None
        os.kill(self.pid(), signal.SIGTERM)
        self._process.wait()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.kill()


class OwnNats(OwnBroker):
    """NATS with JetStream."""

    program = "nats-server"

    def command(self) -> list[str]:
        return ["-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.place)]


class OwnRedis(OwnBroker):
    """Redis that writes each command to the disk."""

    program = "redis-server"

    def __init__(self, place: Path, *, master: int | None = None) -> None:
        super().__init__(place)
        self.master = master

    def command(self) -> list[str]:
        options = ["--port", str(self.port), "--dir", str(self.place), "--save", ""]
        if self.master is not None:
            options += ["--replicaof", "127.0.0.1", str(self.master)]
        return [*options, "--appendonly", "yes", "--appendfsync", "always"]


class OwnRabbit(OwnBroker):
    """A node of RabbitMQ, with the lines of a configuration."""

    program = "/usr/lib/rabbitmq/bin/rabbitmq-server"
    seconds = 60.0

    def __init__(self, place: Path, *configuration: str) -> None:
        super().__init__(place)
        self.configuration = configuration

    def command(self) -> list[str]:
        return []

    def environment(self) -> dict[str, str]:
        place = self.place
        (place / "plugins").write_text("[].")
        (place / "rabbitmq.conf").write_text("\n".join(self.configuration))
        return {
            "HOME": str(place),
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.dist_port()),
            "RABBITMQ_MNESIA_BASE": str(place / "data"),
            "RABBITMQ_LOG_BASE": str(place / "logs"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(place / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(place / "rabbitmq.conf"),
            "RABBITMQ_PID_FILE": str(place / "pid"),
        }

    def dist_port(self) -> int:
        if not hasattr(self, "_dist_port"):
            self._dist_port = free_port()
        return self._dist_port

    def pid(self) -> int:
        # The program is a script, which starts the node.
        return int((self.place / "pid").read_text())


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
