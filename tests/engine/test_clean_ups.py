"""A clean-up that a source begins by itself runs to its end, whatever is closed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
from typing import TYPE_CHECKING, Any

import pytest
from returns.io import IOSuccess
from returns.result import Success

from returns_pipeline import ResultStream, chunks_or_timeout, combine
from returns_pipeline._engine import clean_ups
from returns_pipeline._engine.clean_ups import is_cleaning_up
from returns_pipeline.testing import VirtualTimeLoop, advance, run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator

# Which places are recognized. Each source waits for a second after its first item.


async def ends() -> AsyncGenerator[int, None]:
    try:
        yield 1
    finally:
        await asyncio.sleep(1)


async def fails_at_once() -> AsyncGenerator[int, None]:
    try:
        yield 1
        raise OSError("bad")
    finally:
        await asyncio.sleep(1)


async def fails_in_a_call() -> AsyncGenerator[int, None]:
    try:
        yield 1
        _ = 1 // 0
    except ArithmeticError as error:
        raise OSError("bad") from error
    finally:
        if True:
            await asyncio.sleep(1)


async def returns_early() -> AsyncGenerator[int, None]:
    try:
        for n in range(3):
            yield n
            return
    finally:
        await asyncio.sleep(1)


async def has_a_time_limit() -> AsyncGenerator[int, None]:
    try:
        yield 1
    finally:
        try:
            async with asyncio.timeout(30):
                await asyncio.sleep(1)
        except TimeoutError:
            pass


async def cleans_up_in_a_handler() -> AsyncGenerator[int, None]:
    try:
        raise OSError("bad")
    except OSError:
        try:
            yield 1
        finally:
            await asyncio.sleep(1)


async def cleans_up_by_a_stack() -> AsyncGenerator[int, None]:
    try:
        yield 1
    finally:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.sleep, 1)


async def cleans_up_each_item() -> AsyncGenerator[int, None]:
    while True:
        try:
            yield 1
        finally:
            await asyncio.sleep(1)


async def calls_a_coroutine_that_cleans_up() -> AsyncGenerator[int, None]:
    yield 1
    yield await cleans_up()


async def reads_another() -> AsyncGenerator[int, None]:
    async for n in ends():
        yield n


@contextlib.asynccontextmanager
async def opened() -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await asyncio.sleep(1)


async def leaves_a_context() -> AsyncGenerator[int, None]:
    async with opened():
        yield 1


async def cleans_up() -> int:
    try:
        return 2
    finally:
        await asyncio.sleep(1)


class Wrapping:
    def __await__(self) -> Generator[Any, None, int]:
        return cleans_up().__await__()


class Delegating:
    def __await__(self) -> Generator[Any, None, int]:
        return (yield from Wrapping().__await__())


async def awaits_an_object() -> AsyncGenerator[int, None]:
    yield 1
    yield await Wrapping()


async def awaits_a_generator() -> AsyncGenerator[int, None]:
    yield 1
    yield await Delegating()


async def cleans_up_in_a_loop() -> AsyncGenerator[int, None]:
    for n in range(2):
        try:
            yield n
        finally:
            for _ in range(2):
                await asyncio.sleep(1)


CLEANING_UP = [
    ends,
    fails_at_once,
    fails_in_a_call,
    returns_early,
    has_a_time_limit,
    cleans_up_in_a_handler,
    cleans_up_by_a_stack,
    cleans_up_each_item,
    calls_a_coroutine_that_cleans_up,
    reads_another,
    leaves_a_context,
    awaits_an_object,
    awaits_a_generator,
    cleans_up_in_a_loop,
]


async def waits() -> AsyncGenerator[int, None]:
    yield 1
    await asyncio.sleep(1)
    yield 2


async def waits_in_the_body() -> AsyncGenerator[int, None]:
    try:
        yield 1
        await asyncio.sleep(1)
    finally:
        await asyncio.sleep(0)


async def waits_after_it() -> AsyncGenerator[int, None]:
    while True:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
        await asyncio.sleep(1)


async def waits_in_a_condition() -> AsyncGenerator[int, None]:
    # The compiler emits the condition of a loop twice, too.
    while await asyncio.sleep(0, True):
        yield 1
        while await asyncio.sleep(1, True):
            pass


async def waits_before_it_tries_again() -> AsyncGenerator[int, None]:
    yield 1
    try:
        raise OSError("bad")
    except OSError:
        await asyncio.sleep(1)


async def waits_whatever_is_raised() -> AsyncGenerator[int, None]:
    yield 1
    try:
        raise OSError("bad")
    except:  # noqa: E722
        await asyncio.sleep(1)


async def waits_for_a_group_of_errors() -> AsyncGenerator[int, None]:
    yield 1
    try:
        raise ExceptionGroup("bad", [OSError("bad")])
    except* OSError:
        await asyncio.sleep(1)


async def waits_for_its_tasks() -> AsyncGenerator[int, None]:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(1))
        yield 1


async def waits_where_it_continues() -> AsyncGenerator[int, None]:
    yield 1
    failed = 0
    while failed < 2:
        if failed:
            await asyncio.sleep(1)
        try:
            failed += 1
            raise OSError("bad")
        finally:
            if failed:
                continue  # noqa: B012


WAITING = [
    waits,
    waits_in_the_body,
    waits_after_it,
    waits_in_a_condition,
    waits_before_it_tries_again,
    waits_whatever_is_raised,
    waits_for_a_group_of_errors,
    waits_for_its_tasks,
    waits_where_it_continues,
]


async def is_it(source: Callable[[], AsyncGenerator[int, None]]) -> bool:
    async def read() -> None:
        async for _ in source():
            pass

    task = asyncio.create_task(read())
    await advance(0.5)
    found = is_cleaning_up(task.get_coro())
    task.cancel()
    await asyncio.wait({task})
    return found


@pytest.mark.parametrize("source", CLEANING_UP)
def test_a_wait_in_a_finally_suite_is_a_clean_up(
    source: Callable[[], AsyncGenerator[int, None]],
) -> None:
    assert run(is_it(source))


@pytest.mark.parametrize("source", WAITING)
def test_a_wait_elsewhere_is_none(source: Callable[[], AsyncGenerator[int, None]]) -> None:
    assert not run(is_it(source))


def test_objects_that_refer_to_a_clean_up_do_not_await_it() -> None:
    class Holder:
        __slots__ = ("held",)

        def __init__(self, held: object) -> None:
            self.held = held

    async def main() -> None:
        task = asyncio.create_task(cleans_up())
        await advance(0.5)
        assert is_cleaning_up(task.get_coro())
        assert not is_cleaning_up(Holder(task.get_coro()))
        assert not is_cleaning_up(task)
        task.cancel()
        await asyncio.wait({task})

    run(main())


def test_a_coroutine_that_has_not_begun_or_has_ended_is_not_cleaning_up() -> None:
    async def main() -> None:
        generator = ends()
        assert not is_cleaning_up(generator)
        async for _ in generator:
            assert not is_cleaning_up(generator)
        assert not is_cleaning_up(generator)
        assert not is_cleaning_up(None)

    run(main())


def test_what_is_known_of_a_function_is_forgotten_with_it() -> None:
    namespace: dict[str, Any] = {}
    exec("async def source():\n try: yield\n finally: await x", namespace)
    source = namespace.pop("source")
    generator = source()
    before = len(clean_ups._known)
    assert not is_cleaning_up(generator)
    assert len(clean_ups._known) == before + 1
    del source, generator
    gc.collect()
    assert len(clean_ups._known) == before


# What that is good for.


class Ending:
    """An item, then an end, or an error, and a clean-up of a second."""

    def __init__(self, *, fails: bool = False) -> None:
        self.log: list[str] = []
        self.fails = fails

    async def __aiter__(self) -> AsyncGenerator[int, None]:
        try:
            yield 0
            if self.fails:
                raise OSError("bad")
        finally:
            self.log.append("begun")
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                self.log.append("cut")
                raise
            self.log.append("done")


async def silence() -> AsyncGenerator[int, None]:
    await asyncio.sleep(math.inf)
    yield 0


async def same(n: int) -> int:
    return n


async def echo(_: object, items: AsyncIterator[int]) -> AsyncGenerator[int, None]:
    async for n in items:
        yield n


FORMS: dict[str, Callable[[Any], Any]] = {
    "chunks_or_timeout": lambda s: chunks_or_timeout.raw(s, 9, 0.0001),
    "merge": lambda s: combine.merge.raw(s, silence()),
    "concat": lambda s: combine.concat.raw(s, silence()),
    "prefetch": lambda s: combine.prefetch.raw(s, 9),
    "debounce": lambda s: combine.debounce.raw(s, 0.0001),
    "take_until": lambda s: combine.take_until.raw(s, silence()),
    "broadcast": lambda s: combine.broadcast(s, 1)[0].stream(),
    "route": lambda s: combine.route.raw(s, lambda n: n % 2, echo),
    "map_async": lambda s: aiter(ResultStream.of(s).map_async(same, concurrency=2)),
    "flat_map": lambda s: aiter(
        ResultStream.of(silence()).merge(ResultStream.of(s)).bind_async(succeed, concurrency=2)
    ),
    "a drained source": lambda s: aiter(
        ResultStream.of(s).drain_on(asyncio.Event()).merge(ResultStream.of(silence()))
    ),
    "a stream of a stream": lambda s: combine.merge.raw(combine.prefetch(s, 9), silence()),
    "a generator": lambda s: combine.merge.raw(wrapped(s), silence()),
}


async def succeed(n: int) -> Any:
    return Success(n)


async def wrapped(source: Ending) -> AsyncGenerator[int, None]:
    async for n in source:
        yield n


each_form = pytest.mark.parametrize("read", FORMS.values(), ids=FORMS)
each_end = pytest.mark.parametrize("fails", [False, True], ids=["ends", "fails"])


@each_end
@each_form
def test_closing_waits_for_the_clean_up_that_a_source_has_begun_by_itself(
    read: Callable[[Any], Any], fails: bool
) -> None:
    source = Ending(fails=fails)

    async def main() -> None:
        reader = read(source)
        await anext(reader)
        await advance(0.5)
        assert source.log == ["begun"]
        with contextlib.suppress(OSError):  # it may be raised: as an error of the clean-up
            await reader.aclose()
        assert source.log == ["begun", "done"]

    run(main())


@each_form
def test_a_reader_that_is_dropped_does_not_cut_the_clean_up_of_a_source_that_has_ended(
    read: Callable[[Any], Any],
) -> None:
    source = Ending()

    async def main() -> None:
        reader = read(source)
        await anext(reader)
        await advance(0.5)
        del reader
        gc.collect()
        await advance(2)
        assert source.log == ["begun", "done"]

    run(main())


@each_form
def test_the_end_of_the_loop_does_not_cut_the_clean_up_of_a_source_that_has_ended(
    read: Callable[[Any], Any],
) -> None:
    source = Ending()

    async def main() -> None:
        reader = read(source)
        kept.append(reader)
        await anext(reader)
        await asyncio.sleep(0.5)

    kept: list[Any] = []
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
    assert source.log == ["begun", "done"]


def test_a_source_that_fails_does_not_cut_the_clean_ups_of_others_that_have_failed() -> None:
    """As when a server goes away from which all of them read."""
    first, second = Ending(fails=True), Ending(fails=True)

    async def late() -> AsyncGenerator[int, None]:
        await asyncio.sleep(0.5)
        for n in range(0):
            yield n
        raise OSError("late")

    async def main() -> None:
        with pytest.raises(OSError, match="late"):
            async for _ in combine.merge(first, late(), second):
                pass

    run(main())
    assert first.log == second.log == ["begun", "done"]


def test_drain_on_does_not_cut_the_clean_up_of_a_source_that_has_ended() -> None:
    source = Ending()

    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.5, stop.set)
        assert await ResultStream.of(source).drain_on(stop).run() == IOSuccess(1)
        assert source.log == ["begun", "done"]

    run(main())


def test_drain_on_ends_a_stream_that_is_read_in_a_clean_up() -> None:
    """Only clean-ups of its source count."""

    async def main() -> float:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.5, stop.set)
        try:
            pass
        finally:
            _ = await ResultStream.of(silence()).drain_on(stop).collect()
        return asyncio.get_running_loop().time()

    assert run(main()) == 0.5


def test_a_source_that_cleans_up_each_item_is_stopped_after_that_and_not_after_its_next() -> None:
    log: list[str] = []

    async def source() -> AsyncGenerator[int, None]:
        while True:
            try:
                yield 1
            finally:
                await asyncio.sleep(1)
                log.append("cleaned up")
            await asyncio.sleep(math.inf)

    async def main() -> float:
        reader: Any = combine.merge.raw(source())
        await anext(reader)
        await advance(0.5)
        await reader.aclose()
        assert log == ["cleaned up"]
        return asyncio.get_running_loop().time()

    assert 1 <= run(main()) <= 2  # it is looked at in growing intervals


def test_a_clean_up_that_never_ends_is_cancelled_in_the_end() -> None:
    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await asyncio.sleep(math.inf)

    async def main() -> float:
        reader: Any = combine.merge.raw(source())
        await anext(reader)
        await advance(0.5)
        await reader.aclose()
        return asyncio.get_running_loop().time()

    assert 300 <= run(main()) <= 302


def test_a_source_that_waits_to_try_again_is_cancelled_at_once() -> None:
    async def main() -> float:
        reader: Any = combine.merge.raw(waits_before_it_tries_again())
        await anext(reader)
        await advance(0.5)
        await reader.aclose()
        return asyncio.get_running_loop().time()

    assert run(main()) == 0.5
