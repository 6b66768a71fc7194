"""Statistics of streams, limits, journals and contexts, as type checkers see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from returns_pipeline.combine import Branch, BranchStatistics
from returns_pipeline.context import ContextStatistics, StepContext
from returns_pipeline.inspection import OperatorStatistics, StreamStatistics, statistics
from returns_pipeline.journal import JournalStatistics, PostgresJournal, SqliteJournal
from returns_pipeline.policies import (
    Bulkhead,
    BulkheadStatistics,
    CircuitBreaker,
    CircuitState,
    CircuitStatistics,
    RateLimit,
    RateLimitStatistics,
)
from returns_pipeline.sources import Channel, ChannelStatistics

if TYPE_CHECKING:
    from aiostream import Stream

    from returns_pipeline import ResultStream


def of_streams(s: ResultStream[int, str], plain: Stream[int]) -> None:
    """Any stream has statistics."""
    assert_type(s.statistics(), StreamStatistics)
    assert_type(statistics(plain), StreamStatistics)
    assert_type(s.statistics().operators, tuple[OperatorStatistics, ...])
    assert_type(s.statistics().tasks, int)
    assert_type(s.statistics().buffered, int)
    assert_type(s.statistics().operators[0].oldest, float | None)
    statistics([1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.statistics(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    OperatorStatistics(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    StreamStatistics(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tasks: str = s.statistics().tasks  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    tasks = s.statistics().buffered  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    _ = tasks


def of_what_streams_are_made_with(branch: Branch[int], channel: Channel[int]) -> None:
    """Branches of a broadcast, and channels."""
    assert_type(branch.statistics(), BranchStatistics)
    assert_type(channel.statistics(), ChannelStatistics)
    assert_type(channel.statistics().is_open, bool)
    branch.statistics(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    channel.statistics(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    BranchStatistics(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ChannelStatistics(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Branch.statistics(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportUnknownMemberType]
    Channel.statistics(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportUnknownMemberType]


def of_limits(limit: RateLimit, few: Bulkhead, breaker: CircuitBreaker) -> None:
    """Limits that steps share."""
    assert_type(limit.statistics(), RateLimitStatistics)
    assert_type(few.statistics(), BulkheadStatistics)
    assert_type(breaker.statistics(), CircuitStatistics)
    assert_type(breaker.statistics().state, CircuitState)
    RateLimit.statistics(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Bulkhead.statistics(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    CircuitBreaker.statistics(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RateLimitStatistics(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    BulkheadStatistics(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    CircuitStatistics("ajar", 1, 0, 0.0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def of_steps(ctx: StepContext, file: SqliteJournal, server: PostgresJournal) -> None:
    """Contexts and journals."""
    assert_type(ctx.statistics(), ContextStatistics)
    assert_type(file.statistics(), JournalStatistics)
    assert_type(server.statistics(), JournalStatistics)
    StepContext.statistics(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    SqliteJournal.statistics(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    PostgresJournal.statistics(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ContextStatistics(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    JournalStatistics("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
