"""Locks that a connection holds in addition to SQLite's, and that closing a file does not release.

SQLite uses POSIX record locks, which belong to the process: when *any* descriptor of a file is
closed, the process loses all its locks on that file. A backup, a checksum or a tar inside the
process is enough. Another process that closes the journal then takes itself for the last user, and
removes the write-ahead log into which this one still writes; or two processes write at once.

So each connection takes the same locks again, and one more for writing, by ``F_OFD_SETLK``: these
belong to the open file. They are in the same table of the kernel as SQLite's, so every version of
SQLite respects them.

One rule holds for their descriptors: **none is closed while this process has the file open in
another way.** Closing it would release the record locks of that other use, a connection of the
user's for example, which is what this module prevents. Descriptors are kept for the next connection
instead, so there are no more of them than there were connections at the same time.

On platforms without such locks (macOS, the BSDs) this module does nothing. There, no code of the
process may open the journal or the files beside it: the documentation of `SqliteJournal` says so.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from returns_pipeline.journal.sqlite import _forks as forks

if TYPE_CHECKING:
    import fcntl
else:
    try:
        import fcntl
    except ImportError:  # Windows
        fcntl = None

__all__ = ["ConnectionLocks"]

# ``None`` where the platform has no locks of the open file.
_SET: Final[int | None] = getattr(fcntl, "F_OFD_SETLK", None)

# Each is the first byte and the number of bytes. SQLite's are fixed by its file format, and all its
# versions rely on them. All connections in WAL mode share a lock on the file (os.h, SHARED_FIRST),
# by which the last connection knows that it is the last, and a lock on the index of the log
# (os_unix.c, UNIX_SHM_DMS), by which the first connection knows that it is the first.
_CONNECTED: Final = (0x40000000 + 2, 510)
_INDEXED: Final = (128, 1)
# Our own, after all bytes that SQLite locks: held by the one connection that is in a transaction.
_WRITING: Final = (0x40000000 + 1024, 1)

_guard = threading.Lock()
_idle: dict[forks.FileId, list[int]] = {}  # descriptors that no connection uses now
_known: set[int] = set()  # all descriptors, for a forked child to close


class ConnectionLocks:
    """The locks of one connection. Only the thread of that connection calls the methods."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._index: int | None = None

    def hold(self, path: Path) -> None:
        """Take the shared locks. SQLite must be connected already, in WAL mode.

        Raises:
            OSError: The kernel refuses.
        """
        if _SET is None:
            return
        self._file = _descriptor_of(path)
        _lock(self._file, fcntl.F_RDLCK, _CONNECTED)
        self._index = _descriptor_of(path.with_name(f"{path.name}-shm"))
        _lock(self._index, fcntl.F_RDLCK, _INDEXED)

    # The next two are called for each transaction, so they call little else.

    def try_to_write(self) -> bool:
        """Take the lock for writing, if no other connection of any process has it."""
        if self._file is None or _SET is None:
            return True
        try:
            _ = fcntl.fcntl(self._file, _SET, _BEGIN_WRITING)
        except BlockingIOError:
            return False
        return True

    def stop_writing(self) -> None:
        """Release the lock for writing."""
        if self._file is not None and _SET is not None:
            _ = fcntl.fcntl(self._file, _SET, _STOP_WRITING)

    def release(self) -> None:
        """Release all locks. Call it just before SQLite closes the connection and tidies up."""
        for descriptor in (self._file, self._index):
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    _lock(descriptor, fcntl.F_UNLCK, (0, 0))  # to the end of the file

    def put_back(self) -> None:
        """Keep the descriptors for the next connection, after SQLite has closed this one."""
        for descriptor in (self._file, self._index):
            if descriptor is not None:
                _keep(descriptor)
        self._file = self._index = None


def _lock(descriptor: int, kind: int, part: tuple[int, int]) -> None:
    """Set or release a lock of the open file, without waiting."""
    assert _SET is not None
    _ = fcntl.fcntl(descriptor, _SET, _request(kind, part))


def _request(kind: int, part: tuple[int, int]) -> bytes:
    first, count = part
    # struct flock: l_type, l_whence, l_start, l_len, l_pid, which must be 0 here.
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, first, count, 0)


if _SET is not None:
    _BEGIN_WRITING: Final = _request(fcntl.F_WRLCK, _WRITING)
    _STOP_WRITING: Final = _request(fcntl.F_UNLCK, _WRITING)


def _descriptor_of(path: Path) -> int:
    """Return a descriptor for the locks of one connection to this file, kept or new."""
    file = forks.file_at(path)
    with _guard:
        if file is not None and _idle.get(file):
            return _idle[file].pop()
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        _known.add(descriptor)
        return descriptor


def _keep(descriptor: int) -> None:
    """Keep a descriptor for the next connection, or close it if nothing else has its file open."""
    with _guard:
        found = os.fstat(descriptor)
        _idle.setdefault((found.st_dev, found.st_ino), []).append(descriptor)
        used = _files_open_besides({kept for several in _idle.values() for kept in several})
        for file in [file for file in _idle if file not in used]:
            for unused in _idle.pop(file):
                _known.discard(unused)
                os.close(unused)


def _files_open_besides(idle: set[int]) -> set[forks.FileId]:
    """Return the files that this process has open by other descriptors than these."""
    try:
        names = [entry.name for entry in Path("/proc/self/fd").iterdir()]
    except OSError:
        return set(_idle)  # unknown, so assume that all of them are open elsewhere
    found: set[forks.FileId] = set()
    for name in names:
        if int(name) not in idle:
            with contextlib.suppress(OSError):  # the descriptor of the listing, closed meanwhile
                status = os.fstat(int(name))
                found.add((status.st_dev, status.st_ino))
    return found


def _close_inherited() -> None:
    """Leave the locks to the parent. The child has no record locks that this could release."""
    global _guard  # noqa: PLW0603  # another thread of the parent may have held it at the fork
    _guard = threading.Lock()
    for descriptor in _known:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _known.clear()
    _idle.clear()


forks.after_fork_in_child(_close_inherited)
