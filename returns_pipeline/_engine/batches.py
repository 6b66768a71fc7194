"""A source whose items come in batches, for a chain that runs a plain loop over each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from typing import Any

from returns_pipeline._engine.budget import Budget
from returns_pipeline._engine.leaving import Composite
from returns_pipeline._engine.operator import OpenIterator, open_iterator
from returns_pipeline._engine.task_owner import was_stopped

__all__ = ["Slices"]


class Slices(Composite):
    """The batches of a source in slices: lists, which may be empty.

    A loop over a slice does not suspend. So a slice has no more items than may be handled before
    other tasks run (see `Budget`); they run between two slices, if it is time.

    A batch is read when its first item is requested. It is copied, so that the source may use its
    list again.

    Args:
        source: The batches.
        owned: Whether a segment reads them, in a task of its own.
    """

    __slots__ = ("_owned", "_source")

    def __init__(self, source: AsyncIterable[Sequence[Any]], *, owned: bool) -> None:
        self._source = source
        self._owned = owned

    def _sources(self) -> tuple[AsyncIterable[Any]]:
        return (self._source,)

    def __aiter__(self) -> AsyncIterator[list[Any]]:
        return _SlicesReader(self._source, owned=self._owned)


class _SlicesReader:
    __slots__ = ("_at", "_batch", "_budget", "_is_closed", "_opened", "_owned", "_slice", "_source")

    _budget: Budget

    def __init__(self, source: AsyncIterable[Sequence[Any]], *, owned: bool) -> None:
        self._source = source
        self._owned = owned
        self._opened: OpenIterator[Sequence[Any]] | None = None
        self._batch: list[Any] = []
        self._at = 0  # the place in the batch at which the next slice begins
        self._slice: list[Any] = []
        self._is_closed = False

    def __aiter__(self) -> _SlicesReader:
        return self

    async def __anext__(self) -> list[Any]:
        if self._is_closed:
            raise StopAsyncIteration
        if self._opened is None:
            self._budget = Budget(asyncio.get_running_loop())
            self._opened = await open_iterator(self._source)
        size = await self._budget.renew()
        if self._must_end():
            raise StopAsyncIteration
        self._slice.clear()  # the loop over it has ended: hold no item while the source waits
        if self._at >= len(self._batch):
            self._batch.clear()
            batch = _list_of(await anext(self._opened.items))
            if self._is_closed:
                raise StopAsyncIteration  # while an iterator of the user's, not a generator, waited
            self._batch = batch
            self._at = 0
        self._slice = self._batch[self._at : self._at + size]
        self._at += size
        return self._slice

    def _must_end(self) -> bool:
        """Return whether it was closed while other tasks ran, or the source swallowed its stop."""
        return self._is_closed or (self._owned and was_stopped())

    async def aclose(self) -> None:
        """Close the source, once, and drop the items that were read, even from a running loop."""
        self._is_closed = True
        self._batch.clear()
        self._slice.clear()
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.aclose()


def _is_sequence(kind: type[object]) -> bool:
    """Return whether batches of a class are sequences of items, and not single items."""
    return issubclass(kind, list | tuple) or (
        not issubclass(kind, str | bytes | bytearray | Mapping)
        and hasattr(kind, "__len__")
        and hasattr(kind, "__getitem__")
    )


def _list_of(batch: object) -> list[Any]:
    """Return a copy of a batch.

    Raises:
        TypeError: It is a single item: a text, a mapping, or anything but a sequence.
    """
    if not _is_sequence(type(batch)):
        name = type(batch).__name__
        raise TypeError(
            f"from_batches() reads sequences of items, not {name!r}: use of() for single items"
        )
    items: Any = batch
    try:
        return list(items)
    except StopAsyncIteration as error:  # it would look like the end of the source
        raise RuntimeError("a batch raised StopAsyncIteration") from error
