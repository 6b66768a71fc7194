"""Events in a pipeline, reported to an `Observer` as they happen.

An observer is set for everything (`use`), for a stream (`ResultStream.observed`), for a context, a
scope, a journal, a source or a worker (``observer=``). Events are reported for each window, batch
and step, never for each item. What is not observed costs nothing.

The kinds are in groups, for ``match``: `StepEvent`, `PolicyEvent`, `StreamEvent`, `UndoEvent`,
`JournalEvent`, `SourceEvent`, `PublisherEvent`, `WorkerEvent`; `Event` is all of them.
``docs/telemetry.md`` has a table that says when each is reported.

>>> from returns_pipeline import ResultStream
>>> from returns_pipeline.sources import from_iterable
>>> from returns_pipeline.testing import run
>>> class Sizes:
...     def on_event(self, event: Event, /) -> None:
...         if isinstance(event, WindowEmitted):
...             print(event.pipeline, event.size, event.reason)
>>> s = ResultStream.of(from_iterable([1, 2, 3])).observed(Sizes(), name="shop")
>>> run(s.chunks_or_timeout(2, 9.0).collect())
shop 2 size
shop 1 end
<IOResult: <Success: [[1, 2], [3]]>>
"""

from typing import TYPE_CHECKING, TypeAlias

from returns_pipeline._engine.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from returns_pipeline.telemetry import (
        _events,
        _publishing,
        _sources,
        _steps,
        _streams,
        _undo,
    )
    from returns_pipeline.telemetry._observer import (
        Observer,
        use,
    )
    from returns_pipeline.telemetry._publishing import (
        PublishBegun,
        PublishEnded,
    )
    from returns_pipeline.telemetry._sources import (
        Acknowledged,
        Disconnected,
        Fetched,
        JournalRequest,
        LagMeasured,
        Reconnected,
        Recovered,
        Redelivered,
        Revoked,
        WorkerDraining,
        WorkerEnded,
        WorkerStarted,
    )
    from returns_pipeline.telemetry._steps import (
        BreakerChanged,
        LimiterWaited,
        StepBegun,
        StepEnded,
        StepRetried,
        StepTimedOut,
    )
    from returns_pipeline.telemetry._streams import (
        Backpressure,
        ItemsDropped,
        LateItems,
        WatermarkAdvanced,
        WindowEmitted,
    )
    from returns_pipeline.telemetry._undo import (
        ScopeCommitted,
        ScopeRolledBack,
        UndoBegun,
        UndoDone,
        UndoFailed,
        UndoRegistered,
        UndoStuck,
    )
    from returns_pipeline.telemetry.live import LiveView as LiveView  # of the extra live

    BreakerState: TypeAlias = _steps.BreakerState
    """The states of a circuit breaker."""
    Event: TypeAlias = _events.Event
    """Everything that is reported. An observer ignores kinds that it does not know."""
    JournalEvent: TypeAlias = _sources.JournalEvent
    """Events of journals."""
    Outcome: TypeAlias = _steps.Outcome
    """How a step ended."""
    PolicyEvent: TypeAlias = _steps.PolicyEvent
    """Events of policies."""
    PublisherEvent: TypeAlias = _publishing.PublisherEvent
    """Events of publishers."""
    RequestKind: TypeAlias = _sources.RequestKind
    """What a journal has to do."""
    SourceEvent: TypeAlias = _sources.SourceEvent
    """Events of sources."""
    StepEvent: TypeAlias = _steps.StepEvent
    """Events of steps."""
    StreamEvent: TypeAlias = _streams.StreamEvent
    """Events of the stages of a stream."""
    UndoEvent: TypeAlias = _undo.UndoEvent
    """Events of undo actions and of scopes."""
    WindowReason: TypeAlias = _streams.WindowReason
    """Why a window was emitted."""
    WorkerEvent: TypeAlias = _sources.WorkerEvent
    """Events of workers."""

__all__ = [
    "Acknowledged",
    "Backpressure",
    "BreakerChanged",
    "BreakerState",
    "Disconnected",
    "Event",
    "Fetched",
    "ItemsDropped",
    "JournalEvent",
    "JournalRequest",
    "LagMeasured",
    "LateItems",
    "LimiterWaited",
    "Observer",
    "Outcome",
    "PolicyEvent",
    "PublishBegun",
    "PublishEnded",
    "PublisherEvent",
    "Reconnected",
    "Recovered",
    "Redelivered",
    "RequestKind",
    "Revoked",
    "ScopeCommitted",
    "ScopeRolledBack",
    "SourceEvent",
    "StepBegun",
    "StepEnded",
    "StepEvent",
    "StepRetried",
    "StepTimedOut",
    "StreamEvent",
    "UndoBegun",
    "UndoDone",
    "UndoEvent",
    "UndoFailed",
    "UndoRegistered",
    "UndoStuck",
    "WatermarkAdvanced",
    "WindowEmitted",
    "WindowReason",
    "WorkerDraining",
    "WorkerEnded",
    "WorkerEvent",
    "WorkerStarted",
    "use",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "_events": ("Event",),
            "_observer": (
                "Observer",
                "use",
            ),
            "_publishing": (
                "PublishBegun",
                "PublishEnded",
                "PublisherEvent",
            ),
            "_sources": (
                "Acknowledged",
                "Disconnected",
                "Fetched",
                "JournalEvent",
                "JournalRequest",
                "LagMeasured",
                "Reconnected",
                "Recovered",
                "Redelivered",
                "RequestKind",
                "Revoked",
                "SourceEvent",
                "WorkerDraining",
                "WorkerEnded",
                "WorkerEvent",
                "WorkerStarted",
            ),
            "_steps": (
                "BreakerChanged",
                "BreakerState",
                "LimiterWaited",
                "Outcome",
                "PolicyEvent",
                "StepBegun",
                "StepEnded",
                "StepEvent",
                "StepRetried",
                "StepTimedOut",
            ),
            "_streams": (
                "Backpressure",
                "ItemsDropped",
                "LateItems",
                "StreamEvent",
                "WatermarkAdvanced",
                "WindowEmitted",
                "WindowReason",
            ),
            "_undo": (
                "ScopeCommitted",
                "ScopeRolledBack",
                "UndoBegun",
                "UndoDone",
                "UndoEvent",
                "UndoFailed",
                "UndoRegistered",
                "UndoStuck",
            ),
        },
        extras={"live": ("LiveView",)},
    )
