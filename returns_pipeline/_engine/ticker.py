"""`Ticker`: a thread that calls a function at intervals, for what is shown in a terminal.

A terminal may block a program that writes to it for as long as its user likes. So a thread writes,
and no pipeline waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import TIMEOUT_MAX, Event, Thread

__all__ = ["Ticker"]

_log = logging.getLogger("returns_pipeline.telemetry")

# Seconds for which the end of a program waits for a terminal that blocks.
GRACE = 1.0


class Ticker:
    """Calls a function at intervals, from `start` to `stop`, and another one at the end.

    If one of them raises an exception, it is logged. After an exception of the first one, the other
    one is called at once.
    """

    def __init__(
        self, func: Callable[[], None], every: float, name: str, at_end: Callable[[], None]
    ) -> None:
        """Start nothing yet.

        Args:
            func: The function.
            every: Seconds between two calls.
            name: What it shows, as the name of the thread.
            at_end: What is called at the end, in the same thread.
        """
        self._func = func
        self._every = min(every, TIMEOUT_MAX)
        self._name = name
        self._at_end = at_end
        self._stopped = Event()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; the first call follows after the interval."""
        self._thread.start()

    def stop(self) -> None:
        """Call the other function, and wait until it has returned, for a second at most.

        A thread that waits for a terminal calls it when that takes text again.
        """
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(GRACE)

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            if not self._try(self._func):
                break
        _ = self._try(self._at_end)

    def _try(self, func: Callable[[], None]) -> bool:
        try:
            func()
        except Exception:  # noqa: BLE001  # a view of a pipeline must not harm it
            _log.exception("%s cannot be shown any more; the pipeline continues", self._name)
            return False
        return True
