"""Chains are compiled: what a traceback and a debugger show of one, and what must not go wrong."""

# pyright: reportPossiblyUnboundVariable=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportDeprecated=false

from __future__ import annotations

import asyncio
import bdb
import contextlib
import copy
import gc
import inspect
import io
import linecache
import pdb
import pickle
import sys
import threading
import traceback
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from returns.future import FutureResult
from returns.io import IO, IOFailure, IOSuccess
from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream, to_result
from returns_pipeline._engine import compiler, ends, steps
from returns_pipeline._engine.compiler import (
    BATCHED,
    MARKED,
    ONE,
    SINGLE,
    SLICED,
    Form,
    compiled,
    source_text,
)
from returns_pipeline._engine.steps import Kind
from returns_pipeline.testing import Wait, run, timed
from returns_pipeline.windows._chunks import ChunksPump
from returns_pipeline.windows._event_time import EventPump
from returns_pipeline.windows._keyed import KeyedPump
from returns_pipeline.windows._sessions import SessionPump
from returns_pipeline.windows._sliding import SlidingPump
from returns_pipeline.windows._until import UntilPump
from returns_pipeline.windows._weight import WeightPump

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator
    from types import FrameType

    from returns_pipeline.windows._flushing import WindowPump

KINDS = {name: kind for name, kind in vars(steps).items() if isinstance(kind, Kind)}
FORMS = [SINGLE, MARKED, BATCHED, SLICED, ONE]
PUMPS: list[type[WindowPump]] = [
    ChunksPump,
    EventPump,
    KeyedPump,
    SessionPump,
    SlidingPump,
    UntilPump,
    WeightPump,
]
ENDS = {
    **{name: end for name, end in vars(ends).items() if isinstance(end, ends.End)},
    **{pump.fill.name: pump.fill for pump in PUMPS},
}


class Numbers:
    """Numbers from 0, any number of times."""

    def __init__(self, count: int) -> None:
        self.count = count

    async def __aiter__(self) -> AsyncGenerator[int, None]:
        for n in range(self.count):
            yield n


# What the code of windows uses: attributes of the pump, of a window and of event time.
IN_WINDOWS = {name for pump in PUMPS for name in dir(pump)} | {
    *("float", "get", "move_to_end", "on_mark", "on_mark_after"),
    *("last", "weight", "appends", "start", "end", "recent", "idle_from", "next_move"),
}


def of(count: int = 3) -> ResultStream[int, Any]:
    return ResultStream.of(Numbers(count))


def same(n: Any) -> Any:
    return n


def fail(n: Any) -> Result[Any, Any]:
    return Failure(n)


def wrong(n: Any) -> Any:
    raise LookupError(n)


async def wrong_async(n: Any) -> Any:
    raise LookupError(n)


# The text.


def test_the_text_of_a_chain_reads_like_a_loop_by_hand() -> None:
    kinds = (steps.UNPACK, steps.MAP, steps.FILTER, steps.ALT, steps.BIND)
    assert (
        source_text("unpack_map_filter_alt_bind_collect", ends.COLLECT, kinds)
        == """\
async def unpack_map_filter_alt_bind_collect(opening, steps, owned):
    (
        (_, func1, extra1),
        (_, func2, extra2),
        (_, func3, extra3),
        (_, func4, extra4),
        (_, func5, extra5),
    ) = steps
    left, drops = 1, Drops(owned)
    values, errors = [], []
    async with opening as items:
        async for value in items:
            failed = False
            while not failed:
                # unpack
                result = value
                if result.__class__ is Success:
                    value = result._inner_value
                else:
                    error = error_of(result, extra1)
                    failed = True
                    break
                # map
                value = func2(value)
                # filter
                kept = func3(value)
                if kept is not True and not truth(kept, func3):
                    failed = None
                    break
                break
            if failed is None:
                left -= 1
                if not left:
                    left = await drops.renew()
                    if not left:
                        break
                continue
            # alt
            if failed:
                error = func4(error)
            if failed:
                return Failure(error)
            # bind
            result = func5(value)
            if result.__class__ is Success:
                value = result._inner_value
            else:
                error = error_of(result, extra5)
                return Failure(error)
            values.append(value)
    return Success(values)
"""
    )


