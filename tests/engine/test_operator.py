"""The facade over aiostream's operators, and the way in which every operator opens its source."""

from __future__ import annotations

import asyncio
import copy
import inspect
import math
import pickle
import typing
from collections.abc import AsyncIterable, AsyncIterator, Callable  # noqa: TC003  # read at run time
from typing import Any, TypeVar

import pytest
from aiostream import Stream, stream
from aiostream.core import Streamer

from returns_pipeline._engine import checks
from returns_pipeline._engine.operator import (
    NO_SOURCE,
    Operator,
    QuickStreamer,
    plain_iterator,
)
from returns_pipeline.testing import FaultInjector, inject_everywhere, run

T = TypeVar("T")


class _Every(Operator):
    def __call__(self, source: AsyncIterable[T], step: int, *, start: int = 0) -> Stream[T]:
        """Emit every so manieth item."""
        return self._stream(source, step, start=start)

    def pipe(self, step: int, *, start: int = 0) -> Callable[[AsyncIterable[T]], Stream[T]]:
        return self._piped(step, start=start)

    def raw(self, source: AsyncIterable[T], step: int, *, start: int = 0) -> AsyncIterator[T]:
        if step < 1:
            raise ValueError(f"step must be at least 1, not {step}")
        return _every(checks.source(source), step, start)


every = _Every(f"{__name__}.every")


async def _every(source: AsyncIterable[T], step: int, start: int) -> AsyncIterator[T]:
    async with plain_iterator(source) as items:
        index = -start
        async for item in items:
            if index >= 0 and index % step == 0:
                yield item
            index += 1


