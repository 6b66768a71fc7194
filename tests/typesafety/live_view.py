"""Types of the live view."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, assert_type

from rich.console import Console

from returns_pipeline import ResultStream, StepContext
from returns_pipeline.telemetry.live import LiveView

if TYPE_CHECKING:
    from aiostream import Stream

    from returns_pipeline.telemetry import Event, Observer


def check(s: ResultStream[int, str], event: Event) -> None:
    """It is an observer, a context manager, and what a console prints."""
    observer: Observer = LiveView()
    with LiveView(Console(), redraw_every=1, line_every=timedelta(1), clock=time.monotonic) as view:
        assert_type(view, LiveView)
        assert_type(view.console, Console)
        _ = assert_type(view.watch(s), ResultStream[int, str])
        StepContext("shop", observer=observer)
        _ = s.observed(view).map(str)
    view.console.print(view)
    view.on_event(event)


def refuse(view: LiveView, plain: Stream[int]) -> None:
    """It takes no name of a file, no stream without statistics, and no name instead of an event."""
    LiveView("log")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    LiveView(clock=time.ctime)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    _ = view.watch(plain)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    view.on_event("step")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