def test_the_text_of_a_chain_over_batches_has_a_plain_loop_that_fills_the_windows() -> None:
    kinds = (steps.MAP, steps.FILTER, steps.BIND)
    name = "batches_map_filter_bind_keyed_chunks"
    assert (
        source_text(name, KeyedPump.fill, kinds, BATCHED)
        == """\
async def batches_map_filter_bind_keyed_chunks(opening, steps, owned, self):
    (
        (_, func1, extra1),
        (_, func2, extra2),
        (_, func3, extra3),
    ) = steps
    key_of, n, find = self._key, self._n, self._open.get
    async with opening as items:
        async for batch in items:
            if self.closed or not await self.renew():
                return
            for value in batch:
                # map
                value = func1(value)
                # filter
                kept = func2(value)
                if kept is not True and not truth(kept, func2):
                    continue
                # bind
                result = func3(value)
                if result.__class__ is Success:
                    value = result._inner_value
                else:
                    error = error_of(result, extra3)
                    waiting = self.emit_failure(Failed(error))
                    await waiting
                    if self.stopping:
                        return
                    continue
                key = key_of(value)
                window = find(key)
                if window is None:
                    waiting = self._admit(key, value)
                    await waiting
                    if self.stopping:
                        return
                else:
                    window.append(value)
                    if len(window) >= n:
                        waiting = self._close(window)
                        await waiting
                        if self.stopping:
                            return
"""
    )


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])
def test_each_kind_of_step_compiles_to_each_end(kind: Kind, end: ends.End, form: Form) -> None:
    is_coroutine = "yield" not in end.on_value + end.on_error + end.finish
    if (is_coroutine and form is ONE) or (form is SLICED and not end.slice):
        return
    for kinds in [(kind,), (kind, kind), (steps.MAP, kind, steps.ALT, kind)]:
        function = compiled(end, kinds, form)
        assert inspect.iscoroutinefunction(function) is (is_coroutine or form is ONE)
        prefix = [form.name] if form.name else []
        assert function.__name__ == "_".join([*prefix, *[kind.name for kind in kinds], end.name])
        names = {*function.__code__.co_names} - set(compiler.NAMES)
        # All other names are attributes.
        assert (
            names
            <= {
                *("__class__", "_inner_value", "count", "error", "append", "clear", "renew"),
                *(
                    "after",
                    "begun",
                    "iter",
                    "len",
                    "max",
                    "reached",
                    "source",
                    "values",
                ),  # of marks
            }
            | IN_WINDOWS
        )


