"""`Event`: everything that is reported."""

from __future__ import annotations

from typing import TypeAlias

from returns_pipeline.telemetry._publishing import PublisherEvent
from returns_pipeline.telemetry._sources import JournalEvent, SourceEvent, WorkerEvent
from returns_pipeline.telemetry._steps import PolicyEvent, StepEvent
from returns_pipeline.telemetry._streams import StreamEvent
from returns_pipeline.telemetry._undo import UndoEvent

__all__ = ["Event"]

Event: TypeAlias = (
    StepEvent
    | PolicyEvent
    | StreamEvent
    | UndoEvent
    | JournalEvent
    | SourceEvent
    | PublisherEvent
    | WorkerEvent
)
"""Everything that is reported. An observer ignores kinds that it does not know."""
