"""`route` of a marked stream: a mark is emitted when the workers before it have ended.

A worker may hold items for as long as it runs: that it requests the next one does not tell that it
has handled the last. So an item is handled when its worker has ended, and all that it emitted was
taken. A mark that flushes ends the items of all workers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from typing import Any

from returns_pipeline._engine.fan_in import Input
from returns_pipeline._engine.marks import BySpan, Mark, Span, Unmarked
from returns_pipeline._engine.operator import plain_iterator
from returns_pipeline._engine.reader import Reader
from returns_pipeline.combine._route import RoutePump
from returns_pipeline.combine._worker import Inbox

__all__ = ["MarkedRoutePump", "MarkedRouteReader"]


class _Gone:
    """Comes after all items of an input that belong to a span; it is not emitted."""

    __slots__ = ("span",)

    def __init__(self, span: Span) -> None:
        self.span = span


class MarkedRoutePump(RoutePump[Any, Any]):
    """Puts a `_Gone` after the last item of each worker, and, for each mark, after the failures."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.marks = BySpan()
        self._spans: dict[Inbox[Any, Any], Span] = {}
        self._inherited: Span | None = None  # of the worker that has ended now

    def incoming_to(self, input_: Input[Any], items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        return Unmarked(items, partial(self._on_mark, input_))

    def _on_mark(self, input_: Input[Any], mark: Mark) -> None:
        if self.closed:
            return
        if mark.flushes:
            for key in self._inboxes:
                _ = self._idle.pop(key, None)
                self._retire(key)
        items = input_.items
        if items and items[-1].__class__ is _Gone:
            self.marks.put(mark)
            return
        items.append(_Gone(self.marks.begun()))
        self.marks.put(mark)
        if len(items) == 1:
            self.on_item(input_)
            self.notify_reader()

    def _start_worker(self, inbox: Inbox[Any, Any]) -> None:
        inherited, self._inherited = self._inherited, None
        self._spans[inbox] = self.marks.begun(inherited)
        super()._start_worker(inbox)

    def _worker_ended(self, inbox: Inbox[Any, Any]) -> None:
        self._inherited = self._spans[inbox]  # for the worker that gets the items it has left
        super()._worker_ended(inbox)
        self._inherited = None

    async def _run_worker(self, inbox: Inbox[Any, Any]) -> AsyncGenerator[Any, None]:
        async with plain_iterator(super()._run_worker(inbox)) as made:
            async for item in made:
                yield item
        yield _Gone(self._spans.pop(inbox))


class MarkedRouteReader(Reader[Any]):
    """Emits marks when they are ready, and no `_Gone`."""

    __slots__ = ("_marks",)

    def __init__(self, pump: MarkedRoutePump) -> None:
        super().__init__(pump)
        self._marks = pump.marks

    async def __anext__(self) -> Any:
        marks = self._marks
        while not marks.ready:
            item = await super().__anext__()
            if item.__class__ is not _Gone:
                return item
            marks.gone(item.span)
        return marks.ready.popitem()[1]
