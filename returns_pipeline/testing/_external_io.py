"""The work of other threads, processes and servers that a loop on virtual time waits for.

Their time is real. A clock that jumps as soon as all tasks wait would jump past a thread that is at
work, or past a database that is about to answer, and each timeout on them would fire. So the loop
first asks this module what is *pending*, that is, which of them will presumably send something.

Calls and child processes are pending from their start to their end. A connection is pending from
the moment something is sent on it until something arrives that makes a task or a callback run: the
first part of an answer, with which the client can do nothing yet, does not end the wait. A future
that another thread resolves looks like any other future; whether one is pending is learned from the
line that awaits it.

All methods run in the loop's thread, except `ExternalIO.on_thread_message`.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from returns_pipeline.testing._await_points import (
    AwaitPoint,
    await_chain,
    is_asyncio,
    is_task_or_gather,
)

__all__ = ["ExternalIO", "has_other_threads"]

# Real seconds of silence after which an answer counts as complete. The data that has arrived may be
# a part that a task has read at once, or may have been sent before the question.
_SILENCE = 0.02
# How many elements of a thread's message are examined, and of each list inside it.
_MAX_ELEMENTS = 1000

# A future does not show which thread will resolve it. But a driver awaits the answers of its thread
# at the same few lines of its code, so each such line is classified once. The knowledge is about
# code, not about a loop: all loops of the process share it. Both sets only grow; a line that is in
# both counts as resolved by a thread.
_RESOLVED_BY_THREADS: set[AwaitPoint] = set()
_RESOLVED_HERE: set[AwaitPoint] = set()


class _Connection:
    """A connection to another process: which end spoke last, and when."""

    __slots__ = ("heard_at", "transport", "unanswered")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = weakref.ref(transport)
        self.unanswered = False
        self.heard_at = 0.0

    def recording(self, send: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return the same method, which also records that something was sent."""

        def recorded(data: Any) -> None:  # Any: bytes, or a list of them
            self.unanswered = True
            self.heard_at = time.monotonic()
            send(data)

        return recorded


