"""The events of a step, for the observers of its context."""

from __future__ import annotations

import asyncio
from typing import Any

from returns_pipeline import telemetry
from returns_pipeline._engine import observing
from returns_pipeline._engine.observing import Observed

__all__ = ["StepEvents"]


class StepEvents:
    """Reports when the steps of one context begin and end. A context that no one observes has none.

    Attributes:
        observed: Who observes it.
        item: What the next step handles, for `StepBegun`.
    """

    __slots__ = ("_begun", "_outer", "_token", "item", "observed")

    def __init__(self, observed: Observed, outer: StepEvents | None = None) -> None:
        self.observed: Observed = observed
        self.item: object = None
        self._outer = outer
        self._begun: telemetry.StepBegun | None = None
        self._token: Any = None

    def inside(self) -> StepEvents:
        """Return the events of a context inside this one."""
        return StepEvents(self.observed, self)

    def begun(self, stage: str, number: int | None, attempt: int, key: str) -> None:
        """Report that a step has begun."""
        outer = self._outer
        while outer is not None and outer._begun is None:
            outer = outer._outer
        self._begun = telemetry.StepBegun(
            pipeline=self.observed.pipeline,
            stage=stage,
            number=number,
            attempt=attempt,
            key=key,
            run=observing.next_run(),
            parent=None if outer is None or outer._begun is None else outer._begun.run,
            at=asyncio.get_running_loop().time(),
            item=self.item,
        )
        self.item = None
        self.observed.report(self._begun)
        # What is opened inside, and policies there, report to the same observers.
        self._token = observing.enter(self.observed)

    def ended(self, outcome: telemetry.Outcome, error: object = None) -> None:
        """Report that the step has ended."""
        begun, self._begun = self._begun, None
        assert begun is not None
        observing.leave(self._token)
        at = asyncio.get_running_loop().time()
        event = telemetry.StepEnded(
            pipeline=begun.pipeline,
            stage=begun.stage,
            number=begun.number,
            attempt=begun.attempt,
            key=begun.key,
            run=begun.run,
            parent=begun.parent,
            at=at,
            duration=at - begun.at,
            outcome=outcome,
            error=error,
        )
        self.observed.report(event)
