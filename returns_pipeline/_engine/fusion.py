"""The engine of `ResultStream`: a chain of steps, run by as few generators as possible.

A chain is a linked list that ends in its source. Neighbouring sequential steps are *fused*: one
generator runs them all, so a step costs a function call and not a generator. A step that needs
tasks of its own (a window, a concurrent step) is a *segment*: an iterator over the links before it.

Between steps an item is its bare value, and a failure is a `Failed`: a `returns` container is made
only where a reader sees it, because making one costs three times as much as a slotted object.

Values change their type from step to step, so the engine does not know it (hence ``Any``). The
methods of `ResultStream`, which add the steps, are exact.
"""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeAlias, TypeVar

from returns.primitives.container import BaseContainer
from returns.result import Failure, Result, Success

from returns_pipeline._engine.budget import Budget
from returns_pipeline._engine.checks import truth
from returns_pipeline._engine.draining import until
from returns_pipeline._engine.future_results import LOST, refuse_lost, unpacked
from returns_pipeline._engine.operator import (
    OpenIterator,
    QuickStreamer,
    open_iterator,
    plain_iterator,
)
from returns_pipeline._engine.task_owner import was_stopped

__all__ = [
    "Chain",
    "Failed",
    "FanInLink",
    "Link",
    "Segment",
    "Source",
    "Stateful",
    "Step",
    "open_half",
    "open_results",
    "read",
    "read_results",
    "sources",
    "split",
    "tuple_or_failed",
]

E_co = TypeVar("E_co", covariant=True)


class Failed(Generic[E_co]):
    """A failure between two steps, where a bare item is a success."""

    __slots__ = ("error",)

    def __init__(self, error: E_co) -> None:
        self.error: E_co = error


# What a step does with a value. The cheapest come first: they take the fewest comparisons.
MAP: Final = 0  # func: value -> value
FILTER: Final = 1  # func: value -> bool: keep it?
BIND: Final = 2  # func: value -> Result
TAP: Final = 3  # func: value -> anything, ignored
ENSURE: Final = 4  # func: value -> bool; else a failure of extra: value -> error
SPLIT: Final = 5  # after a segment: a `Failed` is a failure
UNPACK: Final = 6  # at the start of a chain of Results
ATTEMPT: Final = 7  # func: value -> value, or one of the exceptions `extra`
BIND_ASYNC: Final = 8  # func: value -> awaitable Result
MAP_ASYNC: Final = 9  # func: value -> awaitable value
TAP_ASYNC: Final = 10  # as TAP, awaited
ATTEMPT_ASYNC: Final = 11  # as ATTEMPT, awaited
# With either:
BIMAP: Final = 12  # func: value -> value; extra: error -> error
# With an error; values pass.
ALT: Final = 13  # func: error -> error
TAP_FAILURE: Final = 14  # func: error -> anything, ignored
TAP_FAILURE_ASYNC: Final = 15  # as TAP_FAILURE, awaited
LASH: Final = 16  # func: error -> Result
LASH_ASYNC: Final = 17  # func: error -> awaitable Result

Step: TypeAlias = "tuple[int, Callable[[Any], Any], Any]"  # what it does; func; extra
Segment: TypeAlias = "Callable[[AsyncIterable[Any]], AsyncIterable[Any]]"

_SPLIT_STEP: Final[Step] = (SPLIT, Failed, None)  # its function is not called
_UNPACK_STEP: Final[Step] = (UNPACK, Failed, None)

# What `Success(value)` does, without the two calls of ``__init__`` that are half of its cost.
_new: Any = Success.__new__
_set_value: Any = BaseContainer.__dict__["_inner_value"].__set__


@dataclass(frozen=True, slots=True)
class Source:
    """Where the items of a chain come from.

    Attributes:
        items: The user's async iterable.
        packed: Whether its items are Results, not plain values.
        folded: Exceptions of its own that become a failure.
    """

    items: AsyncIterable[Any]
    packed: bool
    folded: tuple[type[Exception], ...] = ()


@dataclass(frozen=True, slots=True)
class FanInLink:
    """A segment that reads other chains besides the one before it.

    Attributes:
        others: The other chains. An event that ends the source of this chain ends theirs, too.
        join: Makes one iterator of them all, the links before this one first.
    """

    others: tuple[Chain, ...]
    join: Callable[[list[AsyncIterable[Any]]], AsyncIterable[Any]]

    def stopped_by(self, stops: list[asyncio.Event]) -> Segment:
        """Return the segment, with the events that end its sources."""
        chains: list[Chain] = []
        for chain in self.others:
            stopped = chain
            for stop in stops:
                stopped = Chain(stopped, stop)
            chains.append(stopped)
        return lambda part: self.join([part, *[_Unfused(chain) for chain in chains]])


