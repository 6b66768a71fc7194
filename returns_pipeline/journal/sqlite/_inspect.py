"""Reading a journal without touching it: it waits for no lock, and creates or changes no file."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from returns_pipeline._engine.spans import Spans
from returns_pipeline.compensation.protocol import StoredPositions, StoredSaga
from returns_pipeline.errors import JournalUnavailable
from returns_pipeline.journal.sqlite import _forks as forks
from returns_pipeline.journal.sqlite._busy import patiently
from returns_pipeline.journal.sqlite._owner_locks import is_alive, lock_path
from returns_pipeline.journal.sqlite._schema import (
    NOT_DONE,
    actions_of,
    explained,
    primary_code,
    readable,
    version_of,
)

__all__ = ["INHERITED", "inspect", "inspect_positions"]

T = TypeVar("T")
_Read: TypeAlias = Callable[[sqlite3.Connection, Path], list[T]]

INHERITED: Final = (
    "it was open in the process that this one was forked from: close it there before the fork, or "
    "start the child with 'spawn' or 'forkserver'"
)


def inspect(path: Path, patience: float, *, done: bool) -> list[StoredSaga]:
    """Return the sagas on record, the newest first; without ``done``, those that are not done.

    Raises:
        JournalUnavailable: The file does not exist or cannot be read.
        JournalCorrupt: The file is not a journal, or is damaged.
    """
    return _inspect(path, patience, partial(_sagas, done=done))


def inspect_positions(path: Path, patience: float) -> list[StoredPositions]:
    """Return the positions on record, by source and partition.

    Raises:
        JournalUnavailable: The file does not exist or cannot be read.
        JournalCorrupt: The file is not a journal, or is damaged.
    """
    return _inspect(path, patience, _positions)


def _inspect(path: Path, patience: float, read: _Read[T]) -> list[T]:
    if not path.is_file():
        raise JournalUnavailable(str(path), "there is no such file")
    if forks.is_inherited(path):
        raise JournalUnavailable(str(path), INHERITED)
    real = path.resolve()  # the log and the lock files are in that directory
    try:
        with forks.inside():
            return patiently(lambda: _look(real, read), patience)
    except (sqlite3.Error, OSError) as error:
        raise explained(error, str(path)) from error


def _look(path: Path, read: _Read[T]) -> list[T]:
    """Read in a way that creates no file. Which one that is depends on the existing files."""
    log, index = (path.with_name(f"{path.name}-{part}") for part in ("wal", "shm"))
    if not log.exists():
        before = path.stat()
        # No process has it open, so the file has everything. Without this option SQLite would
        # create a log.
        listed = _read(path, path, "immutable=1", read)
        after = path.stat()
        unchanged = (before.st_ino, before.st_size, before.st_mtime_ns) == (
            after.st_ino,
            after.st_size,
            after.st_mtime_ns,
        )
        if unchanged and not log.exists():
            return listed
        # Another process has opened it meanwhile, so now there is a log.
    try:
        if index.exists() or forks.is_open(path):
            # Without this option SQLite would create a missing index.
            return _read(path, path, "readonly_shm=1", read)
    except sqlite3.OperationalError as error:
        if primary_code(error) not in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}:
            raise
        # A file that is open in this process must not be copied: on some platforms that would
        # release the locks on it.
        if forks.is_open(path):
            raise
    return _read_copy(path, read)


def _read_copy(path: Path, read: _Read[T]) -> list[T]:
    """Read a copy. No process has the journal open, or the index of its log would exist."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / path.name
        for suffix in ("", "-wal"):
            source = path.with_name(path.name + suffix)
            with contextlib.suppress(FileNotFoundError):
                _ = shutil.copyfile(source, copy.with_name(copy.name + suffix))
        return _read(copy, path, "", read)


def _read(file: Path, journal: Path, option: str, read: _Read[T]) -> list[T]:
    """Read the journal from its file, or from a copy."""
    uri = f"{file.as_uri()}?mode=ro&{option}"
    with contextlib.ExitStack() as stack:
        db = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)
        _ = stack.callback(db.close)
        _ = stack.callback(forks.closed, forks.opened(file))
        db.text_factory = readable
        _ = db.execute("BEGIN")  # all statements see the same state of the file
        if not version_of(db, str(journal)):
            return []  # the process that created it died before the first request
        return read(db, journal)


def _sagas(db: sqlite3.Connection, journal: Path, *, done: bool) -> list[StoredSaga]:
    alive: dict[str, bool] = {"": False}
    listed: list[StoredSaga] = []
    for saga, name, began, owner, on_failure in db.execute(
        "SELECT id, name, began, owner, on_failure FROM saga "
        f"{'' if done else f'WHERE id IN ({NOT_DONE}) '}ORDER BY number DESC"
    ):
        if owner not in alive:
            alive[owner] = is_alive(lock_path(journal, owner))
        if actions := actions_of(db, saga):
            is_open = any(action.state in {"pending", "deferred"} for action in actions)
            # A settled saga keeps the id of its owner: see `Claims.release_all`.
            shown = owner if alive[owner] or is_open else ""
            known = StoredSaga(saga, name, began, shown, alive[owner], actions, on_failure)
            listed.append(known)
    return listed


def _positions(db: sqlite3.Connection, _: Path) -> list[StoredPositions]:
    rows = db.execute(
        "SELECT source, partition, epoch, spans FROM taken_partition ORDER BY source, partition"
    )
    return [
        StoredPositions(source, partition, epoch, Spans.from_json(spans))
        for source, partition, epoch, spans in rows
    ]
