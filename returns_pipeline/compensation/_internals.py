"""The private functions of this room that other rooms call. They import no other file here."""
# pyright: reportPrivateUsage=false
# This file alone uses private methods of the class, and lists every one that is used.

from __future__ import annotations

from typing import Final

from returns_pipeline.compensation._registry import hidden
from returns_pipeline.compensation._report import HIDDEN
from returns_pipeline.compensation._scope import CompensationScope
from returns_pipeline.compensation._undo import Action, undo_once

__all__ = [
    "HIDDEN",
    "Action",
    "awaits_journal",
    "commit",
    "commits_ended",
    "detached",
    "hidden",
    "presume_committed",
    "renew_key",
    "roll_back",
    "roll_back_after",
    "undo_once",
    "until_open",
]

awaits_journal: Final = CompensationScope._awaits_journal
commit: Final = CompensationScope._commit
commits_ended: Final = CompensationScope._commits_ended
detached: Final = CompensationScope._detached
presume_committed: Final = CompensationScope._presume_committed
renew_key: Final = CompensationScope._renew_key
roll_back: Final = CompensationScope._roll_back
roll_back_after: Final = CompensationScope._roll_back_after
until_open: Final = CompensationScope._until_open