class ExternalIO:
    """Tracks the threads, connections and child processes that one loop waits for.

    Attributes:
        given_up: Those that were silent for too long. They are not pending until they send again.
        scheduled: How many callbacks the loop has scheduled; it counts them here.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.scheduled = 0
        self._calls: dict[object, str] = {}
        self._connections: dict[int, _Connection] = {}
        self._children: weakref.WeakSet[asyncio.SubprocessTransport] = weakref.WeakSet()
        # Each awaited future with the line that awaits it; None for a line of asyncio itself.
        self._lines: weakref.WeakKeyDictionary[asyncio.Future[Any], AwaitPoint | None]
        self._lines = weakref.WeakKeyDictionary()
        self.given_up: dict[object, str] = {}

    def begin(self, key: object, what: str) -> None:
        """Add a call that is pending until `end` is called with the same key."""
        self._calls[key] = what

    def end(self, key: object) -> None:
        """Remove a call; an unknown key is ignored."""
        _ = self._calls.pop(key, None)

    def watch_child(self, child: asyncio.SubprocessTransport) -> None:
        """Add a child process, which is pending until it exits."""
        self._children.add(child)

    def watch_connection(
        self, descriptor: int, transport: asyncio.Transport, *, accepted: bool
    ) -> None:
        """Track what a connection sends and receives.

        A connection that a client has opened to us owes no answer to what we send.
        """
        connection = _Connection(transport)
        self._connections[descriptor] = connection
        if accepted:
            return
        # The loop does not see what is sent, so the transport's own methods must record it.
        for name in "write", "writelines":
            setattr(transport, name, connection.recording(getattr(transport, name)))

    def on_readable(self, descriptors: Iterable[int]) -> None:
        """Record that these descriptors have something to read."""
        for descriptor in descriptors:
            connection = self._connections.get(descriptor)
            if connection is not None:
                connection.heard_at = time.monotonic()
                _ = self.given_up.pop(connection, None)

    def read(self, descriptor: int, callback: Callable[[], object]) -> None:
        """Read what has arrived, by the transport's callback, and see whether it is an answer."""
        connection = self._connections.get(descriptor)
        if connection is None:
            _ = callback()
            return
        unanswered, connection.unanswered = connection.unanswered, False
        scheduled = self.scheduled
        try:
            _ = callback()
        finally:
            if self.scheduled == scheduled and unanswered:
                connection.unanswered = True  # nobody can do anything with it yet

    def give_up(self, pending: dict[object, str]) -> None:
        """Stop waiting for these."""
        self.given_up.update(pending)

    def pending(self) -> dict[object, str]:
        """Return what the loop should wait for, each with its description."""
        pending = dict(self._calls)
        for connection, transport in self._open_connections():
            peer = transport.get_extra_info("peername")
            if connection.unanswered and peer and not self._is_own(peer):
                pending[connection] = f"the answer of {peer}"
        for child in self._children:
            if child.get_returncode() is None:
                pending[child] = f"child process {child.get_pid()}"
        for future, line in self._awaited():
            if line in _RESOLVED_BY_THREADS:
                pending[future] = f"the thread that answers {line}"
        # Forget those that have ended since.
        self.given_up = {key: what for key, what in self.given_up.items() if key in pending}
        return {key: what for key, what in pending.items() if key not in self.given_up}

    def unclassified(self) -> set[AwaitPoint]:
        """Return the lines that await a future a thread may, or may not, be about to resolve."""
        if not has_other_threads():
            return set()
        lines = {line for _, line in self._awaited()}
        return lines - _RESOLVED_BY_THREADS - _RESOLVED_HERE

    def classify(self, lines: set[AwaitPoint]) -> None:
        """Assume that no thread resolves the futures of these lines, until one does."""
        _RESOLVED_HERE.update(lines)

    def on_thread_message(self, callback: object, args: tuple[object, ...]) -> None:
        """Learn from the message of another thread which lines await the answers of threads.

        This runs in that thread. It only reads, and adds to a set.
        """
        message = (getattr(callback, "__self__", None), getattr(callback, "args", ()), args)
        for value in _flattened(message):
            line = self._lines.get(value) if asyncio.isfuture(value) else None
            if line is not None:
                _RESOLVED_BY_THREADS.add(line)

    def _awaited(self) -> Iterator[tuple[asyncio.Future[Any], AwaitPoint]]:
        """Yield the futures that tasks await outside asyncio's own code, each with its line."""
        tasks: Any = asyncio.all_tasks(self._loop)
        for task in tasks:
            future = task._fut_waiter
            if future is None or is_task_or_gather(future):
                continue
            if future not in self._lines:
                points = await_chain(task.get_coro())
                own = points and not is_asyncio(points[-1])
                self._lines[future] = points[-1] if own else None
            if (line := self._lines[future]) is not None:
                yield future, line

    def seconds_until_silence(self) -> float:
        """Return for how many real seconds more an answer may still be arriving."""
        latest = max((it.heard_at for it, _ in self._open_connections()), default=0.0)
        return latest + _SILENCE - time.monotonic()

    def _open_connections(self) -> list[tuple[_Connection, asyncio.Transport]]:
        found: list[tuple[_Connection, asyncio.Transport]] = []
        for descriptor, connection in list(self._connections.items()):
            transport = connection.transport()
            if transport is None or transport.is_closing():
                del self._connections[descriptor]
            else:
                found.append((connection, transport))
        return found

    def _is_own(self, address: object) -> bool:
        """Whether the other end of a connection belongs to this loop too."""
        return any(
            transport.get_extra_info("sockname") == address
            for _, transport in self._open_connections()
        )


def _flattened(values: Any, depth: int = 4) -> Iterator[object]:
    """Yield the contents of a message: it may resolve several futures at once."""
    for value in itertools.islice(values, _MAX_ELEMENTS):
        if depth and isinstance(value, list | tuple):
            yield from _flattened(value, depth - 1)
        else:
            yield value


def has_other_threads() -> bool:
    """Whether there is a thread that could send an unannounced message."""
    # A thread of asyncio's own pool runs jobs of run_in_executor(), which are tracked.
    return any(
        thread is not threading.current_thread() and not thread.name.startswith("asyncio_")
        for thread in threading.enumerate()
    )
