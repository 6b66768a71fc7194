"""Random programs: whatever a reader does and whatever happens, nothing is lost, cut or left.

A program is a source, a chain of operators, and a reader that reads, gives reads up, and leaves in
one of the ways there are. A list is the model. ``LIFETIMES_EXAMPLES=100000`` searches for longer.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import os
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from returns_pipeline import ResultStream, chunks_or_timeout, combine, keyed_chunks, sliding
from returns_pipeline.testing import VirtualTimeLoop, advance, run

EXAMPLES = int(os.environ.get("LIFETIMES_EXAMPLES", "300"))

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Script:
    """What a source does: a pause before each item (none at all, a turn, seconds), and its end."""

    pauses: tuple[float | None, ...]
    end: str  # "returns", "raises", "waits"
    clean_up: float


@dataclass(frozen=True)
class Program:
    """What is done with it: some operators, some reads, and a way to leave."""

    script: Script
    chain: tuple[str, ...]
    reads: tuple[float, ...]  # how long each read may take
    leaving: str
    cancels: int  # of a closer
    eager: bool
    collects: bool


class Played:
    """The source of a script, which logs what happens to it."""

    def __init__(self, script: Script, first: int = 0) -> None:
        self.script = script
        self.first = first
        self.log: list[str] = []

    @property
    def items(self) -> list[int]:
        return [self.first + n for n in range(len(self.script.pauses))]

    async def __aiter__(self) -> AsyncGenerator[int, None]:
        self.log.append("opened")
        try:
            for item, pause in zip(self.items, self.script.pauses, strict=True):
                if pause is not None:
                    await asyncio.sleep(pause)
                yield item
            if self.script.end == "raises":
                self.log.append("ends")
                raise OSError("the source")
            if self.script.end == "waits":
                await asyncio.sleep(math.inf)
            self.log.append("ends")
        finally:
            self.log.append("clean-up begun")
            try:
                await asyncio.sleep(self.script.clean_up)
            except asyncio.CancelledError:
                self.log.append("cut")
                raise
            self.log.append("clean-up done")


async def same(n: int) -> int:
    await asyncio.sleep(0)
    return n


async def echo(_: object, items: AsyncIterator[int]) -> AsyncGenerator[int, None]:
    async for n in items:
        yield n


async def nothing() -> AsyncGenerator[int, None]:
    numbers: list[int] = []
    for n in numbers:
        yield n


async def never() -> AsyncGenerator[int, None]:
    await asyncio.sleep(math.inf)
    yield 0


async def flat(lists: Any) -> AsyncGenerator[int, None]:
    """Act as an async generator of the user's."""
    try:
        async for items in lists:
            for item in items:
                yield item
    finally:
        await lists.aclose()


async def bare(results: ResultStream[Any, Any]) -> AsyncGenerator[Any, None]:
    async with results.stream() as opened:
        async for result in opened:
            yield result.unwrap()


async def seconds(pairs: Any) -> AsyncGenerator[list[Any], None]:
    try:
        async for _, items in pairs:
            yield items if isinstance(items, list) else [items]
    finally:
        await pairs.aclose()


def one_of_two(source: AsyncIterable[int]) -> AsyncIterator[int]:
    left, right = combine.broadcast(source, 2, buffer=2)
    del right
    return left.stream()


def ahead(items: AsyncIterable[int]) -> AsyncIterator[int]:
    """Read a generator that a cancelled read would end."""
    return combine.prefetch.raw(items, 2)


Operator = Callable[[AsyncIterable[int]], AsyncIterator[int]]

# Each emits what it reads, in order.
ORDERED: dict[str, Operator] = {
    "prefetch": lambda s: combine.prefetch.raw(s, 3),
    "scan": lambda s: combine.scan.raw(s, 0, lambda _, n: n),
    "distinct": lambda s: combine.distinct_until_changed.raw(s),
    "merge": lambda s: combine.merge.raw(s, nothing(), buffer=2),
    "prioritized": lambda s: combine.merge_prioritized.raw((1, s), (2, nothing())),
    "concat": lambda s: combine.concat.raw(nothing(), s),
    "take_until": lambda s: combine.take_until.raw(s, never()),
    "throttle": lambda s: combine.throttle.raw(s, 0.1, burst=2),
    "broadcast": one_of_two,
    "split": lambda s: combine.split(s, lambda _: True, buffer=2)[0].stream(),
    "chunks": lambda s: ahead(flat(chunks_or_timeout.raw(s, 2, 1.0))),
    "sliding": lambda s: ahead(flat(sliding.raw(s, 1))),
    "keyed": lambda s: ahead(
        flat(seconds(keyed_chunks.raw(s, 2, 1.0, key=lambda _: 0))),
    ),
    "select": lambda s: ahead(flat(seconds(combine.select.raw({"a": s})))),
    "map_async": lambda s: ahead(bare(ResultStream.of(s).map_async(same, concurrency=2))),
    "window": lambda s: ahead(flat(bare(ResultStream.of(s).chunks_or_timeout(2, 1.0)))),
}
UNORDERED: dict[str, Operator] = {
    "route": lambda s: combine.route.raw(s, lambda n: n % 3, echo, max_keys=2, buffer=2),
    "unordered": lambda s: ahead(
        bare(ResultStream.of(s).map_async(same, concurrency=3, ordered=False))
    ),
}
OPERATORS = ORDERED | UNORDERED
LEAVINGS = ["ends", "closes", "closes twice", "drops", "is cancelled", "anyio", "shutdown"]

