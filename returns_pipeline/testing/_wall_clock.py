"""`time.time()` on virtual time, for code that reads the date."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from unittest import mock

from returns_pipeline._engine import checks
from returns_pipeline.testing._clock import VirtualTimeLoop

__all__ = ["timestamp", "virtual_wall_clock"]


def timestamp(name: str, date: float | datetime) -> float:
    """Return a date in seconds since 1970.

    Raises:
        InvalidArgument: It is not finite, or before 1970.
    """
    seconds = date.timestamp() if isinstance(date, datetime) else date
    return checks.number(name, seconds, zero=True, finite=True)


@contextmanager
def virtual_wall_clock(loop: VirtualTimeLoop, epoch: float) -> Generator[None]:
    """Make `time.time()` and `time.time_ns()` count from ``epoch`` with the clock of the loop.

    The functions are replaced in the module `time`, so for all threads. Functions that were
    imported from it by name before, and `datetime.now()`, which asks the operating system, stay
    real.
    """

    def now() -> float:
        return epoch + loop.time()

    def now_ns() -> int:
        return round(now() * 1e9)

    with mock.patch.object(time, "time", now), mock.patch.object(time, "time_ns", now_ns):
        yield
