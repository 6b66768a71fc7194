"""Types of observers and of the events that they get."""

from __future__ import annotations

from typing import assert_type

from returns_pipeline import CompensationScope, ResultStream, StepContext, telemetry
from returns_pipeline.telemetry import (
    Acknowledged,
    Backpressure,
    BreakerChanged,
    BreakerState,
    Disconnected,
    Event,
    Fetched,
    ItemsDropped,
    JournalEvent,
    JournalRequest,
    LagMeasured,
    LateItems,
    LimiterWaited,
    Observer,
    Outcome,
    PolicyEvent,
    PublishBegun,
    PublishEnded,
    PublisherEvent,
    Reconnected,
    Recovered,
    Redelivered,
    RequestKind,
    Revoked,
    ScopeCommitted,
    ScopeRolledBack,
    SourceEvent,
    StepBegun,
    StepEnded,
    StepEvent,
    StepRetried,
    StepTimedOut,
    StreamEvent,
    UndoBegun,
    UndoDone,
    UndoEvent,
    UndoFailed,
    UndoRegistered,
    UndoStuck,
    WatermarkAdvanced,
    WindowEmitted,
    WindowReason,
    WorkerDraining,
    WorkerEnded,
    WorkerEvent,
    WorkerStarted,
)
from returns_pipeline.testing import Recorder


class Log:
    """What an observer needs to have."""

    def on_event(self, event: Event, /) -> None:
        assert_type(event.pipeline, str)
        assert_type(event.at, float)
        match event:
            case StepBegun(stage=stage, number=number, item=item):
                assert_type(stage, str)
                assert_type(number, int | None)
                assert_type(item, object)
            case StepEnded(outcome=outcome, duration=duration, error=error):
                assert_type(outcome, Outcome)
                assert_type(duration, float)
                assert_type(error, object)
            case WindowEmitted(reason=reason, age=age, weight=weight):
                assert_type(reason, WindowReason)
                assert_type(age, float | None)
                assert_type(weight, float | None)
            case Backpressure(waited=waited, in_flight=in_flight):
                assert_type(waited, float)
                assert_type(in_flight, int)
            case ScopeRolledBack(undone=undone):
                assert_type(undone, int)
            case _:
                pass
        event.at = 1.0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def groups(event: Event) -> str:
    """The groups are all there is."""
    if isinstance(event, StepEvent):
        assert_type(event.stage, str)
        return event.key
    if isinstance(event, PolicyEvent | StreamEvent | UndoEvent):
        return event.pipeline
    if isinstance(event, JournalEvent):
        return event.journal
    if isinstance(event, SourceEvent):
        return event.source
    if isinstance(event, PublisherEvent):
        assert_type(event.destination, str)
        return event.system
    assert_type(event, WorkerEvent)
    return event.pipeline


class Deaf:
    def on_event(self) -> None: ...


class Narrow:
    """It would be called with events that it does not take."""

    def on_event(self, event: StepEvent, /) -> None: ...


