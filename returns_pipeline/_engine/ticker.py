"""`Ticker`: a thread that calls a function at intervals, for what is shown in a terminal.

A terminal may block a program that writes to it for as long as its user likes. So a thread writes,
and no pipeline waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import TIMEOUT_MAX, Event, Thread

__all__ = ["Ticker"]

_log = logging.getLogger("returns_pipeline")

# Seconds for which the end of a program waits for a terminal that blocks.
GRACE = 1.0


class Ticker:
    """Calls a function at intervals, from `start` to `stop`.

    If the function raises an exception it is logged, and the function is not called again.
    """

    def __init__(self, func: Callable[[], None], every: float, name: str) -> None:
        """Start nothing yet.

        Args:
            func: The function.
            every: Seconds between two calls.
            name: What the function does, as the name of the thread.
        """
        self._func = func
        self._every = min(every, TIMEOUT_MAX)
        self._name = name
        self._stopped = Event()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; the first call follows after the interval."""
        self._thread.start()

    def stop(self) -> bool:
        """Make no further call, and return whether the last one has ended."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(GRACE)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            try:
                self._func()
            except Exception:  # noqa: BLE001  # a view of a pipeline must not harm it
                _log.exception("%s has failed and ends; the pipeline continues", self._name)
                return
