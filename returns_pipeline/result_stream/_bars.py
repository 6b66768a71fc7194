"""The bars of `ResultStream.progress`, drawn by rich: one display for all bars of a file."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from threading import RLock
from typing import Final, TextIO

from returns_pipeline._engine.ticker import Ticker
from returns_pipeline.errors import MissingExtra

try:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
except ImportError as _error:
    raise MissingExtra("live", "rich") from _error

__all__ = ["Bar"]

_log = logging.getLogger("returns_pipeline.telemetry")

# Seconds between two drawings.
DRAW_EVERY = 0.1


class Bar:
    """How many items of one reading of a stream have passed a place; a `Count` of the engine.

    Attributes:
        count: That number: all that an item costs is to add 1 to it.
        total: How many items are expected; None if that is not known.
        description: What stands before the bar.
    """

    __slots__ = ("_display", "_file", "count", "description", "total")

    def __init__(self, total: int | None, description: str, file: TextIO | None) -> None:
        self.count: int = 0
        self.total: int | None = total
        self.description: str = description
        self._file = file
        self._display: _Display | None = None

    def open(self) -> None:
        """Show the bar."""
        self._display = _add(self, sys.stderr if self._file is None else self._file)

    def close(self) -> None:
        """Draw the bar for the last time; do nothing the second time."""
        display, self._display = self._display, None
        if display is not None:
            _remove(self, display)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Write nothing more; rich would end the program."""
        self.quiet = True


class _Display:
    """The bars that are shown in one file, below each other."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.bars: dict[Bar, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(show_speed=True),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=_Console(file=file),
            auto_refresh=False,
        )
        # What is written is written by one thread, which may have to wait for the terminal.
        self._ticker = Ticker(self._draw, DRAW_EVERY, "the progress bar", self._end)

    def start(self) -> None:
        try:
            self._progress.start()
        except (OSError, ValueError):  # the output is closed, or the terminal has gone
            _log.exception("the progress bar cannot be shown; the stream continues")
            with suppress(Exception):
                self._progress.stop()
            return
        self._ticker.start()

    def stop(self) -> None:
        self._ticker.stop()

    def add(self, bar: Bar) -> None:
        self.bars[bar] = self._progress.add_task(bar.description, total=bar.total)

    def remove(self, bar: Bar) -> None:
        task = self.bars.pop(bar)
        self._progress.update(task, completed=bar.count)
        self._progress.stop_task(task)

    def _draw(self) -> None:
        with _lock:
            for bar, task in self.bars.items():
                self._progress.update(task, completed=bar.count)
        self._progress.refresh()

    def _end(self) -> None:
        self._progress.stop()


_lock: Final = RLock()
_displays: Final[dict[int, _Display]] = {}  # by the number of the file


def _add(bar: Bar, file: TextIO) -> _Display:
    with _lock:
        display = _displays.get(id(file))
        is_new = display is None
        if display is None:
            display = _displays[id(file)] = _Display(file)
        display.add(bar)
        if is_new:
            display.start()
    return display


def _remove(bar: Bar, display: _Display) -> None:
    with _lock:
        display.remove(bar)
        is_last = not display.bars
        if is_last:
            del _displays[id(display.file)]
    if is_last:  # without the lock, which the thread may need first
        display.stop()
