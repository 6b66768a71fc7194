# mypy: disable-error-code="unused-awaitable"
"""How far the inputs of a fan-in run ahead of the reader, and what is left when it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from returns_pipeline._engine.fan_in import FairMerge, Input
from returns_pipeline._engine.marks import Mark
from returns_pipeline._engine.reader import Reader
from returns_pipeline.combine import merge
from returns_pipeline.combine._zip import MarkedZipPump
from returns_pipeline.testing import Wait, run, timed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def test_what_is_drawn_counts_as_held_also_if_the_same_source_has_more() -> None:
    async def main() -> None:
        source = timed(*range(5), Wait(1), *range(5, 20))
        pump: FairMerge[Any, Any] = FairMerge([source, timed("x", "y")])
        pump.inputs[0].capacity = 8
        pump.inputs[1].capacity = 8
        made = Reader(pump)
        assert await anext(made) == 0
        await asyncio.sleep(5)
        assert source.given <= 9
        await made.aclose()

    run(main())


def test_a_source_that_was_ahead_is_not_any_more_when_the_reader_gets_slow() -> None:
    async def main() -> None:
        source = timed(*range(60))
        pump: FairMerge[int, int] = FairMerge([source])
        pump.inputs[0].capacity = 8
        made = Reader(pump)
        for n in range(20):
            assert await anext(made) == n
            await asyncio.sleep(1)
        assert source.given <= 21 + 1
        await made.aclose()

    run(main())


def test_a_source_resumes_when_its_last_item_is_taken() -> None:
    """Not before: so one change of tasks serves many items."""

    async def main() -> None:
        input_: Input[int] = Input(timed(), 0)
        input_.items.extend([1, 2])
        input_.not_full = asyncio.get_running_loop().create_future()
        assert input_.pop() == 1
        assert not input_.not_full.done()
        assert input_.pop() == 2
        assert input_.not_full.done()

    run(main())


def test_a_closed_reader_of_merge_holds_no_item_and_emits_none() -> None:
    class Held:
        pass

    refs: list[weakref.ref[Held]] = []

    async def source(count: int) -> AsyncIterator[Held]:
        for _ in range(count):
            item = Held()
            refs.append(weakref.ref(item))
            yield item
            del item
        await asyncio.sleep(math.inf)

    async def main() -> None:
        pump: FairMerge[Held, Held] = FairMerge([source(5), source(2)])
        for input_ in pump.inputs:
            input_.capacity = 8
        made = Reader(pump)
        await anext(made)  # others have been drawn, and the first source has more
        assert len(refs) == 7
        await made.aclose()
        gc.collect()
        assert not any(ref() for ref in refs)
        with pytest.raises(StopAsyncIteration):
            await anext(made)

    run(main())


def test_a_read_ends_that_is_closed_in_the_moment_in_which_an_item_comes() -> None:
    async def main() -> None:
        coming = asyncio.Event()

        async def source() -> AsyncIterator[int]:
            await asyncio.sleep(1)
            coming.set()
            yield 1
            await asyncio.sleep(math.inf)

        made: Any = merge.raw(source())

        async def close() -> None:
            await coming.wait()
            await made.aclose()

        closing = asyncio.create_task(close())
        with pytest.raises(StopAsyncIteration):
            await anext(made)
        await closing

    run(main())


def test_closing_ends_a_source_that_swallowed_its_stop_and_has_filled_its_buffer() -> None:
    """It was stopped by the failure of another, and the reader has not come since."""
    closed: list[bool] = []

    async def stubborn() -> AsyncIterator[int]:
        try:
            yield 1
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(math.inf)
            yield 2
            await asyncio.sleep(math.inf)
        finally:
            closed.append(True)

    async def main() -> None:
        made: Any = merge.raw(stubborn(), timed(Wait(1), ValueError()))
        assert await anext(made) == 1
        await asyncio.sleep(5)
        await made.aclose()
        assert closed == [True]

    run(main())


def test_a_source_is_not_read_on_while_it_is_further_ahead_than_a_slow_reader_allows() -> None:
    async def main() -> None:
        source = timed(*range(60))
        pump: FairMerge[Any, Any] = FairMerge([source, timed("x", "y")])
        for input_ in pump.inputs:
            input_.capacity = 8
        made = Reader(pump)
        for item in (0, "x", 1, "y"):  # all that is drawn at once
            assert await anext(made) == item
            await asyncio.sleep(1)
        assert source.given == 8
        await made.aclose()

    run(main())


def test_a_source_of_one_item_is_read_on_when_that_is_taken_whatever_the_others_hold() -> None:
    async def main() -> None:
        source = timed("x", "y")
        pump: FairMerge[Any, Any] = FairMerge([timed(*range(5)), source, timed("z")])
        pump.inputs[0].capacity = 8
        made = Reader(pump)
        assert [await anext(made), await anext(made)] == [0, "x"]
        await asyncio.sleep(1)
        assert source.given == 2
        await made.aclose()

    run(main())


async def count_to(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


class Turns(FairMerge[int, int]):
    """Counts how often a source that is full waits for one turn."""

    def __init__(self, buffer: int) -> None:
        super().__init__([count_to(50)], buffer)
        self.turns = 0

    async def yield_to_reader(self) -> None:
        self.turns += 1
        await super().yield_to_reader()


def test_a_full_source_waits_for_one_turn_if_the_reader_waits() -> None:
    """Which costs less than a future for each item."""

    async def main() -> None:
        pump = Turns(1)
        assert [item async for item in Reader(pump)] == [*range(50)]
        assert pump.turns >= 49

    run(main())


def test_a_full_source_waits_for_the_reader_at_once_if_that_is_busy() -> None:
    async def main() -> None:
        pump = Turns(1)
        made = Reader(pump)
        for n in range(20):
            assert await anext(made) == n
            await asyncio.sleep(1)
        assert pump.turns <= 2
        await made.aclose()

    run(main())


def test_a_mark_of_one_source_does_not_wait_for_those_of_another_that_is_ahead() -> None:
    reached: list[int] = []

    async def ahead() -> AsyncIterator[Any]:
        for n in range(3):
            yield n
        yield Mark(reached.append, 3)

    second = Mark(reached.append, 1)

    async def late() -> AsyncIterator[Any]:
        yield "x"
        yield second
        await asyncio.sleep(1)
        yield "y"

    async def main() -> None:
        pump = MarkedZipPump([ahead(), late()], tuple, strict=False)
        for input_ in pump.inputs:
            input_.capacity = 8
        made = Reader(pump)
        assert await anext(made) == (0, "x")
        assert await anext(made) is second
        await made.aclose()

    run(main())


def test_a_closed_reader_holds_neither_marks_nor_the_items_before_them() -> None:
    class Held:
        def __call__(self, number: int) -> None:
            pass

    refs: list[weakref.ref[Held]] = []

    def held() -> Held:
        made = Held()
        refs.append(weakref.ref(made))
        return made

    async def source() -> AsyncIterator[Any]:
        for n in range(3):
            yield held()
            yield Mark(held(), n)
        await asyncio.sleep(math.inf)

    async def main() -> None:
        pump = MarkedZipPump([source(), timed(1)], tuple, strict=False)
        for input_ in pump.inputs:
            input_.capacity = 8
        made = Reader(pump)
        await anext(made)
        assert len(refs) == 6
        await made.aclose()
        gc.collect()
        assert not any(ref() for ref in refs)

    run(main())
