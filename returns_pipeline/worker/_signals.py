"""SIGTERM and SIGINT, as long as a worker runs. It imports nothing that takes time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Final

__all__ = ["handling", "sharing"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def handling(on_signal: Callable[[int], object]) -> Generator[None]:
    """Call a function at SIGTERM and SIGINT, in the main thread; later, restore the handlers.

    Not by `asyncio.loop.add_signal_handler`, whose counterpart removes a handler that the program
    had before. The function runs between any two instructions: it may do no more than
    ``loop.call_soon_threadsafe``. In another thread, signals are left to the main one.

    Such blocks must be nested: the inner one gets the signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        del frame
        _ = on_signal(number)

    before = [signal.signal(number, handler) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, earlier in zip(_SIGNALS, before, strict=True):
            # A handler that C code has installed cannot be restored: it is not known to Python.
            _ = signal.signal(number, signal.SIG_DFL if earlier is None else earlier)


@contextmanager
def sharing(on_signal: Callable[[int], object]) -> Generator[None]:
    """Do what `handling` does, for several blocks that overlap in any way: each gets all signals.

    The handlers are restored when the last block ends. The third signal ends the process, as it
    would have done without a handler: a loop that is blocked hears of none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _shared.add(on_signal)
    try:
        yield
    finally:
        _shared.remove(on_signal)


class _Shared:
    """The functions of all blocks of `sharing`; only the main thread uses it."""

    def __init__(self) -> None:
        self._receivers: list[Callable[[int], object]] = []
        self._installed = ExitStack()
        self._came = 0

    def add(self, receiver: Callable[[int], object]) -> None:
        if not self._receivers:
            self._came = 0
            self._installed.enter_context(handling(self._pass_on))
        self._receivers.append(receiver)

    def remove(self, receiver: Callable[[int], object]) -> None:
        self._receivers.remove(receiver)
        if not self._receivers:
            self._installed.close()

    def _pass_on(self, number: int) -> None:
        self._came += 1
        if self._came > 2:
            _ = signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        for receiver in tuple(self._receivers):
            _ = receiver(number)


_shared: Final = _Shared()