@dataclass(frozen=True, slots=True)
class Stateful:
    """A step with a state: it is made again for each reading of the chain.

    Attributes:
        make: Makes the step.
    """

    make: Callable[[], Step]


class _Unfused:
    """A chain as an async iterable, for a segment to read."""

    __slots__ = ("chain",)

    def __init__(self, chain: Chain) -> None:
        self.chain = chain

    def __aiter__(self) -> AsyncIterator[Any]:
        return _fuse(lambda: _assemble(self.chain), packed=False, owned=True)


Link: TypeAlias = "Source | Step | Stateful | Segment | FanInLink | asyncio.Event"
"""The elements of a chain. An event ends the source when it is set."""


class Chain:
    """One link, and the chain before it.

    Attributes:
        before: The chain before it; `None` before a `Source` alone.
        link: The last link.
        segmented: Whether a segment of it runs in tasks of its own.
        written: The method that added the link, with its arguments.
    """

    __slots__ = ("before", "link", "segmented", "written")

    def __init__(self, before: Chain | None, link: Link) -> None:
        self.before: Chain | None = before
        self.link: Link = link
        self.written: tuple[str, tuple[Any, ...], dict[str, Any]] | None = None
        # Kept, because finding it out at each link would make a chain of n links take n * n steps.
        self.segmented: bool = (
            (before is not None and before.segmented)
            or callable(link)
            or isinstance(link, FanInLink)
        )


def sources(chain: Chain) -> Iterator[AsyncIterable[Any]]:
    """Yield the sources that a chain reads."""
    chains = [chain]
    while chains:
        at = chains.pop()
        while at.before is not None:
            if isinstance(at.link, FanInLink):
                chains.extend(at.link.others)
            at = at.before
        if isinstance(at.link, Source):
            yield at.link.items


def split(result: Result[Any, Any], place: Any = None) -> Any:
    """Turn a Result into a bare value or a `Failed`; ``place`` is that of the step it is from."""
    if isinstance(result, Success):
        return result.unwrap()
    return Failed(_error_of(result, place))


def read(chain: Chain) -> AsyncGenerator[Any, None]:
    """Run a chain: emit bare values, and a `Failed` for each failure."""
    return _fuse(lambda: _assemble(chain), packed=False)


def read_results(chain: Chain) -> AsyncGenerator[Result[Any, Any], None]:
    """Run a chain: emit a Result for each item."""
    return _fuse(lambda: _assemble(chain), packed=True)


def open_results(chain: Chain) -> QuickStreamer[Result[Any, Any]]:
    """Do as `read_results`, for a reader that may be cancelled and continue, or closed meanwhile.

    If a segment of the chain runs in tasks of its own, a read that is cancelled while it waits for
    that segment loses nothing.
    """
    if chain.segmented:
        return QuickStreamer(_Resumable(chain))
    source = _OpenSource()
    steps = _fuse(lambda: _assemble(chain), packed=True, opened=source)
    return QuickStreamer(steps, partial(source.close, steps))


def open_half(chain: Chain, *, failed: bool) -> QuickStreamer[Any]:
    """Emit the values of a chain alone, or its errors, as `open_results` emits both."""
    if chain.segmented:
        return QuickStreamer(_Resumable(chain, half=failed))
    source = _OpenSource()
    steps = _half(chain, source, failed=failed)
    return QuickStreamer(steps, partial(source.close, steps))


async def _half(chain: Chain, source: _OpenSource, *, failed: bool) -> AsyncGenerator[Any, None]:
    budget = Budget(asyncio.get_running_loop())
    steps = _fuse(lambda: _assemble(chain), packed=False, opened=source)
    async with plain_iterator(steps) as items:
        async for item in items:
            if (item.__class__ is Failed) is failed:
                yield item.error if failed else item
            elif budget.spend():
                await budget.renew()


class _OpenSource:
    """The source that fused steps read, for a task that closes them while another runs a step.

    A running async generator cannot be closed, but the source that it will read next can: then the
    step runs to its end, its item is emitted, and the stream ends.
    """

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: Any = None  # an async iterator, once it is open

    async def close(self, steps: Any) -> None:
        """Close the steps, or, if they run, their source.

        Raises:
            RuntimeError: Another task waits for the source itself, as for any async generator.
        """
        if not steps.ag_running:
            await steps.aclose()
        elif (aclose := getattr(self.items, "aclose", None)) is not None:
            await aclose()


class Upstream:
    """The links of a chain before a segment, for that segment to read."""

    __slots__ = ("source", "steps")

    def __init__(self, source: AsyncIterable[Any], steps: list[Step]) -> None:
        self.source = source
        self.steps = steps

    def __aiter__(self) -> AsyncIterator[Any]:
        if not self.steps:
            return aiter(self.source)
        return _fuse(lambda: (self.source, self.steps), packed=False, owned=True)


