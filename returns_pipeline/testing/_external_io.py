"""What a loop on virtual time still expects from the world outside, whose time is real.

A clock that jumps whenever all tasks wait would jump past a thread that is at work, or a database
that is about to answer, and every time limit on them would fire. So the loop asks here first.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from returns_pipeline.testing._await_points import Place, chain, is_asyncio, is_of_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Outside", "other_threads"]

# Real seconds that a connection must have been silent for, before its answer is taken for complete:
# what came may be the first part of it, or have been on its way before.
_SILENCE = 0.02
# Elements of a message that are looked at, and of each list in it.
_WIDEST = 1000

# Whether a future is answered by another thread cannot be seen, but it is learned by the place at
# which it is awaited: a driver awaits its thread's answers at the same few lines of its code. What
# is learned holds for every loop of the process.
_ANSWERED_BY_THREADS: set[Place] = set()
_ANSWERED_HERE: set[Place] = set()


class _Connection:
    """A connection to another process: who has spoken last, and when."""

    __slots__ = ("heard_at", "transport", "unanswered")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = weakref.ref(transport)
        self.unanswered = False
        self.heard_at = 0.0

    def noting(self, send: Callable[[Any], None]) -> Callable[[Any], None]:
        """Give the same method, that also notes that something was sent."""

        def noted(data: Any) -> None:  # Any: bytes, or a list of them
            self.unanswered = True
            self.heard_at = time.monotonic()
            send(data)

        return noted


class Outside:
    """Keeps account of threads, connections and child processes of one loop.

    Attributes:
        given_up: What was owed, and is not waited for until it shows a sign of life.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: dict[object, str] = {}
        self._connections: dict[int, _Connection] = {}
        self._children: weakref.WeakSet[asyncio.SubprocessTransport] = weakref.WeakSet()
        self._waits: weakref.WeakKeyDictionary[asyncio.Future[Any], Place | None]
        self._waits = weakref.WeakKeyDictionary()
        self.given_up: dict[object, str] = {}

    def begin(self, key: object, what: str) -> None:
        """Expect the end of something that was started."""
        self._calls[key] = what

    def end(self, key: object) -> None:
        """Expect it no more."""
        _ = self._calls.pop(key, None)

    def watch_child(self, child: asyncio.SubprocessTransport) -> None:
        """Expect the end of a child process."""
        self._children.add(child)

    def watch(self, descriptor: int, transport: asyncio.Transport, *, accepted: bool) -> None:
        """Take note of what a connection sends and receives.

        One that a client has opened to us owes no answers to what we send.
        """
        connection = _Connection(transport)
        self._connections[descriptor] = connection
        if accepted:
            return
        # Sending does not pass through the loop, so the transport has to tell.
        for name in "write", "writelines":
            setattr(transport, name, connection.noting(getattr(transport, name)))

    def heard(self, descriptors: Iterable[int]) -> None:
        """Take note of what has something to read."""
        for descriptor in descriptors:
            connection = self._connections.get(descriptor)
            if connection is not None:
                connection.unanswered = False
                connection.heard_at = time.monotonic()
                _ = self.given_up.pop(connection, None)

    def give_up(self, owed: dict[object, str]) -> None:
        """Stop waiting for these."""
        self.given_up.update(owed)

    def owed(self) -> dict[object, str]:
        """Say what is to be waited for, each with its description."""
        owed = dict(self._calls)
        for connection, transport in self._open_connections():
            peer = transport.get_extra_info("peername")
            if connection.unanswered and peer and not self._is_own(peer):
                owed[connection] = f"the answer of {peer}"
        for child in self._children:
            if child.get_returncode() is None:
                owed[child] = f"child process {child.get_pid()}"
        for future, place in self._awaited():
            if place in _ANSWERED_BY_THREADS:
                owed[future] = f"the thread that answers {place}"
        # What is settled need not be remembered.
        self.given_up = {key: what for key, what in self.given_up.items() if key in owed}
        return {key: what for key, what in owed.items() if key not in self.given_up}

    def strangers(self) -> set[Place]:
        """Give the places that wait for a future, and of which nobody knows who answers them."""
        if not other_threads():
            return set()
        places = {place for _, place in self._awaited()}
        return places - _ANSWERED_BY_THREADS - _ANSWERED_HERE

    def get_to_know(self, places: set[Place]) -> None:
        """Take these for places that are answered here, until a thread answers one."""
        _ANSWERED_HERE.update(places)

    def on_message(self, callback: object, args: tuple[object, ...]) -> None:
        """Learn from a message of another thread for which places there are threads.

        Called in that thread.
        """
        told = (getattr(callback, "__self__", None), getattr(callback, "args", ()), args)
        for value in _flat(told):
            place = self._waits.get(value) if asyncio.isfuture(value) else None
            if place is not None:
                _ANSWERED_BY_THREADS.add(place)

    def _awaited(self) -> Iterator[tuple[asyncio.Future[Any], Place]]:
        """Give the futures that tasks wait for outside of asyncio's own code, and where."""
        tasks: Any = asyncio.all_tasks(self._loop)
        for task in tasks:
            future = task._fut_waiter
            if future is None or is_of_tasks(future):
                continue
            if future not in self._waits:
                places = chain(task.get_coro())
                own = places and not is_asyncio(places[-1])
                self._waits[future] = places[-1] if own else None
            if (place := self._waits[future]) is not None:
                yield future, place

    def noise(self) -> float:
        """Say for how many real seconds an answer may still go on."""
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
        """Say whether the other end belongs to this loop too."""
        return any(
            transport.get_extra_info("sockname") == address
            for _, transport in self._open_connections()
        )


def _flat(values: Any, depth: int = 4) -> Iterator[object]:
    """Give what is in a message: it may tell of several answers at once."""
    for value in itertools.islice(values, _WIDEST):
        if depth and isinstance(value, list | tuple):
            yield from _flat(value, depth - 1)
        else:
            yield value


def other_threads() -> bool:
    """Say whether there is a thread that could send a message, foreseen or not."""
    # Those of asyncio's own pool do what run_in_executor() gives them, and that is counted.
    return any(
        thread is not threading.current_thread() and not thread.name.startswith("asyncio_")
        for thread in threading.enumerate()
    )
