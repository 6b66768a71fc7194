"""Which owners are alive: each holds a lock on a file of its own until its process ends.

The kernel releases the lock when the process ends, in any way, and at no other time. No clock is
involved, a stopped process is not taken for dead, and a reused process id does no harm.

The lock is made by ``flock``. It belongs to the *open file*, not to the process, as does that of
``F_OFD_SETLK``, which macOS and the BSDs lack. A POSIX record lock would belong to the process: a
backup inside the process, which opens the lock file, reads it and closes it, would release the
lock, and a living owner would be taken for dead.

A forked child inherits the open file, and shares the lock. It closes its copy at once; otherwise
the parent would seem alive for as long as the child is.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from returns_pipeline.journal.sqlite import _forks as forks

if TYPE_CHECKING:
    import fcntl
else:
    try:
        import fcntl
    except ImportError:  # Windows: `SqliteJournal` refuses to be made there
        fcntl = None

__all__ = ["OwnerLock", "is_alive", "is_supported", "lock_path", "remove", "share_access"]

# Descriptors of the locks that this process holds, for a forked child to close.
_held: set[int] = set()


def is_supported() -> bool:
    """Return whether this platform has the locks of POSIX."""
    return sys.modules.get("fcntl") is not None


def lock_path(journal: Path, owner: str) -> Path:
    """Return the file that an owner of a journal has locked."""
    return journal.with_name(f"{journal.name}-owner-{owner}")


class OwnerLock:
    """The lock of one owner, from its creation to `release`.

    Args:
        journal: The file of the journal. The lock file gets its mode and group, so that every user
            with access to the journal can check whether this owner is alive.
        owner: The id of the owner.

    Raises:
        OSError: The file cannot be made or locked.
    """

    def __init__(self, journal: Path, owner: str) -> None:
        self._path = lock_path(journal, owner)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Before other users get access: they would find the file unlocked, and its owner dead.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            share_access(self._path, journal.stat())
        except OSError:  # for example, the kernel has no lock left
            remove(self._path)
            os.close(self._descriptor)
            raise
        _held.add(self._descriptor)
        self._forks = forks.forks()

    def release(self) -> None:
        """Remove the file and release its lock. In a forked child this does nothing."""
        if self._forks == forks.forks():
            remove(self._path)  # first, so that the file never exists without its lock
            _held.discard(self._descriptor)
            os.close(self._descriptor)


def is_alive(path: Path) -> bool:
    """Return whether the owner of a lock file is alive; true if that cannot be found out."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:  # perhaps another user's: without certainty nothing may be taken over
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def remove(path: Path) -> None:
    """Remove the lock file of an owner that is dead or leaving."""
    with contextlib.suppress(OSError):
        path.unlink()


def share_access(path: Path, like: os.stat_result) -> None:
    """Set a file's mode and group to those of the journal, as far as this user may."""
    with contextlib.suppress(OSError):
        found = path.stat()
        if found.st_gid != like.st_gid:
            os.chown(path, -1, like.st_gid)
        if stat.S_IMODE(found.st_mode) != stat.S_IMODE(like.st_mode):
            path.chmod(stat.S_IMODE(like.st_mode))


def _close_inherited() -> None:
    """Leave the locks to the parent: see the module's docstring."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


forks.after_fork_in_child(_close_inherited)
