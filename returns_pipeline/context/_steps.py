"""Running a step in a context of its own: the part of `StepContext` for the other rooms."""
# pyright: reportPrivateUsage=false
# Users run steps with `StepContext.run`. Only this file uses private parts of the class, and lists
# every one that is used.

from __future__ import annotations

from typing import Final

from returns_pipeline.context._context import StepContext

__all__ = [
    "abandon",
    "awaits_journal",
    "commits_ended",
    "journal_of",
    "keep_key",
    "kept_key",
    "observed",
    "open_attempt",
    "presume_committed",
    "run_and_settle",
    "with_child",
]

abandon: Final = StepContext._abandon
awaits_journal: Final = StepContext._awaits_journal
commits_ended: Final = StepContext._commits_ended
journal_of: Final = StepContext._journal
keep_key: Final = StepContext._keep_key
kept_key: Final = StepContext._kept_key
observed: Final = StepContext._observed
open_attempt: Final = StepContext._open_attempt
presume_committed: Final = StepContext._presume_committed
run_and_settle: Final = StepContext._run_and_settle
with_child: Final = StepContext._with_child
