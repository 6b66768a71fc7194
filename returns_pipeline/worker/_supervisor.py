"""`supervise`: several processes of one worker, each restarted when it dies."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from collections.abc import Sequence
from typing import Final

from returns_pipeline._engine.logs import facts
from returns_pipeline.worker._early import EarlySignals
from returns_pipeline.worker._signals import handling

__all__ = ["supervise"]

_log = logging.getLogger("returns_pipeline.worker")

_USAGE: Final = 2
# Seconds until a process that died is started again; they double each time, up to the longest.
_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0
# A process that lived for longer than this did not die of what killed the one before.
_LIVED_LONG: Final = 60.0


async def supervise(commands: Sequence[Sequence[str]], early: EarlySignals) -> int:
    """Run a process for each command until all have ended; return the exit code of them all.

    1. A process that ends with 0 has done its work. One that ends otherwise is started again, after
       a wait that doubles with each death in a row.
    2. The first SIGTERM, or SIGINT, is passed on as SIGTERM: they drain. So is the second: they
       cancel. The third kills them.
    3. If one was used wrongly, so were all: they are stopped.
    4. If this process dies, each child sees the end of its standard input, and drains.

    Returns:
        0 if each process has ended with 0, or was still starting when it got SIGTERM; else the
        first other code; 128 and the number of the signal, as in a shell, of a process that a
        signal has killed.
    """
    family = _Family()
    loop = asyncio.get_running_loop()

    def on_signal(_: int) -> None:
        _handle = loop.call_soon_threadsafe(family.stop)

    with handling(on_signal):
        if early.came:
            return 0
        codes = await asyncio.gather(*(family.keep(command) for command in commands))
    return next((code for code in codes if code), 0)


class _Family:
    """The child processes, and how often they were asked to stop."""

    def __init__(self) -> None:
        self._children: set[asyncio.subprocess.Process] = set()
        self._asked = 0
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask all to stop, more firmly each time."""
        self._asked += 1
        self._stopping.set()
        for child in list(self._children):
            self._ask(child)

    def _ask(self, child: asyncio.subprocess.Process) -> None:
        if child.returncode is None:
            child.send_signal(signal.SIGKILL if self._asked > 2 else signal.SIGTERM)

    async def keep(self, command: Sequence[str]) -> int:
        """Run a command, again and again if it fails; return its last exit code."""
        loop = asyncio.get_running_loop()
        deaths = 0
        while True:
            began = loop.time()
            code = await self._run(command)
            if code in {0, _USAGE} or self._stopping.is_set():
                if code == _USAGE and not self._stopping.is_set():
                    self.stop()
                return self._exit_code(code)
            deaths = 1 if loop.time() - began > _LIVED_LONG else deaths + 1
            wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (deaths - 1))
            wait *= random.uniform(0.75, 1)  # noqa: S311
            _log.warning(
                "a worker ended with %d; the next one starts in %.1f s",
                code,
                wait,
                extra=facts(code=code, delay=wait),
            )
            try:
                async with asyncio.timeout(wait):
                    _ = await self._stopping.wait()
            except TimeoutError:
                continue
            return self._exit_code(code)

    def _exit_code(self, code: int) -> int:
        """Return the exit code of a process as this process reports it."""
        if code == -signal.SIGTERM and self._asked == 1:
            return 0  # it was killed by what it had no handler for yet: it had not begun
        return code if code >= 0 else 128 - code

    async def _run(self, command: Sequence[str]) -> int:
        # In a session of its own, so that Ctrl-C in a terminal comes from here alone, once.
        try:
            child = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, start_new_session=True
            )
        except OSError as error:  # no memory, or too many processes: it may be better later
            _log.error("a worker cannot be started: %s", error)
            return 1
        self._children.add(child)
        if self._stopping.is_set():  # it was asked while the process was being made
            self._ask(child)
        try:
            return await child.wait()
        finally:
            self._children.discard(child)
            if child.stdin is not None:
                child.stdin.close()
