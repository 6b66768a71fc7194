"""Events in a pipeline, reported to an `Observer` as they happen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from returns_pipeline.compensation import CompensationReport

__all__ = ["Observer", "StepEvent", "StepKind"]

StepKind: TypeAlias = Literal[
    "started", "succeeded", "failed", "raised", "cancelled", "rolled back"
]
"""What happened to a step."""


@dataclass(frozen=True, slots=True)
class StepEvent:
    """Something that happened to a step, for an `Observer`.

    Attributes:
        kind: What happened. A step starts once, and ends in one of "succeeded", "failed" (it
            returned a `Failure`), "raised" or "cancelled". If there was something to undo, "rolled
            back" comes before its end.
        path: The step's path.
        key: Its idempotency key: the same in all its events.
        at: When, in seconds on the running loop's clock.
        error: The failure's error or the exception; ``None`` for the other kinds.
        report: The report of the rollback, for "rolled back".

    >>> StepEvent("started", "shop/persist[17]", "7f3a", 2.0).path
    'shop/persist[17]'
    """

    kind: StepKind
    path: str
    key: str
    at: float
    error: object = None
    report: CompensationReport | None = None


class Observer(Protocol):
    """Gets an event for everything that happens to a step.

    >>> from returns_pipeline import StepContext, ok
    >>> from returns_pipeline.testing import run
    >>> class Printer:
    ...     def on_event(self, event: StepEvent, /) -> None:
    ...         print(event.path, event.kind)
    >>> async def step():
    ...     return ok(1)
    >>> run(StepContext("shop", observer=Printer()).run(step()))
    shop started
    shop succeeded
    <IOResult: <Success: 1>>
    """

    def on_event(self, event: StepEvent, /) -> None:
        """Handle an event.

        It runs in the step's task and must not block. Its exceptions are logged.
        """