def _assemble(chain: Chain) -> tuple[AsyncIterable[Any], list[Step]]:
    """Turn the links into a source and the steps after it; in a loop, as a chain may be long."""
    steps: list[Step | Segment] = []
    stops: list[asyncio.Event] = []
    at = chain
    while at.before is not None:
        if isinstance(at.link, asyncio.Event):
            stops.append(at.link)
        elif isinstance(at.link, FanInLink):
            steps.append(at.link.stopped_by(stops.copy()))
        elif isinstance(at.link, Stateful):
            steps.append(at.link.make())
        else:
            assert not isinstance(at.link, Source)
            steps.append(at.link)
        at = at.before
    assert isinstance(at.link, Source)
    fused: list[Step]
    source, fused = _open_source(at.link, stops)
    for step in reversed(steps):
        if isinstance(step, tuple):
            fused.append(step)
        else:
            source = step(Upstream(source, fused))
            fused = [_SPLIT_STEP]
    return source, fused


def _open_source(link: Source, stops: list[asyncio.Event]) -> tuple[AsyncIterable[Any], list[Step]]:
    """Return the items as they are to be read, and the step that they need first."""
    source = link.items
    if stops:
        source = until(source, stops)
    if link.folded:
        return _fold_in(source, link.folded, packed=link.packed), [_SPLIT_STEP]
    return source, [_UNPACK_STEP] if link.packed else []


class _Resumable:
    """Read a chain that has a segment, so that a cancelled read loses nothing.

    An async generator cannot be read again after a read of it was cancelled. So the one that runs
    the steps after the last segment never waits for items: it gets an item that has arrived
    already. Only the cancellation of a step ends it, as it ends any chain.

    It emits Results; or, with ``half``, the values alone (False) or the errors alone (True).

    States: new; open, from the first read; closed. `aclose` may be called in each of them, also
    while another task reads: a task that waits for the segment then sees the end, and one that runs
    a step emits its item first.
    """

    def __init__(self, chain: Chain, *, half: bool | None = None) -> None:
        self._chain = chain
        self._half = half
        self._segment: OpenIterator[Any] | None = None
        self._next = OneItem()
        self._fused: list[Step] = []
        self._steps: Any = None  # an async generator, or None
        self._is_read = False
        self._closed = False

    def __aiter__(self) -> _Resumable:
        return self

    async def __anext__(self) -> Any:
        if self._is_read:
            # Here, because the same error of the segment would end the stream of the first reader.
            raise RuntimeError("another task is reading this iterator")
        self._is_read = True
        try:
            return await self._read()
        finally:
            self._is_read = False

    async def _read(self) -> Any:  # noqa: C901  # one flat loop, for its speed
        if self._closed:
            raise StopAsyncIteration
        if self._segment is None:
            source, self._fused = _assemble(self._chain)
            self._segment = await open_iterator(source)
        while True:
            try:
                self._next.item = await anext(self._segment.items)
            except asyncio.CancelledError:
                raise  # the next read continues
            except BaseException:
                await self.aclose()
                raise
            if self._steps is None:
                # Without a reference to this object, which would make a cycle.
                parts: Any = self._next, self._fused
                self._steps = _fuse(partial(_same, parts), packed=self._half is None)
            try:
                result = await anext(self._steps)
            except StopAsyncIteration:
                self._steps = None  # the item was dropped, and there was no other
            except BaseException:
                await self.aclose()
                raise
            else:
                if self._half is None:
                    return result
                if (result.__class__ is Failed) is self._half:
                    return result.error if self._half else result

    async def aclose(self) -> None:
        """Close the steps, if they do not run, then the segment before them."""
        self._closed = True
        try:
            if self._steps is not None and not self._steps.ag_running:
                await self._steps.aclose()
        finally:
            if self._segment is not None:
                await self._segment.aclose()


_EMPTY: Final = object()


class OneItem:
    """A source of one item, or none; it never waits."""

    __slots__ = ("item",)

    def __init__(self) -> None:
        self.item: Any = _EMPTY

    def __aiter__(self) -> OneItem:
        return self

    async def __anext__(self) -> Any:
        item, self.item = self.item, _EMPTY
        if item is _EMPTY:
            raise StopAsyncIteration
        return item


