"""Never run. What the errors of the tree take and hold."""

from __future__ import annotations

from typing import assert_type

import returns_pipeline
from returns_pipeline import FailedItems, combine, windows
from returns_pipeline.errors import (
    CompensationFailed,
    ConnectionLost,
    DecodeError,
    InvalidArgument,
    MissingExtra,
    PartitionReplaced,
    PartitionsLost,
    PipelineError,
    PublishError,
    ScopeBusy,
    ScopeClosed,
    StepTimeout,
    StreamEmpty,
    TooManyDeliveries,
)


def facts(
    timeout: StepTimeout, failed: CompensationFailed, closed: ScopeClosed, busy: ScopeBusy
) -> None:
    """Facts are attributes."""
    assert_type((timeout.step, timeout.limit), tuple[str, float])
    assert_type((failed.scope, failed.actions), tuple[str, tuple[str, ...]])
    assert_type((closed.scope, closed.state), tuple[str, str])
    assert_type(busy.context, str)
    extra: ImportError = MissingExtra("cron", "cronsim")
    del extra
    StepTimeout("persist", 2.0)
    CompensationFailed("job", ("delete('a')",))
    StepTimeout("persist")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    StepTimeout("persist", "2 s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    CompensationFailed("job", "delete")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ScopeClosed("job")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    MissingExtra("cron")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ScopeBusy()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def of_brokers(
    lost: ConnectionLost,
    moved: PartitionsLost,
    replaced: PartitionReplaced,
    unread: DecodeError,
    often: TooManyDeliveries,
) -> None:
    """Facts are attributes."""
    assert_type((lost.source, lost.reason), tuple[str, str])
    assert_type((moved.source, moved.partitions), tuple[str, tuple[str, ...]])
    assert_type((replaced.source, replaced.reason), tuple[str, str])
    assert_type((unread.wanted, unread.reason), tuple[str, str])
    error = PublishError("orders", "lost", 3, refused=(1,))
    assert_type((error.target, error.reason, error.count), tuple[str, str, int])
    assert_type((error.refused, error.unconfirmed), tuple[tuple[int, ...], tuple[int, ...]])
    assert_type((often.deliveries, often.limit), tuple[int, int])
    ConnectionLost("orders")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    PublishError("orders", "lost")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    PartitionsLost("orders", "p")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    PartitionReplaced("orders")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    DecodeError("Order")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    TooManyDeliveries("6", 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def tree(bad: InvalidArgument, empty: StreamEmpty, any_of_ours: PipelineError) -> None:
    """Each is a `PipelineError`; a bad argument is a `ValueError` too."""
    value_error: ValueError = bad
    errors: list[PipelineError] = [bad, empty, any_of_ours]
    not_a_value: ValueError = empty  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    narrower: InvalidArgument = any_of_ours  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    unrelated: PipelineError = value_error  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    other: StreamEmpty = bad  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del errors, not_a_value, narrower, unrelated, other


def misspelt() -> None:
    """A package that imports its names lazily has only those that it lists."""
    assert_type(returns_pipeline.__version__, str)
    _ = returns_pipeline.ResultStraem  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType]
    _ = windows.chunks_or_timout  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType]
    _ = combine.merg  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType]


def several(failed: FailedItems[int, OSError]) -> None:
    """What `collect_all` fails with."""
    assert_type(failed.successes, list[int])
    assert_type(failed.errors, list[OSError])
    wider: FailedItems[float, Exception] = failed
    narrower: FailedItems[bool, OSError] = failed  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    FailedItems([1])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    del wider, narrower
