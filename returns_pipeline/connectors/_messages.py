"""The messages of a `Source` as a `ResultStream`, with the marks that acknowledge them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from returns.result import Result

from returns_pipeline._engine.budget import Budget
from returns_pipeline._engine.calls import Call
from returns_pipeline._engine.chain import Chain, Source
from returns_pipeline._engine.draining import Drainable
from returns_pipeline._engine.error_types import NO_ERRORS, ErrorTypes, errors_of
from returns_pipeline._engine.marks import Mark, MarkedSlice, Sliced
from returns_pipeline._engine.operator import Deferred
from returns_pipeline.connectors._consumer import Signal
from returns_pipeline.connectors._decode import is_type
from returns_pipeline.connectors._message import DeadLetter
from returns_pipeline.errors import DecodeError, TooManyDeliveries
from returns_pipeline.result_stream import ResultStream

__all__ = ["Reading", "messages_call", "stream_of"]


def stream_of(
    begin: Callable[[], Reading], call: Call, *, stores: object | None
) -> ResultStream[Any, Any]:
    """Return a stream of messages whose terminal acknowledges what it has handled.

    Args:
        begin: Returns what a new reading of the stream uses.
        call: The call of the user's.
        stores: What stores their positions, if anything does.
    """
    kept = () if stores is None else (stores,)
    link = Source(_Messages(begin, call), packed=True, split=True, marked=True, stores=kept)
    return ResultStream(Chain(None, link))


def messages_call(
    name: str, decode: type[Any] | Callable[[bytes], Result[Any, Any]] | None, limit: int
) -> Call:
    """Return the call of `Source.messages`, for drawings.

    Args:
        name: What the source reads.
        decode: How messages are decoded.
        limit: How many may be in flight.
    """

    def letter_types() -> tuple[str, ...]:
        decoding = NO_ERRORS
        if decode is not None:
            by_type = is_type(decode)
            decoding = ErrorTypes((DecodeError.__name__,), True) if by_type else errors_of(decode)
        letter = DeadLetter.__name__
        if decoding.complete:
            letter += f"[{decoding | ErrorTypes((TooManyDeliveries.__name__,), complete=True)}]"
        return (letter,)

    bounds = f"up to {limit} in flight"
    return Call(messages_call, errors=letter_types, bounds=bounds, name=f"{name}.messages()")


@dataclass(frozen=True, slots=True)
class Reading:
    """What one reading of the messages uses.

    Attributes:
        take: Emits messages that are there, up to a limit, each bare or in a `Failed`; it may
            return none.
        wait: Waits until there is a message, or something comes in its place.
        emitted: Returns the number of messages so far.
        reached: Is called with such a number when that many have been handled.
    """

    take: Callable[[int], list[Any]]
    wait: Callable[[], Awaitable[Signal | None]]
    emitted: Callable[[], int]
    reached: Callable[[int], None]


class _Messages(Sliced):
    """A source that can be read several times, one after the other."""

    __slots__ = ("_begin", "_call")

    def __init__(self, begin: Callable[[], Reading], call: Call) -> None:
        self._begin = begin
        self._call = call

    def __aiter__(self) -> AsyncIterator[Any]:
        return _OneByOne(self._begin())

    def slices(self, room: Callable[[], int]) -> AsyncIterable[Any]:
        return Deferred(lambda: _InSlices(self._begin(), room), tuple)


class _OneByOne(Drainable):
    """Each message, and after it a mark. A cancelled read loses neither."""

    __slots__ = ("_is_drained", "_mark", "_reading")

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._mark: Mark | None = None
        self._is_drained = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        mark = self._mark
        if mark is not None:
            self._mark = None
            return mark
        if self._is_drained:
            raise StopAsyncIteration
        reading = self._reading
        while not (taken := reading.take(1)):
            signal = await reading.wait()
            if signal is Signal.END:
                raise StopAsyncIteration
            if signal is Signal.FLUSH:
                return Mark(reading.reached, reading.emitted(), flushes=True)
        self._mark = Mark(reading.reached, reading.emitted())
        return taken[0]

    def drain(self) -> None:
        """Emit the mark after the last message, and nothing more."""
        self._is_drained = True


class _InSlices(Drainable):
    """Messages in slices, of those that are there. A cancelled read loses none."""

    __slots__ = ("_budget", "_is_drained", "_loop", "_reading", "_room")

    def __init__(self, reading: Reading, room: Callable[[], int]) -> None:
        self._reading = reading
        self._room = room
        self._is_drained = False
        self._loop = asyncio.get_running_loop()
        self._budget = Budget(self._loop)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        size = await self._budget.renew()
        if self._is_drained:
            raise StopAsyncIteration
        reading = self._reading
        while not (taken := reading.take(min(size, self._room()))):
            signal = await reading.wait()
            if signal is Signal.END:
                raise StopAsyncIteration
            if signal is Signal.FLUSH:
                return Mark(reading.reached, reading.emitted(), flushes=True)
            self._budget.restart(self._loop.time())
        return MarkedSlice(taken, reading.reached, reading.emitted() - len(taken))

    def drain(self) -> None:
        """Emit nothing more: the last slice had its marks."""
        self._is_drained = True
