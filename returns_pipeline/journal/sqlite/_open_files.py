"""Which files SQLite has open in this process, and which it had when this process was forked.

SQLite keeps in memory which locks its process holds on a file, whatever connection asks. In a child
made by fork that memory is wrong for the files that were open: the kernel has given the locks to
the parent alone. A connection of the child would take part without those that every connection
holds, and when the last of the others closes, the log is removed under it: what it commits from
then on is lost. So the child takes them itself, before it opens such a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["FileId", "file_at", "is_open", "noted", "opened", "take_part", "was_closed"]

FileId: TypeAlias = "tuple[int, int]"

# First byte and number of bytes of two locks that SQLite shares among all who are connected: of the
# file (its os.h, SHARED_FIRST), by which who closes it sees that others are there; and of the index
# of its log (its os_unix.c, UNIX_SHM_DMS), by which who opens that sees the same. Both are fixed:
# processes with other versions of SQLite rely on them.
_CONNECTED: Final = (0x40000000 + 2, 510)
_INDEXED: Final = (128, 1)

_open: list[tuple[Path, FileId]] = []  # one for each connection
_inherited: dict[FileId, FileId | None] = {}  # and the index that SQLite believes to be its log's
_shared: dict[FileId, list[int]] = {}  # descriptors, never closed: that would let go of all locks


def file_at(path: Path) -> FileId | None:
    """Say which file has this name, if one has."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def opened(path: Path) -> FileId | None:
    """Note a connection to the file that has this name; say which it is."""
    file = file_at(path)
    if file is not None:
        _open.append((path, file))
    return file


def was_closed(file: FileId | None) -> None:
    """Note that one of them has ended."""
    place = next((place for place, (_, it) in enumerate(_open) if it == file), None)
    if place is not None:
        del _open[place]


@contextlib.contextmanager
def noted(path: Path) -> Generator[None, None, None]:
    """Note a connection to it for a while."""
    file = opened(path)
    try:
        yield
    finally:
        was_closed(file)


def is_open(file: FileId | None) -> bool:
    """Say whether this process has it open, or holds locks of it."""
    return file in _shared or any(it == file for _, it in _open)


def take_part(path: Path) -> None:
    """Share the locks that all share who are connected to a file, if SQLite would not do so.

    Until the process ends: then a log may stay that could have been removed, and nothing else.

    Raises:
        OSError: All others have closed the file since this process was forked off.
    """
    file = file_at(path)
    if file is None or file not in _inherited or file in _shared:
        return
    index = _index_of(path)
    descriptors: list[int] = []
    try:
        for name, (first, count) in ((path, _CONNECTED), (index, _INDEXED)):
            descriptors.append(os.open(name, os.O_RDONLY | os.O_CLOEXEC))
            fcntl.lockf(descriptors[-1], fcntl.LOCK_SH | fcntl.LOCK_NB, count, first)
        if file_at(index) != _inherited[file]:
            raise FileNotFoundError(f"{index} is not the one that it was")
    except OSError as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise OSError(
            "it was open when this process was forked off, and all others have closed it since"
        ) from error
    _shared[file] = descriptors


def _index_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-shm")


def _forget() -> None:
    """Begin as a child process."""
    _inherited.update((file, file_at(_index_of(path))) for path, file in _open)
    _open.clear()
    for descriptors in _shared.values():
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
    _shared.clear()


os.register_at_fork(after_in_child=_forget)
