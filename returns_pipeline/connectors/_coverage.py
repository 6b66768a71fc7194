"""Which positions a commit covers: what a source tells a journal, or a sink."""

from __future__ import annotations

from typing import Any, cast

from returns_pipeline.compensation.protocol import HandledPositions
from returns_pipeline.connectors._ledger import Ledger
from returns_pipeline.connectors._message import messages_in
from returns_pipeline.windows import EventWindow

__all__ = ["LedgerCoverage"]


class LedgerCoverage:
    """The positions that are handled, for a journal or a sink: see `Coverage`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def covered(self, value: object, /) -> list[HandledPositions]:
        found = self._ledger.covered(messages_in(value))
        if not found and not _is_empty(value):
            raise RuntimeError(
                "positions are to be stored, and the step got no messages: pass messages to it, or"
                f" windows of them, not {type(value).__name__!r}"
            )
        return found

    def committed(self, value: object, /) -> None:
        self._ledger.committed(messages_in(value))


def _is_empty(value: object) -> bool:
    """Whether this is a window that nothing has come into."""
    items: object = cast("Any", value).items if isinstance(value, EventWindow) else value
    return isinstance(items, list | tuple) and not items
