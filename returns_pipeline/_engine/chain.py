"""A chain of steps: a linked list that ends in its source, and how it is assembled to be read.

Neighbouring sequential steps are *fused*: one compiled function runs them all (see `compiler`). A
step that needs tasks of its own (a window, a concurrent step) is a *segment*: an iterator over the
part of the chain before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
)
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from returns_pipeline._engine import ends, observing, steps
from returns_pipeline._engine.batches import Slices
from returns_pipeline._engine.budget import MAX_STRIDE
from returns_pipeline._engine.calls import Call
from returns_pipeline._engine.compiler import (
    BATCHED,
    DROPPED,
    MARKED,
    ONE,
    SINGLE,
    SLICED,
    Form,
    compiled,
)
from returns_pipeline._engine.draining import until
from returns_pipeline._engine.ends import End
from returns_pipeline._engine.leaving import Composite
from returns_pipeline._engine.marks import Mark, MarkedItems, MarksRefused, Sliced
from returns_pipeline._engine.names import name_of
from returns_pipeline._engine.observing import Observed, Stage, observed_by
from returns_pipeline._engine.operator import NO_SOURCE, Deferred, plain_iterator
from returns_pipeline._engine.reader import Reader
from returns_pipeline._engine.steps import Count, Failed, Kind, Step

__all__ = [
    "Chain",
    "FanInLink",
    "Link",
    "Part",
    "Segment",
    "Source",
    "Stateful",
    "end_marks",
    "parts",
    "sources",
]

Segment: TypeAlias = "Callable[[AsyncIterable[Any]], AsyncIterable[Any]]"
_Room: TypeAlias = "Callable[[], int]"
_Opening: TypeAlias = "contextlib.AbstractAsyncContextManager[AsyncIterator[Any], None]"

_SPLIT: Final[Step] = (steps.SPLIT, Failed, None)  # its function is not called
_UNPACK: Final[Step] = (steps.UNPACK, Failed, None)

# More steps are compiled in several functions: what a chain's shape costs is bounded.
_MOST_STEPS: Final = 200


@dataclass(slots=True, eq=False, repr=False)
class Source:
    """Where the items of a chain come from.

    Attributes:
        items: The user's async iterable.
        packed: Whether its items are Results, not plain values.
        folded: Exceptions of its own that become a failure.
        batched: Whether what it emits is not an item, but a sequence of items.
        marked: Whether it puts a `Mark` after what may be acknowledged; not if ``batched``. It may
            be `Sliced` then.
        split: Whether its Results come as bare values, and a `Failed` for each failure.
        stores: What stores the positions of its messages, when a step has handled them.
    """

    items: AsyncIterable[Any]
    packed: bool
    folded: tuple[type[Exception], ...] = ()
    batched: bool = False
    marked: bool = False
    split: bool = False
    stores: tuple[object, ...] = ()


@dataclass(slots=True, eq=False, repr=False)
class FanInLink:
    """A segment that reads other chains besides the one before it.

    Attributes:
        others: The other chains. An event that ends the source of this chain ends theirs, too.
        join: Makes one iterator of them all, the links before this one first.
    """

    others: tuple[Chain, ...]
    join: Callable[[list[AsyncIterable[Any]]], AsyncIterable[Any]]

    def stopped_by(self, stops: list[asyncio.Event], observed: Observed | None) -> Segment:
        """Return the segment, with the events that end its sources, and who observes them."""
        chains: list[Chain] = []
        for chain in self.others:
            stopped = chain if observed is None else Chain(chain, observed)
            for stop in stops:
                stopped = Chain(stopped, stop)
            chains.append(stopped)
        return lambda part: self.join([part, *map(_unfused, chains)])


@dataclass(slots=True, eq=False, repr=False)
class Stateful:
    """A step with a state: it is made again for each reading of the chain.

    Attributes:
        make: Makes the step.
    """

    make: Callable[[], Step]


Link: TypeAlias = "Source | Step | Stateful | Segment | FanInLink | asyncio.Event | Observed"
"""The elements of a chain. An event ends the source when it is set. `Observed` is about all."""


class Chain:
    """One link, and the chain before it.

    Attributes:
        before: The chain before it; `None` before a `Source` alone.
        link: The last link.
        segmented: Whether a segment of it runs in tasks of its own.
        marked: Whether a source of it puts marks among its items.
        observed: Who observes it, and its name.
        storing: What stores the positions of the messages that the last link has handled, if it
            does, and the name of the step.
        written: The call of the method that added the link.
        reading: The latest reader of the link, if it is a segment and was read.
    """

    __slots__ = (
        "before",
        "link",
        "marked",
        "observed",
        "reading",
        "segmented",
        "storing",
        "written",
    )

    def __init__(self, before: Chain | None, link: Link, *, carries_marks: bool = False) -> None:
        """Add a link.

        Args:
            before: The chain before it.
            link: The link.
            carries_marks: Whether a segment obeys the law of marks (see `marks`).

        Raises:
            MarksRefused: It does not, and there are some.
        """
        self.before: Chain | None = before
        self.link: Link = link
        self.storing: tuple[object, str] | None = None
        self.written: Call | None = None
        self.reading: weakref.ref[Any] | None = None
        is_segment = callable(link) or isinstance(link, FanInLink)
        # Kept, because finding it out at each link would make a chain of n links take n * n steps.
        self.segmented: bool = is_segment or (before is not None and before.segmented)
        self.marked: bool = (
            (before is not None and before.marked)
            or (isinstance(link, Source) and link.marked)
            or (isinstance(link, FanInLink) and any(other.marked for other in link.others))
        )
        self.observed: Observed | None = None if before is None else before.observed
        if isinstance(link, Observed):
            self.observed = observed_by(self.observed, link.observers, link.pipeline)
        if self.marked and is_segment and not carries_marks:
            raise MarksRefused

    @property
    def stores(self) -> tuple[object, ...]:
        """What stores the positions of the messages of its sources."""
        links = [at.link for at in parts(self) if isinstance(at.link, Source)]
        return tuple([store for link in links for store in link.stores])

    @property
    def form(self) -> Form:
        """The form in which a segment emits items, if it is the last link."""
        return MARKED if self.marked else SINGLE

    def assemble(self) -> Part:
        """Return the last part, over all before it; in a loop, as a chain may be long."""
        links: list[tuple[Step | Segment, Chain]] = []
        stops: list[asyncio.Event] = []
        observed = observing.opened(self.observed)
        at = self
        while at.before is not None:
            if isinstance(at.link, asyncio.Event):
                stops.append(at.link)
            elif isinstance(at.link, FanInLink):
                links.append((at.link.stopped_by(stops.copy(), observed), at))
            elif isinstance(at.link, Stateful):
                links.append((at.link.make(), at))
            elif not isinstance(at.link, Observed):
                assert not isinstance(at.link, Source)
                links.append((at.link, at))
            at = at.before
        assert isinstance(at.link, Source)
        part = _first_part(at.link, stops)
        stages = None if observed is None else _Stages(observed)
        for link, at in reversed(links):
            stage = None if stages is None else stages.next(at)
            if callable(link):
                segment = link(part)
                at.reading = weakref.ref(segment)
                if stage is not None and isinstance(segment, Reader):
                    segment.observe(stage)
                part = Part(segment, [_SPLIT], at.form)
            else:
                part.steps.append(link)
        return part


class _Stages:
    """Names the stages of a chain that is observed, from the first one on."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._count = Counter[str]()

    def next(self, at: Chain) -> Stage:
        """Return the next stage: it has the name of its function, or else of its operator."""
        call = at.written
        operator = "stage" if call is None else call.name or name_of(call.func)
        name = str(((call and call.kwargs) or {}).get("name") or operator)
        if call is not None and name == operator and call.args and callable(call.args[0]):
            name = name_of(call.args[0])
            name = operator if name == "<lambda>" else name
        self._count[name] += 1
        count = self._count[name]
        return self._observed.stage(name if count == 1 else f"{name}_{count}", operator)


