"""Random programs: whatever a reader does and whatever happens, nothing is lost, cut or left.

A program is a source, a chain of operators, and a reader that reads, gives reads up, and leaves in
one of the ways there are, on virtual time or on uvloop. A list is the model. It searches for a few
seconds; ``LIFETIMES_SECONDS=3600`` for an hour.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio
import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import CONCURRENT, LOSSY, OPERATORS, SHORT, UNORDERED, Script, World

from returns_pipeline.testing import VirtualTimeLoop, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SECONDS = float(os.environ.get("LIFETIMES_SECONDS", "10"))
SEED = int(os.environ.get("LIFETIMES_SEED", "0"))

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Program:
    """What is done with a source: some operators, some reads, and a way to leave."""

    script: Script
    chain: tuple[str, ...]
    reads: tuple[float, ...]  # how long each read may take
    leaving: str
    cancels: int  # of a closer
    stops_after: float | None  # when the event is set that some operators wait for
    eager: bool
    collects: bool
    in_a_cycle: bool


LEAVINGS = [
    "ends",
    "closes",
    "closes twice",
    "drops",
    "is cancelled",
    "anyio",
    "all are cancelled",
    "shutdown",
    "shutdown while it closes",
]

pauses = st.lists(st.sampled_from([None, None, 0.0, 0.3, 2.0]), max_size=6).map(tuple)
programs = st.builds(
    Program,
    script=st.builds(
        Script,
        pauses=pauses,
        end=st.sampled_from(["returns", "raises", "waits"]),
        clean_up=st.sampled_from([0.0, 1.0]),
        limits=st.booleans(),
    ),
    chain=st.lists(st.sampled_from(list(OPERATORS)), min_size=1, max_size=3).map(tuple),
    reads=st.lists(st.sampled_from([60.0, 0.0, 0.2, 1.0]), max_size=5).map(tuple),
    leaving=st.sampled_from(LEAVINGS),
    cancels=st.integers(0, 3),
    stops_after=st.sampled_from([None, 0.0, 0.3, 0.5, 1.1]),
    eager=st.booleans() if sys.version_info >= (3, 12) else st.just(value=False),
    collects=st.booleans(),
    in_a_cycle=st.booleans(),
)


class Run:
    """One run of a program, and what was seen in it."""

    def __init__(self, program: Program, second: float) -> None:
        self.program = program
        self.world = World(second)
        self.source = self.world.play(program.script)
        self.got: list[int] = []
        self.end: str | None = None

    async def advance(self, seconds: float) -> None:
        await self.world.sleep(seconds)

    def open(self) -> Any:
        reader: Any = self.source
        for name in self.program.chain:
            reader = OPERATORS[name](reader, self.world)
        return reader

    async def read(self, reader: Any, limit: float | None) -> None:
        """Read once; with a limit, give up after it."""
        try:
            async with asyncio.timeout(None if limit is None else limit * self.world.second):
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
        loop = asyncio.get_running_loop()
        if self.program.eager:
            loop.set_task_factory(vars(asyncio)["eager_task_factory"])
        if self.program.stops_after is not None:
            loop.call_later(self.program.stops_after * self.world.second, self.world.stop.set)
        reader = self.open()
        if self.program.in_a_cycle:
            self.cycle = [reader]
            self.cycle.append(self.cycle)
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
        elif leaving == "closes":
            await self.cancel(asyncio.ensure_future(reader.aclose()), self.program.cancels)
        elif leaving == "closes twice":
            await asyncio.gather(reader.aclose(), reader.aclose(), return_exceptions=True)
        elif leaving == "is cancelled":
            reading = asyncio.ensure_future(self.consume(reader))
            await self.advance(0.5)
            await self.cancel(reading, self.program.cancels + 1)
        elif leaving == "anyio":
            with anyio.move_on_after(0.5 * self.world.second):
                await self.consume(reader)
        elif leaving == "all are cancelled":
            await self.cancel_all(asyncio.ensure_future(self.consume(reader)))
        del reader
        self.cycle = []
        gc.collect()
        await self.settle()

    async def cancel(self, task: asyncio.Future[None], times: int) -> None:
        for _ in range(times):
            await self.advance(0.1)
            task.cancel()
        _ = await asyncio.wait({task})
        if not task.cancelled():
            _ = task.exception()

    async def cancel_all(self, reading: asyncio.Future[None]) -> None:
        """Do as a program does that is asked to stop, more than once."""
        for _ in range(self.program.cancels + 1):
            await self.advance(0.25)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
        _ = await asyncio.wait({reading})

    async def settle(self) -> None:
        """Wait until no task is left but this one; some clean up for a second, one by one."""
        for _ in range(100):
            if len(asyncio.all_tasks()) == 1:
                return
            await self.advance(1)
        raise AssertionError(f"left: {asyncio.all_tasks()}")

    async def leave_all_to_the_loop(self) -> None:
        reader = await self.begin()
        if self.program.leaving == "shutdown while it closes":
            self.consuming = asyncio.ensure_future(reader.aclose())
        else:
            self.consuming = asyncio.ensure_future(self.consume(reader))
        await self.advance(0.5)

    def check(self) -> None:
        items = self.source.items
        chain = set(self.program.chain)
        whole = not chain & LOSSY
        if chain & UNORDERED:
            assert Counter(self.got) <= Counter(items)
        elif whole:
            assert self.got == items[: len(self.got)]
        else:
            assert is_subsequence(self.got, items)
        if self.end is not None and not chain & SHORT:
            assert self.end == self.program.script.end
            if whole and not (self.end == "raises" and chain & CONCURRENT):
                assert Counter(self.got) == Counter(items)
        for source in self.world.sources:
            assert source.is_clean(), source.log


def is_subsequence(part: Iterable[int], of: Iterable[int]) -> bool:
    remaining = iter(of)
    return all(item in remaining for item in part)


def carry_out(program: Program) -> None:
    """Run a program on virtual time."""
    this = Run(program, 1.0)
    if program.leaving.startswith("shutdown"):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(this.leave_all_to_the_loop())
    else:
        run(this.main())
    this.check()


def carry_out_on_uvloop(program: Program) -> None:
    """Run a program on uvloop, on which a second is a millisecond."""
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    this = Run(replace(program, eager=False), 0.001)  # it has no eager tasks on every Python
    leaves = program.leaving.startswith("shutdown")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        loop = runner.get_loop()
        bound = loop.call_later(60, loop.stop)  # a program that hangs is an error
        runner.run(this.leave_all_to_the_loop() if leaves else this.main())
        bound.cancel()
    this.check()


PLAYED: dict[str, Callable[[Program], None]] = {
    "virtual time": carry_out,
    "uvloop": carry_out_on_uvloop,
}


@pytest.mark.parametrize("play", PLAYED.values(), ids=PLAYED)
def test_nothing_is_lost_cut_or_left_running(play: Callable[[Program], None]) -> None:
    if play is carry_out_on_uvloop:
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    until = time.monotonic() + SECONDS
    for seed in itertools.count(SEED):

        @hypothesis.seed(seed)
        @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
        @given(programs)
        def search(program: Program) -> None:
            play(program)

        search()
        if time.monotonic() > until:
            break


@pytest.mark.parametrize("leaving", LEAVINGS)
@pytest.mark.parametrize("name", OPERATORS)
def test_each_operator_and_each_way_to_leave_it(name: str, leaving: str) -> None:
    """What the random programs reach sooner or later, once for sure."""
    at_random = random.Random(f"{name} {leaving}")
    for pause, end, limits in itertools.product(
        (None, 0.3), ("returns", "raises", "waits"), (False, True)
    ):
        carry_out(
            Program(
                script=Script((pause,) * 4, end, 1.0, limits),
                chain=(name,),
                reads=(60.0, 0.2),
                leaving=leaving,
                cancels=2,
                stops_after=at_random.choice((None, 0.4, 0.6)),
                eager=False,
                collects=True,
                in_a_cycle=at_random.random() < 0.5,
            )
        )
