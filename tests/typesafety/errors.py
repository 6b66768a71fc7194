"""Never run. What the errors of the tree take and hold."""

from __future__ import annotations

from typing import assert_type

from returns_pipeline import FailedItems
from returns_pipeline.errors import (
    CompensationFailed,
    InvalidArgument,
    MissingExtra,
    PipelineError,
    ScopeBusy,
    ScopeClosed,
    StepTimeout,
    StreamEmpty,
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


def tree(bad: InvalidArgument, empty: StreamEmpty, any_of_ours: PipelineError) -> None:
    """Each is a `PipelineError`; a bad argument is a `ValueError` too."""
    value_error: ValueError = bad
    errors: list[PipelineError] = [bad, empty, any_of_ours]
    not_a_value: ValueError = empty  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    narrower: InvalidArgument = any_of_ours  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    unrelated: PipelineError = value_error  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    other: StreamEmpty = bad  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del errors, not_a_value, narrower, unrelated, other


def several(failed: FailedItems[int, OSError]) -> None:
    """What `collect_all` fails with."""
    assert_type(failed.successes, list[int])
    assert_type(failed.errors, list[OSError])
    wider: FailedItems[float, Exception] = failed
    narrower: FailedItems[bool, OSError] = failed  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    FailedItems([1])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    del wider, narrower