def parts(chain: Chain) -> Iterator[Chain]:
    """Yield a chain, those before it, and those of the chains that it reads besides."""
    chains = [chain]
    while chains:
        at: Chain | None = chains.pop()
        while at is not None:
            if isinstance(at.link, FanInLink):
                chains.extend(at.link.others)
            yield at
            at = at.before


def sources(chain: Chain) -> Iterator[AsyncIterable[Any]]:
    """Yield the sources that a chain reads, those in the arguments of its segments, too."""
    for at in parts(chain):
        link = at.link
        if isinstance(link, Source):
            yield link.items
        elif callable(link):
            yield link(NO_SOURCE)


def end_marks(chain: Chain) -> None:
    """Inform the sources of a marked chain that its terminal has ended, and reaches no mark."""
    for at in parts(chain):
        link = at.link
        if isinstance(link, Source) and isinstance(link.items, MarkedItems):
            link.items.terminal_ended()


def _no_limit() -> int:
    return MAX_STRIDE


class Part(Composite):
    """Neighbouring sequential steps, and what they read.

    It is an async iterable, for the segment after it to read: of bare values, and of a `Failed` for
    each failure.

    Attributes:
        source: What the steps read.
        steps: The steps.
        form: In which form the source emits items.
        slices: Returns the source in slices, if it is marked and can do that.
    """

    __slots__ = ("form", "slices", "source", "steps")

    def __init__(
        self,
        source: AsyncIterable[Any],
        fused: list[Step],
        form: Form = SINGLE,
        slices: Callable[[_Room], AsyncIterable[Any]] | None = None,
    ) -> None:
        self.source: AsyncIterable[Any] = source
        self.steps: list[Step] = fused
        self.form: Form = form
        self.slices: Callable[[_Room], AsyncIterable[Any]] | None = slices

    def _sources(self) -> tuple[AsyncIterable[Any]]:
        return (self.source,)

    def __aiter__(self) -> AsyncIterator[Any]:
        if not self.steps and self.form is not BATCHED:
            return aiter(self.source)
        items: AsyncIterator[Any] = self.run_to(ends.ITEMS, owned=True)
        return items

    @property
    def counts(self) -> list[Count]:
        """What its steps count with."""
        return [step[1] for step in self.steps if step[0] is steps.COUNT]  # type: ignore[misc]

    def _takes_slices(self, end: End) -> bool:
        """Return whether the marks of a slice are emitted in time: no step may wait in the loop."""
        is_one_loop = len(self.steps) <= _MOST_STEPS
        return is_one_loop and bool(end.slice) and not any(step[0].awaits for step in self.steps)

    def items(self, *, owned: bool = False) -> AsyncIterable[Any]:
        """Return what the compiled function reads."""
        return Slices(self.source, owned=owned) if self.form is BATCHED else self.source

    def run_to(
        self,
        end: End,
        *args: Any,
        opening: _Opening | None = None,
        owned: bool = False,
        room: _Room = _no_limit,
    ) -> Any:
        """Return the generator or the coroutine that runs the steps to their end.

        Args:
            end: The end.
            args: What it takes.
            opening: Opens the source, in place of this part.
            owned: Whether a segment reads the items, in a task of its own.
            room: Returns how many items a slice of a marked source may have.
        """
        if opening is None and self.slices is not None and self._takes_slices(end):
            slices = _counting(plain_iterator(self.slices(room)), self.counts)
            return compiled(end, _kinds(self.steps), SLICED)(slices, self.steps, owned, *args)
        form = self.form
        opening = opening or plain_iterator(self.items(owned=owned))
        last = self.steps
        if last:
            opening = _counting(opening, self.counts)
        if len(last) > _MOST_STEPS:
            *before, last = self._fused()
            for first in before:
                function = compiled(ends.ITEMS, _kinds(first), form)
                opening = plain_iterator(function(opening, first, owned))
                form = MARKED if form is MARKED else SINGLE
        return compiled(end, _kinds(last) if last else (), form)(opening, last, owned, *args)

    def one_by_one(self, end: End) -> Callable[[Any], Awaitable[Any]]:
        """Return a coroutine function that runs the steps for one item, to their end.

        It returns what the end emits, or `DROPPED`.
        """
        *before, last = self._fused()
        functions = [compiled(ends.ITEMS, _kinds(first), ONE) for first in before]
        functions.append(compiled(end, _kinds(last), ONE))
        if not before:
            return partial(functions[0], last)

        async def run(item: Any) -> Any:
            for function, fused in zip(functions, [*before, last], strict=True):
                item = await function(fused, item)
                if item is DROPPED:
                    break
            return item

        return run

    def _fused(self) -> list[list[Step]]:
        """Return the steps of each function."""
        fused = [self.steps]
        while len(fused[-1]) > _MOST_STEPS:
            fused[-1:] = fused[-1][:_MOST_STEPS], [_SPLIT, *fused[-1][_MOST_STEPS:]]
        return fused


