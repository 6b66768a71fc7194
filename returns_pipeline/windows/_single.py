"""Windows of which one is open at a time: the base of `chunks_by_weight` and `chunks_until`."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable
from typing import Any

from returns_pipeline import telemetry
from returns_pipeline._engine import checks
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.marks import CarriesMarks, InOrder, Mark
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.windows._deadlines import DeadlinePump
from returns_pipeline.windows._flushing import FlushOn

__all__ = ["MarkedSingle", "OpenList", "SingleWindowPump", "check_emit_empty"]


def check_emit_empty(emit_empty: bool, timeout: float, flush_on: FlushOn | None) -> bool:
    """Refuse to emit empty lists where none could come.

    Raises:
        InvalidArgument: Neither a time limit nor a signal would emit one.
    """
    if emit_empty and timeout == math.inf and flush_on is None:
        raise InvalidArgument("emit_empty needs a finite timeout, or flush_on")
    return emit_empty


class OpenList(list[Any]):
    """An open list, and the weight of its items."""

    __slots__ = ("deadline", "since", "weight", "why")

    why: telemetry.WindowReason  # it is emitted; set when it is queued

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self.deadline = deadline
        self.since: float | None = None  # when its first item came, if it is observed
        self.weight: float = 0  # an int, so that a Decimal or Fraction can be added to it


class SingleWindowPump(DeadlinePump):
    """The open list, if any. A failure flushes it and is emitted after it.

    A list that is due by its age stays open, and in ``due``, until the reader takes it. An empty
    list that is due is such a list: the next item joins it, if it arrives before the reader.
    """

    __slots__ = ("_emit_empty", "_n", "_open", "_silent_until", "_timeout")

    def __init__(
        self,
        source: AsyncIterable[Any],
        timeout: Seconds,
        n: int | None,
        flush_on: FlushOn | None,
        emit_empty: bool,
    ) -> None:
        super().__init__(source, flush_on)
        self._timeout = checks.seconds("timeout", timeout)
        self._n = math.inf if n is None else checks.count("n", n)
        self._emit_empty = check_emit_empty(emit_empty, self._timeout, flush_on)
        self._open: OpenList | None = None
        self._silent_until = math.inf  # when an empty list is due, if there is no item until then

    def bounds(self) -> str:
        return "" if self._n == math.inf else f"holds up to {self._n}"

    def room(self) -> int:
        return int(min(self._n, super().room()))

    def held(self) -> int:
        window = self._open
        is_queued = bool(self.due) and self.due[-1] is window
        return super().held() + (0 if window is None or is_queued else len(window))

    def open_windows(self) -> tuple[int, float | None]:
        if not self._open:
            return 0, None
        return 1, self.age(self._open.deadline - self._timeout)

    def start_tasks(self) -> None:
        """Begin the first silence, where it is to be seen."""
        self._begin_silence()
        super().start_tasks()

    def take(self) -> Any:
        taken = self.due.popleft()
        if taken is self._open:
            self._open = None
        if taken.__class__ is not OpenList:
            self.resume()
            return taken  # a failure
        if self.stage is not None:
            since = self.loop.time() if taken.since is None else taken.since
            self.report(len(taken), taken.why, since, self.weight_of(taken))
        self._begin_silence()
        self.resume()
        return taken[:]

    def weight_of(self, taken: OpenList) -> float | None:  # noqa: ARG002
        """Return what the items of a list weigh together; None if they have no weight."""
        return None

    def next_deadline(self) -> float:
        if self.due:
            return math.inf
        return self._silent_until if self._open is None else self._open.deadline

    def expire(self, now: float, why: telemetry.WindowReason = "time") -> None:
        if self.due:
            return
        if self._open is None and self._emit_empty and self._silent_until <= now:
            self._open = OpenList(now)
        if self._open is not None and self._open.deadline <= now:
            self._open.why = why
            self.due.append(self._open)

    def flush(self, why: telemetry.WindowReason) -> None:
        if self._open is not None and not self.due:
            self._open.why = why
            self.due.append(self._open)
        self._open = None

    def discard(self) -> None:
        super().discard()
        self._open = None

    def begin(self) -> OpenList:
        """Open a list for an item that has come."""
        window = OpenList(self.now() + self._timeout)
        if self.stage is not None:
            window.since = self.loop.time()
        self._open = window
        self.arm()
        return window

    async def emit_open(self, why: telemetry.WindowReason) -> None:
        """Close the open list, and wait until the reader has taken it.

        Args:
            why: Why it is closed, if it is not full.
        """
        self.flush("size" if self._open is not None and len(self._open) >= self._n else why)
        await self.wait_until_taken()

    def _begin_silence(self) -> None:
        if self._emit_empty and not self.source_ended:
            self._silent_until = self.now() + self._timeout
            self.arm()


class MarkedSingle(CarriesMarks[InOrder], SingleWindowPump):
    """Emits a mark after the list that was open when it came. For the classes of each operator."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.marks = InOrder()

    def keep(self, mark: Mark) -> None:
        if mark.flushes:
            self.flush_for_credit()
        is_queued = bool(self.due) and self.due[-1] is self._open
        self.marks.put(mark, len(self.due) + (self._open is not None and not is_queued))

    def take_item(self) -> Any:
        item = super().take_item()
        self.marks.passed()
        return item