def test_a_shape_is_compiled_once_and_few_shapes_are_kept() -> None:
    assert compiled(ends.RUN, (steps.MAP,)) is compiled(ends.RUN, (steps.MAP,))
    assert compiled(ends.RUN, (steps.MAP,)) is not compiled(ends.RUN, (steps.BIND,))
    for length in range(600):
        _ = compiled(ends.RUN, (steps.ALT,) * (length % 20) + (steps.MAP,) * (length // 20))
    assert compiled.cache_info().currsize <= 512


def test_the_text_of_a_shape_that_is_no_longer_kept_is_forgotten() -> None:
    file = "<chain map-map-map-alt-run>"
    function = compiled(ends.RUN, (steps.MAP, steps.MAP, steps.MAP, steps.ALT))
    assert linecache.getlines(file)
    del function
    compiled.cache_clear()
    gc.collect()
    assert not linecache.getlines(file)


def test_the_text_stays_while_a_frame_shows_it_and_if_the_shape_is_compiled_again() -> None:
    async def main() -> None:
        s = of().map(same).map(same).bimap(same, same).bimap(same, same)
        async with s.stream() as items:
            await anext(items)
            compiled.cache_clear()
            gc.collect()
            file = "<chain map-map-bimap-bimap-results>"
            assert linecache.getlines(file)
            await s.run()
            async with s.stream() as again:
                await anext(again)
        gc.collect()
        assert linecache.getlines(file)

    run(main())


# Tracebacks and debuggers.

WRONG: dict[str, tuple[Callable[[ResultStream[int, Any]], ResultStream[Any, Any]], str]] = {
    "map": (lambda s: s.map(wrong), "value = func1(value)"),
    "filter": (lambda s: s.filter(wrong), "kept = func1(value)"),
    "ensure": (lambda s: s.ensure(wrong, same), "kept = func1(value)"),
    "ensure's error": (lambda s: s.ensure(lambda _: False, wrong), "error = extra1(value)"),
    "bind": (lambda s: s.bind(wrong), "result = func1(value)"),
    "tap": (lambda s: s.tap(wrong), "if (given := func1(value)) is not None"),
    "attempt": (lambda s: s.attempt(wrong, KeyError), "value = func1(value)"),
    "map_async": (lambda s: s.map_async(wrong_async), "value = await func1(value)"),
    "bind_async": (lambda s: s.bind_async(wrong_async), "result = await func1(value)"),
    "tap_async": (lambda s: s.tap_async(wrong_async), "if (given := await func1(value))"),
    "attempt_async": (
        lambda s: s.attempt_async(wrong_async, KeyError),
        "value = await func1(value)",
    ),
    "bimap": (lambda s: s.bimap(wrong, same), "value = func1(value)"),
    "bimap's error": (lambda s: s.bind(fail).bimap(same, wrong), "error = extra2(error)"),
    "alt": (lambda s: s.bind(fail).alt(wrong), "error = func2(error)"),
    "lash": (lambda s: s.bind(fail).lash(wrong), "result = func2(error)"),
    "lash_async": (
        lambda s: s.bind(fail).lash_async(wrong_async),
        "result = unpacked(await func2(error))",
    ),
    "tap_failure": (lambda s: s.bind(fail).tap_failure(wrong), "if (given := func2(error))"),
    "tap_failure_async": (
        lambda s: s.bind(fail).tap_failure_async(wrong_async),
        "if (given := await func2(error))",
    ),
}


@pytest.mark.parametrize("use", WRONG)
def test_a_traceback_shows_the_line_of_the_step_right_before_the_users(use: str) -> None:
    made, line = WRONG[use]
    with pytest.raises(LookupError) as caught:
        run(made(of()).collect())
    linecache.checkcache()
    *_, step, user = traceback.extract_tb(caught.value.__traceback__)
    assert user.name in {"wrong", "wrong_async"}
    assert step.filename.startswith("<chain ")
    assert step.filename.endswith("-collect>")
    assert step.line is not None
    assert step.line.startswith(line)


@pytest.fixture
def tracer() -> Iterator[None]:
    """Put back what traces the tests: a debugger removes it, and coverage would stop there."""
    before = sys.gettrace()
    yield
    sys.settrace(before)


@pytest.mark.usefixtures("tracer")
def test_a_debugger_steps_through_a_chain() -> None:
    """From one of the user's functions to the next, over the lines between them."""
    seen: list[str] = []

    class Steps(bdb.Bdb):
        def user_line(self, frame: FrameType) -> None:
            file = self.canonic(frame.f_code.co_filename)
            seen.append(linecache.getline(file, frame.f_lineno).strip())
            self.set_step()

    def first(n: int) -> int:
        return n + 1  # the first

    def second(n: int) -> int:
        return n + 2  # the second

    debugger = Steps()
    awaited = of(1).map(first).map(second).fold(0, max).awaitable()

    async def main() -> None:
        debugger.set_trace()
        try:
            await awaited
        finally:
            sys.settrace(None)

    run(main())
    at = seen.index("return n + 1  # the first")
    assert seen[at - 1 : at + 3] == [
        "value = func1(value)",
        "return n + 1  # the first",
        "value = func2(value)",
        "return n + 2  # the second",
    ]


@pytest.mark.usefixtures("tracer")
def test_pdb_lists_the_lines_of_a_chain() -> None:
    shown = io.StringIO()
    with pytest.raises(LookupError) as caught:
        run(of().map(same).map(wrong).run())
    debugger = pdb.Pdb(stdin=io.StringIO("up\nlist\np value\nquit\n"), stdout=shown)
    debugger.use_rawinput = False
    debugger.reset()
    debugger.interaction(None, caught.value.__traceback__)
    assert "value = func1(value)" in shown.getvalue()
    assert "->\t            value = func2(value)" in shown.getvalue()


def test_no_text_of_the_user_is_in_a_chain() -> None:
    evil = 'x")\nimport os; os.abort()\n#'

    def step(n: int) -> int:
        return n

    step.__name__ = step.__qualname__ = evil
    error = type(evil, (Exception,), {})
    text = [
        function.__code__.co_filename + "".join(linecache.getlines(function.__code__.co_filename))
        for function in [compiled(ends.RUN, (steps.MAP, steps.ATTEMPT))]
    ]
    assert run(of().map(step).attempt(step, error).run()) == IOSuccess(3)
    assert "os.abort" not in "".join(text)


# Long chains.


@pytest.mark.parametrize("length", [199, 200, 201, 399, 400, 401, 1000])
def test_a_chain_of_any_length_does_what_its_steps_do(length: int) -> None:
    """It is compiled in parts, and items, failures and exceptions pass from part to part."""
    s = of(4).ensure(lambda n: n != 2, str)
    for _ in range(length - 3):
        s = s.map(lambda n: n + 1)
    s = s.filter(lambda n: n != length - 3).alt(lambda e: f"{e}!")
    assert run(s.partition()) == IO(([length - 2, length], ["2!"]))
    with pytest.raises(LookupError):
        run(s.map(wrong).run())
    with pytest.raises(LookupError):
        run(s.alt(wrong).run_all())


def long_filter(source: AsyncGenerator[int, None]) -> ResultStream[int, Any]:
    """Drop all items in the first part of several."""
    s = ResultStream.of(source).filter(lambda _: False)
    for _ in range(300):
        s = s.map(same)
    return s


def test_the_steps_before_the_last_part_let_others_run() -> None:
    async def endless() -> AsyncGenerator[int, None]:
        while True:
            yield 0

    async def main() -> None:
        reading = asyncio.ensure_future(long_filter(endless()).run())
        for _ in range(20):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading})

    run(main())