def setting(observer: Observer, s: ResultStream[int, OSError], event: Event) -> None:
    """Where observers are set."""
    _ = assert_type(s.observed(observer, Log(), name="shop"), ResultStream[int, OSError])
    _ = assert_type(s.observed(name="shop"), ResultStream[int, OSError])
    StepContext("shop", observer=Log())
    CompensationScope("shop", observer=Log())
    observer.on_event(event)
    with telemetry.use(observer, Log(), pipeline="shop") as nothing:
        assert_type(nothing, None)
    recorder = Recorder()
    assert_type(recorder.events, list[Event])
    assert_type(recorder.of(WindowEmitted), list[WindowEmitted])
    _ = s.observed(Deaf())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    _ = s.observed(Narrow())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    _ = s.observed(observer, "shop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    StepContext("shop", observer=Deaf())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    CompensationScope("shop", observer=print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    telemetry.use(print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    deaf: Observer = Deaf()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    Recorder(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    observer.on_event("started")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    outcome: Outcome = "over"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    state: BreakerState = "ajar"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    StepBegun(pipeline="shop", at=1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    del outcome, state, deaf


def records() -> None:
    """Each has all its facts, by name, and cannot be changed."""
    assert_type(
        Acknowledged(
            pipeline="shop", system="nats", source="orders", messages=100, duration=0.01, at=2.0
        ).duration,
        float,
    )
    assert_type(
        Backpressure(
            pipeline="shop",
            stage="persist",
            operator="bind_async",
            waited=0.5,
            waits=1,
            in_flight=8,
            at=9.0,
        ).waited,
        float,
    )
    assert_type(
        BreakerChanged(
            pipeline="shop", breaker="bank", before="closed", state="open", at=9.0
        ).state,
        BreakerState,
    )
    assert_type(
        Disconnected(
            pipeline="shop", system="nats", source="orders", error=OSError("reset"), at=2.0
        ).error,
        BaseException,
    )
    assert_type(
        Fetched(
            pipeline="shop",
            system="nats",
            source="orders",
            messages=100,
            in_flight=300,
            waited=0.01,
            at=2.0,
        ).messages,
        int,
    )
    assert_type(
        JournalRequest(
            pipeline="shop",
            journal="SqliteJournal",
            kind="record",
            size=3,
            duration=0.01,
            queued=0,
            failed=False,
            at=2.0,
        ).size,
        int,
    )
    assert_type(
        LagMeasured(
            pipeline="shop",
            system="kafka",
            source="orders",
            partition="3",
            lag=1200,
            oldest=0.5,
            at=2.0,
        ).lag,
        int,
    )
    assert_type(
        ItemsDropped(pipeline="shop", stage="broadcast", branch=1, count=3, at=9.0).branch, int
    )
    assert_type(LateItems(pipeline="shop", stage="event_windows", count=3, at=9.0).count, int)
    assert_type(
        LimiterWaited(pipeline="shop", stage="pay", limiter="bulkhead", waited=2.0, at=9.0).waited,
        float,
    )
    assert_type(
        Reconnected(
            pipeline="shop", system="nats", source="orders", attempts=3, duration=1.5, at=3.5
        ).attempts,
        int,
    )
    assert_type(
        Recovered(
            pipeline="shop",
            journal="SqliteJournal",
            saga="7f3a",
            undone=2,
            stuck=0,
            deferred=0,
            failed=False,
            duration=0.5,
            at=2.0,
        ).undone,
        int,
    )
    assert_type(
        Redelivered(pipeline="shop", system="nats", source="orders", messages=2, at=2.0).messages,
        int,
    )
    assert_type(
        Revoked(
            pipeline="shop",
            system="kafka",
            source="orders",
            partitions=("3",),
            settled=True,
            duration=0.5,
            at=2.0,
        ).settled,
        bool,
    )
    assert_type(
        ScopeCommitted(pipeline="shop", scope="pay[0]", key="7f3a", actions=1, at=2.5).actions, int
    )
    assert_type(
        ScopeRolledBack(
            pipeline="shop",
            scope="pay[0]",
            key="7f3a",
            undone=1,
            failed=0,
            not_run=0,
            duration=0.5,
            at=2.5,
        ).undone,
        int,
    )
    assert_type(
        StepBegun(pipeline="shop", stage="persist", number=0, key="7f3a", run=1, at=2.0).stage, str
    )
    assert_type(
        StepEnded(
            pipeline="shop",
            stage="persist",
            number=0,
            key="7f3a",
            run=1,
            at=2.5,
            duration=0.5,
            outcome="succeeded",
        ).duration,
        float,
    )
    assert_type(
        StepRetried(pipeline="shop", stage="pay", attempt=1, delay=0.5, error="busy", at=2.0).delay,
        float,
    )
    assert_type(
        StepTimedOut(pipeline="shop", stage="pay", limit=2.0, abandoned=False, at=9.0).limit, float
    )
    assert_type(
        PublishBegun(
            pipeline="shop", system="nats", destination="new", messages=2, run=1, headers={}, at=2.0
        ).headers,
        dict[str, str],
    )
    assert_type(
        PublishEnded(
            pipeline="shop",
            system="nats",
            destination="new",
            messages=2,
            run=1,
            confirmed=2,
            refused=0,
            unconfirmed=0,
            duration=0.5,
            at=2.5,
        ).error,
        object,
    )
    assert_type(
        UndoBegun(pipeline="shop", scope="pay[0]", undo="refund", key="7f3a", run=1, at=2.0).run,
        int,
    )
    assert_type(
        UndoDone(
            pipeline="shop",
            scope="pay[0]",
            undo="refund",
            key="7f3a",
            attempt=1,
            duration=0.5,
            at=2.5,
        ).attempt,
        int,
    )
    assert_type(
        UndoFailed(
            pipeline="shop",
            scope="pay[0]",
            undo="refund",
            key="7f3a",
            attempt=1,
            duration=0.5,
            error=OSError("down"),
            at=2.5,
        ).error,
        object,
    )
    assert_type(
        UndoRegistered(pipeline="shop", scope="pay[0]", undo="refund", key="7f3a", at=2.0).undo, str
    )
    assert_type(
        UndoStuck(
            pipeline="shop",
            scope="pay[0]",
            undo="refund",
            key="7f3a",
            attempt=5,
            duration=9.0,
            error=OSError("down"),
            at=11.0,
        ).attempt,
        int,
    )
    assert_type(
        WatermarkAdvanced(pipeline="shop", stage="event_windows", watermark=60.0, at=9.0).watermark,
        float,
    )
    assert_type(
        WindowEmitted(
            pipeline="shop",
            stage="chunks_or_timeout",
            operator="chunks_or_timeout",
            size=17,
            reason="time",
            age=2.0,
            at=9.0,
        ).reason,
        WindowReason,
    )
    assert_type(WorkerDraining(pipeline="shop", reason="SIGTERM", at=2.0).reason, str)
    assert_type(
        WorkerEnded(
            pipeline="shop", reason="signal", handled=7, dead=0, duration=60.0, at=62.0
        ).duration,
        float,
    )
    assert_type(WorkerStarted(pipeline="shop", at=2.0).pipeline, str)
    Acknowledged(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Backpressure(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    BreakerChanged(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Disconnected(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Fetched(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    JournalRequest(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    LagMeasured(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ItemsDropped(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    LateItems(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    LimiterWaited(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Reconnected(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Recovered(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Redelivered(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Revoked(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ScopeCommitted(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ScopeRolledBack(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    StepBegun(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    StepEnded(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    StepRetried(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    StepTimedOut(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    PublishBegun(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    PublishEnded(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    UndoBegun(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    UndoDone(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    UndoFailed(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    UndoRegistered(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    UndoStuck(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    WatermarkAdvanced(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    WindowEmitted(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    WorkerDraining(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    WorkerEnded(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    WorkerStarted(pipeline="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def aliases(
    a0: BreakerState,
    a1: Event,
    a2: JournalEvent,
    a3: Outcome,
    a4: PolicyEvent,
    a5: RequestKind,
    a6: SourceEvent,
    a7: StepEvent,
    a8: StreamEvent,
    a9: UndoEvent,
    a10: WindowReason,
    a11: WorkerEvent,
    a12: PublisherEvent,
) -> None:
    """None takes a number."""
    b0: BreakerState = 1  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b1: Event = 1  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b2: JournalEvent = 1  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b3: Outcome = 1  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b4: PolicyEvent = 1  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b5: RequestKind = 1  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b6: SourceEvent = 1  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b7: StepEvent = 1  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b8: StreamEvent = 1  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b9: UndoEvent = 1  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b10: WindowReason = 1  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b11: WorkerEvent = 1  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b12: PublisherEvent = 1  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del (
        a0,
        b0,
        a1,
        b1,
        a2,
        b2,
        a3,
        b3,
        a4,
        b4,
        a5,
        b5,
        a6,
        b6,
        a7,
        b7,
        a8,
        b8,
        a9,
        b9,
        a10,
        b10,
        a11,
        b11,
        a12,
        b12,
    )