pauses = st.lists(st.sampled_from([None, None, 0.0, 0.3, 2.0]), max_size=6).map(tuple)
programs = st.builds(
    Program,
    script=st.builds(
        Script,
        pauses=pauses,
        end=st.sampled_from(["returns", "raises", "waits"]),
        clean_up=st.sampled_from([0.0, 1.0]),
    ),
    chain=st.lists(st.sampled_from(list(OPERATORS)), min_size=1, max_size=3).map(tuple),
    reads=st.lists(st.sampled_from([60.0, 0.0, 0.2, 1.0]), max_size=5).map(tuple),
    leaving=st.sampled_from(LEAVINGS),
    cancels=st.integers(0, 3),
    eager=st.booleans() if sys.version_info >= (3, 12) else st.just(value=False),
    collects=st.booleans(),
)


class Run:
    """One run of a program, and what was seen in it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.source = Played(program.script)
        self.got: list[int] = []
        self.end: str | None = None

    def open(self) -> Any:
        reader: Any = self.source
        for name in self.program.chain:
            reader = OPERATORS[name](reader)
        return reader

    async def read(self, reader: Any, limit: float | None) -> None:
        """Read once; with a limit, give up after it."""
        try:
            async with asyncio.timeout(limit):
                self.got.append(await anext(reader))
        except TimeoutError:
            pass
        except StopAsyncIteration:
            self.end = "returns"
        except OSError:
            self.end = "raises"

    async def read_all(self, reader: Any) -> None:
        while self.end is None:
            await self.read(reader, None)

    async def begin(self) -> Any:
        if self.program.eager:
            asyncio.get_running_loop().set_task_factory(vars(asyncio)["eager_task_factory"])
        reader = self.open()
        for limit in self.program.reads:
            if self.end is None:
                await self.read(reader, limit)
        if self.program.collects:
            gc.collect()
        return reader

    async def consume(self, reader: Any) -> None:
        try:
            await self.read_all(reader)
        finally:
            await reader.aclose()

    async def main(self) -> None:
        leaving = self.program.leaving
        if leaving == "ends" and self.program.script.end == "waits":
            leaving = "closes"
        reader = await self.begin()
        if leaving == "ends":
            await self.consume(reader)
            assert self.end == self.program.script.end
        elif leaving == "closes":
            await self.cancel(asyncio.ensure_future(reader.aclose()), self.program.cancels)
        elif leaving == "closes twice":
            await asyncio.gather(reader.aclose(), reader.aclose(), return_exceptions=True)
        elif leaving == "is cancelled":
            reading = asyncio.ensure_future(self.consume(reader))
            await advance(0.5)
            await self.cancel(reading, self.program.cancels + 1)
        elif leaving == "anyio":
            with anyio.move_on_after(0.5):
                await self.consume(reader)
        del reader
        gc.collect()
        await advance(30)

    async def cancel(self, task: asyncio.Future[None], times: int) -> None:
        for _ in range(times):
            await advance(0.1)
            task.cancel()
        _ = await asyncio.wait({task})
        if not task.cancelled():
            _ = task.exception()

    async def leave_all_to_the_loop(self) -> None:
        reader = await self.begin()
        if self.end is None:
            self.consuming = asyncio.ensure_future(self.consume(reader))
            await asyncio.sleep(0.5)

    def check(self) -> None:
        items, log = self.source.items, self.source.log
        if set(self.program.chain) & set(UNORDERED):
            assert Counter(self.got) <= Counter(items)
        else:
            assert self.got == items[: len(self.got)]
        if self.end is not None:
            assert self.end == self.program.script.end
            assert Counter(self.got) == Counter(items)
        if "ends" in log:
            # It cleans up by itself, within a read: this cannot be distinguished from reading, and
            # a request to stop reaches it as it does a generator that is read without us.
            assert log[:3] == ["opened", "ends", "clean-up begun"]
            assert len(log) == 4
        elif log:
            assert log == ["opened", "clean-up begun", "clean-up done"]


def carry_out(program: Program) -> None:
    this = Run(program)
    if program.leaving == "shutdown":
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(this.leave_all_to_the_loop())
    else:
        run(this.main())
    this.check()


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(programs)
def test_nothing_is_lost_cut_or_left_running(program: Program) -> None:
    carry_out(program)


@pytest.mark.parametrize("leaving", LEAVINGS)
@pytest.mark.parametrize("name", OPERATORS)
def test_each_operator_and_each_way_to_leave_it(name: str, leaving: str) -> None:
    """What the random programs reach sooner or later, once for sure."""
    for pause, end in itertools.product((None, 0.3), ("returns", "raises", "waits")):
        script = Script((pause,) * 4, end, 1.0)
        carry_out(Program(script, (name,), (60.0, 0.2), leaving, 2, eager=False, collects=True))