def _counting(opening: _Opening, counts: list[Count]) -> _Opening:
    return _Counting(opening, counts) if counts else opening


class _Counting(contextlib.AbstractAsyncContextManager[AsyncIterator[Any], None]):
    """Opens a source, and the counts of the steps that read it; closes both."""

    __slots__ = ("_counts", "_opening")

    def __init__(self, opening: _Opening, counts: list[Count]) -> None:
        self._opening = opening
        self._counts = counts

    async def __aenter__(self) -> AsyncIterator[Any]:
        for count in self._counts:
            count.open()
        try:
            return await self._opening.__aenter__()
        except BaseException:
            self._close()
            raise

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._opening.__aexit__(None, None, None)
        finally:
            self._close()

    def _close(self) -> None:
        for count in self._counts:
            count.close()


def _kinds(fused: list[Step]) -> tuple[Kind, ...]:
    return tuple([step[0] for step in fused])


def _unfused(chain: Chain) -> AsyncIterable[Any]:
    """Return a chain as an async iterable, for a segment to read."""
    return Deferred(lambda: aiter(chain.assemble()), lambda: sources(chain))


def _first_part(link: Source, stops: list[asyncio.Event]) -> Part:
    """Return the items as they are to be read, and the step that they need first."""
    source = link.items
    if stops:
        source = Deferred(partial(until, source, stops), partial(tuple, [source]))
    form = MARKED if link.marked else BATCHED if link.batched else SINGLE
    if link.folded:
        fold = partial(_fold_in, source, link)
        return Part(Deferred(fold, partial(tuple, [source])), [_SPLIT], form)
    first = [_SPLIT] if link.split else [_UNPACK] if link.packed else []
    # A step may set a stop event: then nothing of a slice would be left to stop.
    slices = source.slices if isinstance(source, Sliced) else None
    return Part(source, first, form, slices)


async def _fold_in(source: AsyncIterable[Any], link: Source) -> AsyncGenerator[Any, None]:
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
            except link.folded as error:
                failed = Failed(error)
                yield [failed] if link.batched else failed
                return
            is_result = link.packed and not link.split and item.__class__ is not Mark
            yield steps.split(item) if is_result else item