def test_the_steps_before_the_last_part_end_although_the_source_swallows_a_cancellation() -> None:
    async def stubborn() -> AsyncGenerator[int, None]:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1)
            yield 0

    async def main() -> None:
        items = aiter(long_filter(stubborn()).prefetch(1))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(9):
                await anext(items)
        async with asyncio.timeout(99):
            await items.aclose()

    run(main())


def test_the_name_of_a_long_chain_is_short_and_its_own() -> None:
    files = {
        compiled(ends.RUN, (steps.MAP,) * length).__code__.co_filename for length in range(8, 12)
    }
    assert len(files) == 4
    assert max(map(len, files)) < 80
    assert all(map(linecache.getlines, files))


# Threads, copies, the collector.


def test_threads_may_build_and_run_equal_chains_at_once() -> None:
    compiled.cache_clear()
    ready = threading.Barrier(8)
    outcomes: list[Any] = []

    def work() -> None:
        ready.wait()
        for length in range(20):
            s = of()
            for _ in range(length):
                s = s.map(same).alt(same)
            outcomes.append(asyncio.run(s.collect().awaitable()))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [IOSuccess([0, 1, 2])] * 160
    gc.collect()
    file = compiled(ends.COLLECT, (steps.MAP, steps.ALT)).__code__.co_filename
    assert linecache.getlines(file)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_kind_is_pickled_and_copied_as_itself(kind: Kind) -> None:
    assert pickle.loads(pickle.dumps(kind)) is kind
    assert copy.deepcopy(kind) is kind
    assert repr(kind) == kind.name.upper()


