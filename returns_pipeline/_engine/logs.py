"""What the package logs with: names of facts in records, and messages that would come too often.

Each room logs to a logger of its own, ``returns_pipeline.journal`` for example. ``docs/logging.md``
lists all messages, and what to do about each; a test compares it with the code.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from typing import Any, Final, TypedDict, Unpack

__all__ = ["Facts", "Repeats", "facts"]

# Records have attributes of their own, handlers and formatters add some: `rp_` is before ours.
PREFIX: Final = "rp_"

# Seconds between two messages of the same trouble.
EVERY: Final = 60.0


class Facts(TypedDict, total=False):
    """The facts that a record may have. Each has one meaning, and one type.

    Attributes:
        attempt: The number of the attempt that failed, from 1.
        breaker: The name of the circuit breaker.
        code: The exit code of a process.
        delay: Seconds until the next attempt.
        journal: The journal: its class, with the file or server.
        messages: How many messages or items it is about.
        observer: The class of the observer.
        partition: The name of the partition.
        reason: Why.
        saga: The id of the saga in the journal, for the journal's command.
        scope: The path of the scope or step.
        source: What is read or written: the broker's kind, the stream or topic, the group.
        task: The name of the task.
        undo: The name of the undo action.
        worker: The name of the worker.
    """

    attempt: int
    breaker: str
    code: int
    delay: float
    journal: str
    messages: int
    observer: str
    partition: str
    reason: str
    saga: str
    scope: str
    source: str
    task: str
    undo: str
    worker: str


def facts(**known: Unpack[Facts]) -> dict[str, object]:
    """Return facts for ``extra=``, by names that no record has.

    >>> facts(source="nats orders", attempt=3)
    {'rp_source': 'nats orders', 'rp_attempt': 3}
    """
    return {f"{PREFIX}{name}": value for name, value in known.items()}


class Repeats:
    """Logs what may happen again and again: at first, then once a minute at most.

    A message tells how often it was left out, and has that as the fact ``rp_repeated``. Each
    message has its own minute. It belongs to one loop, whose clock it reads.
    """

    def __init__(self, log: logging.Logger, every: float = EVERY) -> None:
        """Log nothing yet.

        Args:
            log: The logger.
            every: Seconds between two messages.
        """
        self._log = log
        self._every = every
        self._seen: dict[str, tuple[float, int]] = {}  # when the next one is due; how many were not

    def warning(self, message: str, *args: object, extra: Mapping[str, object]) -> None:
        """Log a warning, unless it was logged a short time ago."""
        self._at(logging.WARNING, message, args, extra)

    def exception(self, message: str, *args: object, extra: Mapping[str, object]) -> None:
        """Log an error with the exception that is handled, unless it was logged shortly before."""
        self._at(logging.ERROR, message, args, extra, exc_info=True)

    def info(self, message: str, *args: object, extra: Mapping[str, object]) -> None:
        """Log an information, unless it was logged a short time ago."""
        self._at(logging.INFO, message, args, extra)

    def end(self) -> None:
        """Forget it: the trouble has ended, and a later one is a new one."""
        self._seen.clear()

    def _at(
        self,
        level: int,
        message: str,
        args: tuple[object, ...],
        extra: Mapping[str, object],
        *,
        exc_info: bool = False,
    ) -> None:
        now = _now()
        due, left_out = self._seen.get(message, (-math.inf, 0))
        if now < due:
            self._seen[message] = due, left_out + 1
            return
        self._seen[message] = now + self._every, 0
        known: dict[str, Any] = {**extra, f"{PREFIX}repeated": left_out}
        if left_out:
            message, args = f"{message} (repeated %d times)", (*args, left_out)
        self._log.log(level, message, *args, extra=known, exc_info=exc_info, stacklevel=3)


def _now() -> float:
    """Return the time of the running loop, which tests move; outside of one, that of the system."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()
