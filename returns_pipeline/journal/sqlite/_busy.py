"""Waiting until SQLite is not busy with another process."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from typing import Final, TypeVar

from returns_pipeline.journal.sqlite import _forks as forks
from returns_pipeline.journal.sqlite._schema import primary_code

__all__ = ["patiently"]

T = TypeVar("T")

# Seconds between two attempts; of random lengths, or those of two processes meet each time.
_PAUSE: Final = (0.0005, 0.0015)


def patiently(attempt: Callable[[], T], patience: float) -> T:
    """Repeat an attempt until SQLite is not busy any more, or the patience is at an end.

    SQLite's own timeout is not used, for three reasons. In the end it asks ten times a second only:
    beside a process that writes without a pause, when the lock is free for a moment at a time, it
    never meets one. It does not hold for the first change of the journal mode, which reads before
    it writes and is refused at once while another process makes the same file. And no fork could
    happen meanwhile: between two attempts one can, so an attempt must leave no transaction open
    when it fails.

    Args:
        attempt: Called inside `_forks.inside`.
        patience: Seconds.

    Raises:
        sqlite3.OperationalError: It is still busy.
    """
    until = time.monotonic() + patience
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        with forks.outside():
            time.sleep(random.uniform(*_PAUSE))  # noqa: S311
