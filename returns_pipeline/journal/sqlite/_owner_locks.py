"""Who is alive: an owner holds a lock on a file of its own as long as its process lives.

The kernel lets go of the lock when the process ends, in whatever way, and at no other time: no
clock is involved, a stopped process is not taken for a dead one, and a number that the system
gives to a new process means nothing. A child process made by fork does not inherit the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["forks", "give_back", "lives", "remove", "take"]

# Paths of the lock files that this process holds. A second descriptor for one of them must never
# be opened here: closing it would let go of the lock (POSIX). Also, a process never conflicts with
# itself, so a lock cannot tell that an owner lives in this very process.
_held: dict[str, int] = {}
_held_guard = threading.Lock()
_forks = 0  # how many lie between the first process and this one


def forks() -> int:
    """Tell this process from those it was forked from, and those it forks."""
    return _forks


def take(path: Path) -> None:
    """Make the file and hold its lock until `give_back`, or until the process ends.

    Raises:
        OSError: The file cannot be made, or not be locked.
    """
    with _held_guard:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # the kernel is out of locks, perhaps
            remove(path)
            os.close(descriptor)
            raise
        _held[str(path)] = descriptor


def give_back(path: Path) -> None:
    """Remove the file and let go of its lock, if this process holds it."""
    with _held_guard:
        descriptor = _held.pop(str(path), None)
        if descriptor is not None:
            remove(path)
            os.close(descriptor)


def lives(path: Path) -> bool:
    """Say whether the owner of this file is there; if that cannot be seen, it is."""
    with _held_guard:
        if _is_held(path):
            return True
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError:  # another user's, perhaps: who cannot be asked is not robbed
            return True
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
    return False


def _is_held(path: Path) -> bool:
    """Say whether this process holds it, by this name or another: a directory may be moved."""
    if str(path) in _held:
        return True
    with contextlib.suppress(OSError):
        found = path.stat()
        return any(os.path.samestat(found, os.fstat(held)) for held in _held.values())
    return False


def remove(path: Path) -> None:
    """Remove the file of an owner that is dead."""
    with contextlib.suppress(OSError):
        path.unlink()


def _forget() -> None:
    """Begin as a child process: nothing of its parent's is held."""
    global _held_guard, _forks  # noqa: PLW0603  # the process's own
    _held_guard = threading.Lock()  # another thread of the parent may have held it
    _held.clear()
    _forks += 1


os.register_at_fork(after_in_child=_forget)
