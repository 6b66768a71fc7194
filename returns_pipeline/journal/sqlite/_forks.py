"""Keeps `fork` and SQLite apart: a forked child works or is refused, and never hangs.

A fork copies SQLite's memory: mutexes as they are at that moment, and the locks that the process
believes it holds, which the kernel leaves to the parent alone. Two rules make that safe:

1. A fork waits until no thread of ours is inside SQLite. Each thread says when it is, by `inside`,
   and lets a fork pass while it only waits for another process, by `outside`.
2. A child never opens a file that its parent had open when it forked (`is_inherited`), not even
   under a new journal object: its SQLite would take the parent's locks for its own.

Here too is the count of forks, by which an object tells the process that opened it from a child.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator
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

# Device and inode: what a file is, whatever name it has.
FileId: TypeAlias = "tuple[int, int]"


class _Gate:
    """Counts the threads inside SQLite, and holds a fork until there are none.

    The thread that forks holds the condition's lock from `close` to `open`, so that no other thread
    enters meanwhile. Nothing that a thread does inside may wait for the thread that forks.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0

    def enter(self) -> None:
        with self._changed:
            self._inside += 1

    def leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self) -> None:
        _ = self._changed.acquire()
        while self._inside:
            _ = self._changed.wait()

    def open(self) -> None:
        self._changed.release()


_gate = _Gate()
_forks = 0  # between the first process and this one
_open: Counter[FileId] = Counter()  # connections of this process to each file
_inherited: set[FileId] = set()  # files that were open when this process was forked
_in_child: list[Callable[[], None]] = []


def forks() -> int:
    """Return a number that differs between a process and the children that it forks."""
    return _forks


@contextlib.contextmanager
def inside() -> Generator[None, None, None]:
    """Hold any fork off, during calls of SQLite that do not wait for other processes."""
    _gate.enter()
    try:
        yield
    finally:
        _gate.leave()


@contextlib.contextmanager
def outside() -> Generator[None, None, None]:
    """Let a fork pass in the middle of `inside`: no transaction and no call may be open."""
    _gate.leave()
    try:
        yield
    finally:
        _gate.enter()


def file_at(path: Path) -> FileId | None:
    """Return which file has this name, or ``None`` if none has."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def opened(path: Path) -> FileId | None:
    """Note a connection to the file of this name, and return which file it is."""
    file = file_at(path)
    if file is not None:
        _open[file] += 1
    return file


def closed(file: FileId | None) -> None:
    """Note the end of a connection."""
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
    """Have a function called in every forked child, after this module has been reset."""
    _in_child.append(callback)


def _reset() -> None:
    """Begin as a child. Its only thread is the one that forked, so no lock can be in use."""
    global _gate, _forks  # noqa: PLW0603  # they belong to the process
    _gate = _Gate()
    _forks += 1
    # The inherited connections stay open in the child for ever (closing one would be a call of
    # SQLite that its parent's state makes unsafe). So the inodes cannot be those of other files.
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