class Watched:
    """A source that logs what is done to it."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def __aiter__(self) -> AsyncIterator[int]:
        self.log.append("opened")
        try:
            for number in range(6):
                yield number
        except BaseException as error:
            self.log.append(type(error).__name__)
            raise
        finally:
            self.log.append("closed")


def test_the_three_forms_do_the_same() -> None:
    async def main() -> None:
        piped = stream.iterate(Watched()) | every.pipe(2, start=1)
        for made in (every(Watched(), 2, start=1), piped):
            assert isinstance(made, Stream)
            assert await stream.list(made) == [1, 3, 5]
        raw = every.raw(Watched(), 2, start=1)
        assert not isinstance(raw, Stream)
        assert [item async for item in raw] == [1, 3, 5]

    run(main())


def test_a_bad_argument_is_refused_at_the_call_in_each_form() -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: every(Watched(), 0),
        lambda: every.raw(Watched(), 0),
        lambda: stream.range(3) | every.pipe(0),
        lambda: every.pipe(0),  # its source has not come yet
    )
    for call in calls:
        with pytest.raises(ValueError, match="step must be at least 1"):
            call()


def test_the_source_that_an_operator_is_tried_on_is_never_read() -> None:
    with pytest.raises(RuntimeError, match="cannot be read"):
        aiter(NO_SOURCE)


def test_a_source_that_is_not_async_is_a_type_error_at_the_call_in_each_form() -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: every([1], 1),  # type: ignore[arg-type]
        lambda: every.raw([1], 1),  # type: ignore[arg-type]
        lambda: every.pipe(1)([1]),  # type: ignore[arg-type]
    )
    for call in calls:
        with pytest.raises(TypeError, match="async iterable"):
            call()


def test_a_call_opens_nothing_and_each_reading_opens_again() -> None:
    async def main() -> None:
        source = Watched()
        made = every(source, 3)
        assert source.log == []
        for _ in range(2):
            assert await stream.list(made) == [0, 3]
        assert source.log == ["opened", "closed"] * 2

    run(main())


def test_what_is_made_can_be_sliced_joined_piped_and_awaited() -> None:
    async def main() -> None:
        made = every(Watched(), 2)
        assert await stream.list(made[1:]) == [2, 4]
        assert await made[1] == 2
        assert await stream.list(made + every(Watched(), 5)) == [0, 2, 4, 0, 5]
        assert await stream.list(made | every.pipe(2)) == [0, 4]
        assert await made == 4

    run(main())


def test_an_operator_introduces_itself_by_its_public_name_and_its_own_signature() -> None:
    assert isinstance(every, Operator)
    assert inspect.getdoc(every) == "Emit every so manieth item."
    assert (every.__name__, every.__qualname__, every.__module__) == ("every", "every", __name__)
    assert repr(every) == f"<operator {__name__}.every>"
    assert [*inspect.signature(every).parameters] == ["source", "step", "start"]
    assert [*inspect.signature(every.pipe).parameters] == ["step", "start"]
    assert inspect.getdoc(every.raw) == inspect.getdoc(Operator.raw)
    hints = typing.get_type_hints(every)
    assert (hints["step"], hints["return"]) == (int, Stream[T])  # type: ignore[valid-type]


def test_an_operator_is_copied_and_pickled_as_itself() -> None:
    assert copy.copy(every) is copy.deepcopy(every) is pickle.loads(pickle.dumps(every)) is every


def test_a_quick_streamer_gives_the_same_and_minds_its_end_like_any_streamer() -> None:
    async def main() -> None:
        quick = QuickStreamer(aiter(Watched()))
        assert await anext(quick) == 0  # without the warning of aiostream's own
        async with quick:
            assert [item async for item in quick] == [1, 2, 3, 4, 5]
        with pytest.raises(RuntimeError, match="closed"):
            await anext(quick)

    run(main())


def test_a_plain_iterator_is_the_innermost_and_is_closed_on_the_way_out() -> None:
    async def main() -> None:
        source = Watched()
        async with plain_iterator(source) as items:
            assert type(items).__name__ == "async_generator"
            assert await anext(items) == 0
            assert source.log == ["opened"]
        assert source.log == ["opened", "GeneratorExit", "closed"]

    run(main())


def test_what_the_reader_raises_is_not_thrown_into_the_source() -> None:
    async def main() -> None:
        source = Watched()
        with pytest.raises(KeyError):
            async with plain_iterator(source) as items:
                assert await anext(items) == 0
                raise KeyError
        assert source.log == ["opened", "GeneratorExit", "closed"]

    run(main())


def test_what_the_source_raises_comes_through() -> None:
    async def source() -> AsyncIterator[int]:
        yield 0
        raise KeyError("source")

    async def main() -> None:
        async with plain_iterator(source()) as items:
            assert await anext(items) == 0
            with pytest.raises(KeyError, match="source"):
                await anext(items)

    run(main())


def test_a_source_is_closed_wherever_its_reader_is_cancelled() -> None:
    async def scenario(injector: FaultInjector) -> None:
        log = []

        async def source() -> AsyncIterator[int]:
            log.append("opened")
            try:
                for number in range(3):
                    await asyncio.sleep(1)
                    yield number
            finally:
                log.append("closed")

        async def read() -> None:
            async with plain_iterator(source()) as items:
                async for _ in items:
                    await asyncio.sleep(1)

        try:
            await injector.run(read())
        except asyncio.CancelledError:
            assert injector.fired
        assert log in ([], ["opened", "closed"])

    inject_everywhere(scenario)


def test_an_iterator_without_a_way_to_close_it_will_do() -> None:
    class Endless:
        def __aiter__(self) -> Endless:
            return self

        async def __anext__(self) -> int:
            return 7

    async def main() -> None:
        async with plain_iterator(Endless()) as items:
            assert await anext(items) == 7

    run(main())


def test_an_iterator_that_has_nothing_but_its_next_item_will_do() -> None:
    class Bare:
        def __init__(self) -> None:
            self.left = [1, 2]

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    class Source:
        def __aiter__(self) -> AsyncIterator[int]:
            return Bare()  # type: ignore[return-value]  # Python asks for no more

    async def main() -> None:
        async with plain_iterator(Source()) as items:
            assert [item async for item in items] == [1, 2]

    run(main())


def test_without_the_attribute_that_is_aiostreams_own_the_guarded_way_is_taken() -> None:
    class Opaque(Streamer[int]):
        """A streamer of a version to come: its iterator is hidden."""

        def __init__(self, source: AsyncIterable[int]) -> None:
            super().__init__(aiter(source))
            self.hidden: Any = vars(self).pop("_aiterator")

        def __anext__(self) -> Any:
            return self.hidden.__anext__()

        async def aclose(self) -> None:
            await self.hidden.aclose()

    async def main() -> None:
        source = Watched()
        opaque = Opaque(source)
        async with plain_iterator(opaque) as items:
            assert items is opaque
            assert [item async for item in items] == [0, 1, 2, 3, 4, 5]
        assert source.log == ["opened", "closed"]
        with pytest.raises(RuntimeError, match="entered"):
            async with plain_iterator(opaque):
                pass

    run(main())


def test_entering_fails_cleanly_where_the_source_cannot_be_opened() -> None:
    class Broken:
        def __aiter__(self) -> AsyncIterator[int]:
            raise KeyError("cannot be opened")

    async def main() -> None:
        with pytest.raises(KeyError, match="cannot be opened"):
            async with plain_iterator(Broken()):
                await asyncio.sleep(math.inf)

    run(main())
