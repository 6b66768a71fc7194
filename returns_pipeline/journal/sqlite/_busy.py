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

# Seconds between two attempts. The length is random, so that two processes do not collide again.
_PAUSE: Final = (0.0005, 0.0015)


def patiently(attempt: Callable[[], T], patience: float) -> T:
    """Repeat an attempt until SQLite is not busy any more, or the patience has ended.

    SQLite's own timeout is not used, for three reasons.

    1. After a while it tries only ten times a second. If another process writes without a pause,
       the lock is free for a moment at a time, and SQLite misses every one.
    2. It does not apply to the first change of the journal mode. That reads before it writes, and
       fails at once while another process is creating the same file.
    3. No fork could happen during the wait. Between two attempts one can, so an attempt that fails
       must leave no transaction open.

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
