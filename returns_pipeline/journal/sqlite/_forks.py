"""Keeps `fork` and SQLite apart: a forked child works or is refused, and never hangs.

A fork copies SQLite's memory: its mutexes in their current state, and its notes on which locks the
process holds, although the kernel leaves the locks to the parent. Two rules make that safe:

1. A fork waits until none of our threads is inside SQLite. A thread announces that with `inside`;
   with `outside` it allows a fork while it only waits for another process.
2. A child never opens a file that its parent had open at the fork (`is_inherited`), not even with a
   new journal object: SQLite in the child would take the parent's locks for its own.

This module also counts forks: so an object can tell the process that opened it from a child.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

__all__ = [
    "FileId",
    "after_fork_in_child",
    "closed",
    "file_at",
    "forks",
    "inside",
    "is_inherited",
    "is_open",
    "opened",
    "outside",
]

# Device and inode: they identify a file, whatever its name.
FileId: TypeAlias = "tuple[int, int]"


class _Gate:
    """Counts the threads inside SQLite, and makes a fork wait until there are none.

    The thread that forks holds the lock from `close` to `open`, so no other thread
    enters meanwhile. A thread inside must not wait for the thread that forks: it would never end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._empty = threading.Condition(self._lock)
        self._inside = 0
        self._waiting = 0  # threads in `close`

    def enter(self) -> None:
        with self._lock:
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._waiting:  # it is rare, and to notify is slow
                self._empty.notify_all()

    def close(self) -> None:
        _ = self._lock.acquire()
        self._waiting += 1
        while self._inside:
            _ = self._empty.wait()
        self._waiting -= 1

    def open(self) -> None:
        self._lock.release()


_gate = _Gate()
_forks = 0  # how many lie between the first process and this one
_open: Counter[FileId] = Counter()  # connections of this process to each file
_inherited: set[FileId] = set()  # files that were open when this process was forked
_in_child: list[Callable[[], None]] = []


def forks() -> int:
    """Return a number that differs between a process and the children that it forks."""
    return _forks


class _Inside:
    """What `inside` returns. Not a generator: it is used twice for each transaction."""

    __slots__ = ()

    def __enter__(self) -> None:
        _gate.enter()

    def __exit__(self, *_: object) -> None:
        _gate.leave()


def inside() -> AbstractContextManager[None]:
    """Prevent forks during calls of SQLite that do not wait for other processes."""
    return _Inside()


@contextlib.contextmanager
def outside() -> Generator[None, None, None]:
    """Allow forks within `inside`, at a point where no transaction and no call is open."""
    _gate.leave()
    try:
        yield
    finally:
        _gate.enter()


def file_at(path: Path | str) -> FileId | None:
    """Return which file has this name, or ``None`` if none has."""
    try:
        found = os.stat(path)  # noqa: PTH116  # `Path.stat` costs twice as much
    except OSError:
        return None
    return found.st_dev, found.st_ino


def opened(path: Path) -> FileId | None:
    """Count a connection to the file of this name, and return which file it is."""
    file = file_at(path)
    if file is not None:
        _open[file] += 1
    return file


def closed(file: FileId | None) -> None:
    """Count the end of a connection."""
    if file is not None:
        _open[file] -= 1
        if _open[file] <= 0:
            del _open[file]


def is_open(path: Path) -> bool:
    """Return whether this process has a connection to the file of this name."""
    return file_at(path) in _open


def is_inherited(path: Path) -> bool:
    """Return whether the file of this name was open in the process that forked this one."""
    return bool(_inherited) and file_at(path) in _inherited


def after_fork_in_child(callback: Callable[[], None]) -> None:
    """Register a function that is called in every forked child, after this module's reset."""
    _in_child.append(callback)


def _reset() -> None:
    """Reset this module in a child. The child has one thread, so no lock can be in use."""
    global _gate, _forks  # noqa: PLW0603  # they belong to the process
    _gate = _Gate()
    _forks += 1
    # The child never closes the inherited connections, because a call of SQLite would be unsafe in
    # the state that it copied. They stay open, so no other file can get the same inode.
    _inherited.update(_open)
    _open.clear()
    for callback in _in_child:
        callback()


def _close_gate() -> None:
    _gate.close()


def _open_gate() -> None:
    _gate.open()


if hasattr(os, "register_at_fork"):  # absent on Windows, which has no fork
    os.register_at_fork(
        before=_close_gate,
        after_in_parent=_open_gate,
        after_in_child=_reset,
    )