@pytest.mark.parametrize(
    "end", [lambda s: s.run(), lambda s: s.for_each(lambda _: None)], ids=["run", "for_each"]
)
def test_a_window_is_not_held_until_the_next_one(end: Callable[[Any], Any]) -> None:
    """It may be large; its results are held no longer."""
    made: list[weakref.ref[Any]] = []

    class Made:
        pass

    def make(_: object) -> Made:
        made.append(weakref.ref(one := Made()))
        return one

    async def keep(one: Made) -> Any:
        return Success(one)

    async def main() -> None:
        s = ResultStream.of(timed(1, Wait(9), 2)).chunks_or_timeout(1, 5.0)
        reading = asyncio.create_task(to_result(end(s.map(make).bind_async(keep))))
        await asyncio.sleep(1)
        assert [one() for one in made] == [None]
        assert await reading == Success(2)

    run(main())


def test_a_stream_that_was_read_is_freed_without_the_collector() -> None:
    async def main() -> None:
        s = of(5).map(same).filter(bool).bind(Success).attempt(same, KeyError).alt(same)
        gone = weakref.ref(s)
        async with s.stream() as items:
            async for _ in items:
                pass
        await s.collect()
        await s.first()
        del s, items
        assert gone() is None

    gc.collect()
    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


@pytest.mark.parametrize("reads", range(5))
@pytest.mark.parametrize("length", [3, 300])
def test_a_chain_may_be_closed_after_any_number_of_reads(reads: int, length: int) -> None:
    log: list[str] = []

    async def source() -> AsyncGenerator[int, None]:
        try:
            for n in range(4):
                yield n
        finally:
            await asyncio.sleep(1)
            log.append("closed")

    async def main() -> None:
        s = ResultStream.of(source())
        for _ in range(length):
            s = s.map(same)
        items = aiter(s)
        for _ in range(reads):
            await anext(items, None)
        await s.aclose()
        assert log == (["closed"] if reads else [])

    run(main())


def test_a_result_that_no_step_has_changed_is_emitted_itself() -> None:
    """It need not be made again."""
    given = [Success(1), Success(2)]

    async def source() -> AsyncGenerator[Result[int, str], None]:
        for result in given:
            yield result

    async def read(s: ResultStream[int, Any]) -> list[Any]:
        seen: list[Any] = []
        async with s.stream() as items:
            async for item in items:
                seen.append(item)
        return seen

    steps_that_keep: list[Callable[[ResultStream[int, str]], ResultStream[int, Any]]] = [
        same,
        lambda s: s.bind(lambda n: given[n - 1]),
    ]
    for made in steps_that_keep:
        seen = run(read(made(ResultStream.from_results(source()))))
        assert [id(item) for item in seen] == [id(item) for item in given]
    seen = run(read(ResultStream.from_results(source()).map(same)))
    assert seen == given


def test_a_step_that_returns_no_result_is_named_with_its_place_in_each_part() -> None:
    s: Any = of()
    for _ in range(250):
        s = s.map(same)
    with pytest.raises(TypeError, match=r"bind\(same\), step 251 of the chain, returned 0"):
        run(s.bind(same).run())
    with pytest.raises(TypeError, match=r"lash\(same\), step 252 of the chain, returned 0"):
        run(s.bind(fail).lash(same).run())
    awaited = s.bind_async(lambda n: FutureResult.from_failure(n))
    assert run(awaited.run()) == IOFailure(0)


def test_a_step_that_raises_stop_async_iteration_looks_like_no_end() -> None:
    def stop(_: object) -> None:
        raise StopAsyncIteration

    with pytest.raises(RuntimeError, match="raised StopAsyncIteration"):
        run(of().map(stop).run())
    with pytest.raises(RuntimeError, match="raised StopAsyncIteration"):
        run(of().map(stop).prefetch(1).run())
