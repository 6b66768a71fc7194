"""The events of a worker, for its observers."""

from __future__ import annotations

import asyncio

from returns_pipeline import telemetry
from returns_pipeline._engine import observing
from returns_pipeline._engine.observing import Observed

__all__ = ["WorkerEvents"]


class WorkerEvents:
    """Reports when a worker starts, drains and ends."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._pipeline = observed.pipeline
        self._began: float | None = None

    @classmethod
    def opened(cls) -> WorkerEvents | None:
        """Return the events of a worker that begins to run here; None if it is not observed."""
        observed = observing.opened()
        return None if observed is None else cls(observed)

    def started(self) -> None:
        """Report that it begins to read."""
        self._began = self._now()
        self._observed.report(telemetry.WorkerStarted(pipeline=self._pipeline, at=self._began))

    def draining(self, reason: str) -> None:
        """Report that it reads nothing more."""
        event = telemetry.WorkerDraining(pipeline=self._pipeline, reason=reason, at=self._now())
        self._observed.report(event)

    def ended(self, reason: str, handled: int, dead: int) -> None:
        """Report its end."""
        at = self._now()
        event = telemetry.WorkerEnded(
            pipeline=self._pipeline,
            reason=reason,
            handled=handled,
            dead=dead,
            duration=0.0 if self._began is None else at - self._began,
            at=at,
        )
        self._observed.report(event)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
