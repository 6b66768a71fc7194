"""What only the engine asks of scopes and contexts, for tests that ask it too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from returns_pipeline.compensation import CompensationReport, CompensationScope
from returns_pipeline.compensation._binding import JournalBinding
from returns_pipeline.compensation._internals import commit, detached, roll_back, until_open

if TYPE_CHECKING:
    import asyncio

__all__ = ["commit_or_roll_back", "detached", "saga_of"]


def saga_of(scope: CompensationScope) -> str:
    """Return the id of the saga in the journal that the scope's next action belongs to."""
    binding = scope._settings.binding  # pyright: ignore[reportPrivateUsage]
    assert isinstance(binding, JournalBinding)
    return binding.saga


async def commit_or_roll_back(scope: CompensationScope, *, keep: bool) -> CompensationReport:
    """Commit or undo what is registered so far; the scope stays open, as in a `StepContext`."""
    await until_open(scope)
    cancelled: asyncio.CancelledError | None
    report = CompensationReport()
    if keep:
        cancelled = await commit(scope, keep_open=True)
    else:
        report, cancelled = await roll_back(scope, close=False)
    if cancelled is not None:
        raise cancelled
    return report
