"""Which files SQLite has open in this process, and which it had when this process was forked.

SQLite keeps in memory which locks its process holds on a file, whatever connection asks. In a child
made by fork that memory is wrong for the files that were open: the kernel has given the locks to
the parent alone. A connection of the child would take part without any lock, and when the last of
the others closes, the log is removed under it: what it commits from then on is lost.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["FileId", "file_at", "is_inherited", "is_open", "noted", "opened", "was_closed"]

FileId: TypeAlias = "tuple[int, int]"

_open: list[FileId] = []  # one for each connection
_inherited: set[FileId] = set()


def file_at(path: Path) -> FileId | None:
    """Say which file has this name, if one has."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def opened(file: FileId | None) -> None:
    """Note a connection to it."""
    if file is not None:
        _open.append(file)


def was_closed(file: FileId | None) -> None:
    """Note that one of them has ended."""
    if file in _open:
        _open.remove(file)


@contextlib.contextmanager
def noted(path: Path) -> Generator[None, None, None]:
    """Note a connection to it for a while."""
    opened(file := file_at(path))
    try:
        yield
    finally:
        was_closed(file)


def is_open(file: FileId | None) -> bool:
    """Say whether this process has it open."""
    return file in _open


def is_inherited(file: FileId | None) -> bool:
    """Say whether it was open when this process was forked from another."""
    return file in _inherited


def _forget() -> None:
    """Begin as a child process."""
    _inherited.update(_open)
    _open.clear()


os.register_at_fork(after_in_child=_forget)