async def _fuse(  # noqa: C901  # one flat loop: a call per step would double its cost
    assemble: Callable[[], tuple[AsyncIterable[Any], list[Step]]],
    *,
    packed: bool,
    opened: _OpenSource | None = None,
    owned: bool = False,  # a segment reads it, in its own task
) -> AsyncGenerator[Any, None]:
    source, steps = assemble()
    budget: Budget | None = None
    left = 2  # items to be dropped until it is needed: never for `OneItem`
    error: Any = None
    new, set_value, lost = _new, _set_value, LOST
    first: Any = None
    for step in reversed(steps):
        first = (*step, first)
    async with plain_iterator(source) as items:
        if opened is not None:
            opened.items = items
        async for item in items:
            # A failure continues with the step after the one that made it, and so does a value
            # that a failure was turned into.
            value, todo, failed = item, first, False
            while True:
                while todo is not None:
                    code, func, extra, todo = todo
                    if code < TAP:
                        if code == MAP:
                            value = func(value)
                        elif code == FILTER:
                            kept = func(value)
                            if kept is not True and not truth(kept, func):
                                break
                        else:  # BIND
                            value = func(value)
                            if isinstance(value, Success):
                                if todo is None and packed:
                                    yield value  # it need not be made again
                                    break
                                value = value.unwrap()
                            else:
                                failed, error = True, _error_of(value, extra)
                                break
                    elif code == TAP:
                        if (given := func(value)) is not None and given.__class__ in lost:
                            refuse_lost(given, extra, "tap_result() or tap_async()")
                    elif code == ENSURE:
                        kept = func(value)
                        if kept is not True and not truth(kept, func):
                            failed, error = True, extra(value)
                            break
                    elif code == SPLIT:
                        if value.__class__ is Failed:
                            failed, error = True, value.error
                            break
                    elif code == UNPACK:
                        if isinstance(value, Success):
                            value = value.unwrap()
                        else:
                            failed, error = True, _error_of(value)
                            break
                    elif code == ATTEMPT:
                        try:
                            value = func(value)
                        except extra as raised:
                            failed, error = True, raised
                            break
                    elif code == BIND_ASYNC:
                        value = await func(value)
                        if isinstance(value, Success) or isinstance(
                            value := unpacked(value), Success
                        ):
                            value = value.unwrap()
                        else:
                            failed, error = True, _error_of(value, extra)
                            break
                    elif code == MAP_ASYNC:
                        value = await func(value)
                    elif code == TAP_ASYNC:
                        if (given := await func(value)) is not None:
                            refuse_lost(given, extra, "tap_result_async()")
                    elif code == ATTEMPT_ASYNC:
                        try:
                            value = await func(value)
                        except extra as raised:
                            failed, error = True, raised
                            break
                    elif code == BIMAP:
                        value = func(value)
                else:
                    if packed:
                        made = new(Success)
                        set_value(made, value)
                        yield made
                    else:
                        yield value
                    break
                if not failed:  # the item is dropped, or was yielded as it is
                    left -= 1
                    if not left:
                        budget = budget or Budget(asyncio.get_running_loop())
                        left = await budget.renew()
                        if owned and was_stopped():
                            return  # and the source has swallowed the cancellation
                    break
                failed = False
                while todo is not None:
                    code, func, extra, todo = todo
                    if code < BIMAP:
                        continue
                    if code == BIMAP:
                        error = extra(error)
                    elif code == ALT:
                        error = func(error)
                    elif code == TAP_FAILURE:
                        if (given := func(error)) is not None:
                            refuse_lost(given, extra, "lash() or tap_failure_async()")
                    elif code == TAP_FAILURE_ASYNC:
                        if (given := await func(error)) is not None:
                            refuse_lost(given, extra, "lash_async()")
                    else:  # LASH, LASH_ASYNC
                        value = func(error) if code == LASH else unpacked(await func(error))
                        if isinstance(value, Success):
                            value = value.unwrap()
                            break
                        error = _error_of(value, extra)
                else:
                    yield Failure(error) if packed else Failed(error)
                    break


def _error_of(result: object, place: Any = None) -> Any:
    """Return the error of a Failure; in a well-typed program it can be nothing else."""
    if isinstance(result, Failure):
        return result.failure()
    if place is not None:  # of the step that returned it
        raise place.wrong(result)
    raise TypeError(f"expected a Success or a Failure, not {result!r}")


def _same(value: Any) -> Any:
    return value


async def _fold_in(
    source: AsyncIterable[Any], folded: tuple[type[Exception], ...], *, packed: bool
) -> AsyncGenerator[Any, None]:
    """Emit one failure, the last item, for a listed exception of the source."""
    async with contextlib.AsyncExitStack() as opened:
        items: AsyncIterator[Any] | None = None
        while True:
            try:
                if items is None:
                    items = await opened.enter_async_context(plain_iterator(source))
                item = await anext(items)
            except StopAsyncIteration:
                return
            except folded as error:
                yield Failed(error)
                return
            yield split(item) if packed else item


def tuple_or_failed(items: list[Any]) -> Any:
    """Put items of the same number into a tuple; a failed one takes its place."""
    for item in items:
        if item.__class__ is Failed:
            return item
    return tuple(items)
