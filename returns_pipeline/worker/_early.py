"""Signals of the command line, from before its first slow import on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

__all__ = ["EarlySignals"]


class EarlySignals:
    """Keeps a signal until there is a worker that can act on it. It is called by signal handlers.

    The second one ends the process at once, as it would have done without a handler: what the
    program waits for may never come.

    Attributes:
        came: Whether a signal has come.
        forward: Called when one comes.
    """

    def __init__(self) -> None:
        self.came = False
        self.forward: Callable[[], object] | None = None

    def __call__(self, number: int) -> None:
        if self.came:
            _ = signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.came = True
        if self.forward is not None:
            _ = self.forward()
