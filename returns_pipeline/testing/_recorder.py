"""`Recorder`: an observer that keeps all events, for tests."""

from __future__ import annotations

from typing import TypeVar

from returns_pipeline.telemetry import Event

__all__ = ["Recorder"]

E = TypeVar("E")


class Recorder:
    """An observer that keeps all events, in the order in which they were reported.

    Attributes:
        events: The events.

    >>> from returns_pipeline import StepContext, ok
    >>> from returns_pipeline.telemetry import StepEnded
    >>> from returns_pipeline.testing import run
    >>> async def step():
    ...     return ok(1)
    >>> recorder = Recorder()
    >>> _ = run(StepContext("shop", observer=recorder).run(step()))
    >>> [event.outcome for event in recorder.of(StepEnded)]
    ['succeeded']
    """

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event, /) -> None:
        """Keep an event."""
        self.events.append(event)

    def of(self, kind: type[E], /) -> list[E]:
        """Return the events of one kind, in their order."""
        return [event for event in self.events if isinstance(event, kind)]
