"""`ResultStream.progress`: it counts what passes, and closes its bar however the stream ends."""

from __future__ import annotations

import asyncio
import io
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("rich", reason="needs the extra live")

from returns.io import IOFailure, IOSuccess

from returns_pipeline import ResultStream, err, ok
from returns_pipeline._engine import ticker
from returns_pipeline.connectors import Message, Source
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.result_stream import _bars
from returns_pipeline.sources import from_iterable
from returns_pipeline.testing import MemoryBroker, Wait, run, timed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from returns.result import Result

Stream = ResultStream[Any, Any]
SHOW = "\x1b[?25h"  # the cursor


class Terminal(io.StringIO):
    """A file that rich takes for a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Draw at the start and at the end alone."""
    monkeypatch.setattr(_bars, "DRAW_EVERY", 1000.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    yield
    for display in [*_bars._displays.values()]:  # pyright: ignore[reportPrivateUsage]
        for bar in [*display.bars]:
            bar.close()


def open_bars() -> list[int]:
    """Return the counts of all bars that are open."""
    return [bar.count for display in _bars._displays.values() for bar in display.bars]  # pyright: ignore[reportPrivateUsage]


def counted(file: io.StringIO) -> list[str]:
    """Return what the bars have counted, from what was printed at the end."""
    return re.findall(r"(\d+/[\d?]+)", file.getvalue())


def no_odd(n: int) -> Result[int, str]:
    return err(f"{n} is odd") if n % 2 else ok(n)


async def later(n: int) -> int:
    await asyncio.sleep(1.0)
    return n


# Where the bar may stand: each with a chain that emits 0, 1, 2 and 3.
PLACES: dict[str, Callable[[Any, Any], Stream]] = {
    "first": lambda source, file: ResultStream.of(source).progress(4, file=file),
    "after a step": lambda source, file: (
        ResultStream.of(source).map(int).progress(4, file=file).map(int)
    ),
    "before a window": lambda source, file: (
        ResultStream.of(source).progress(4, file=file).chunks_or_timeout(1, 9.0).map(lambda w: w[0])
    ),
    "after a window": lambda source, file: (
        ResultStream.of(source).chunks_or_timeout(1, 9.0).map(lambda w: w[0]).progress(4, file=file)
    ),
    "after a concurrent step": lambda source, file: (
        ResultStream.of(source).map_async(later, concurrency=2).progress(4, file=file)
    ),
    "in a merged stream": lambda source, file: ResultStream.of(from_iterable(list[Any]())).merge(
        ResultStream.of(source).progress(4, file=file)
    ),
    "among very many steps": lambda source, file: many_steps(
        many_steps(ResultStream.of(source)).progress(4, file=file)
    ),
    "over batches": lambda source, file: (
        ResultStream.from_batches(ResultStream.of(source).sliding(1).successes())
        .progress(4, file=file)
        .map(int)
    ),
}


def many_steps(s: Stream) -> Stream:
    for _ in range(150):
        s = s.map(int)
    return s


at_each_place = pytest.mark.parametrize("made", PLACES.values(), ids=PLACES)


@at_each_place
def test_items_pass_unchanged_and_are_counted(made: Callable[..., Stream]) -> None:
    file = io.StringIO()
    assert run(made(timed(0, 1, 2, 3), file).collect()) == IOSuccess([0, 1, 2, 3])
    assert counted(file) == ["4/4"]
    assert not open_bars()


@at_each_place
def test_the_bar_is_closed_when_a_terminal_stops_at_a_failure(made: Callable[..., Stream]) -> None:
    file = Terminal()
    assert run(made(timed(0, 1, 2, 3), file).bind(no_odd).collect()) == IOFailure("1 is odd")
    assert not open_bars()
    assert file.getvalue().endswith(SHOW)


@at_each_place
def test_the_bar_is_closed_when_the_source_raises(made: Callable[..., Stream]) -> None:
    async def source() -> AsyncIterator[int]:
        yield 0
        raise OSError("gone")

    file = Terminal()
    with pytest.raises(OSError, match="gone"):
        run(made(source(), file).run())
    assert not open_bars()
    assert file.getvalue().endswith(SHOW)


@at_each_place
def test_the_bar_is_closed_when_a_step_raises(made: Callable[..., Stream]) -> None:
    def fail(_: int) -> int:
        raise LookupError("no")

    with pytest.raises(LookupError):
        run(made(timed(0, 1, 2, 3), io.StringIO()).map(fail).run())
    assert not open_bars()


@at_each_place
def test_the_bar_is_closed_when_the_reader_is_cancelled(made: Callable[..., Stream]) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(20.0):
                await made(timed(0, Wait(1000.0), 1), io.StringIO()).run()
        assert not open_bars()

    run(main())


@at_each_place
def test_the_bar_is_closed_when_the_reader_leaves(made: Callable[..., Stream]) -> None:
    async def main() -> None:
        async with made(timed(0, 1, 2, 3), io.StringIO()).stream() as items:
            assert await anext(items) == ok(0)
            assert len(open_bars()) == 1
        assert not open_bars()

    run(main())


@at_each_place
def test_the_bar_is_closed_when_the_source_cannot_be_opened(made: Callable[..., Stream]) -> None:
    class Refusing:
        def __aiter__(self) -> AsyncIterator[int]:
            raise OSError("refused")

    with pytest.raises(OSError, match="refused"):
        run(made(Refusing(), io.StringIO()).run())
    assert not open_bars()


def test_a_cancelled_read_after_a_window_leaves_the_bar_open_and_the_next_one_continues() -> None:
    file = io.StringIO()

    async def main() -> None:
        s = ResultStream.of(timed(0, Wait(9.0), 1)).sliding(1).progress(file=file)
        async with s.stream() as items:
            assert await anext(items) == ok([0])
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    _ = await anext(items)
            assert open_bars() == [1]
            assert await anext(items) == ok([1])
            assert open_bars() == [2]

    run(main())
    assert counted(file) == ["2/?"]


def test_failures_are_counted_as_values_are() -> None:
    file = io.StringIO()
    s = ResultStream.of(timed(0, 1, 2, 3)).bind(no_odd).progress(4, file=file)
    run(s.run_all())
    assert counted(file) == ["4/4"]


def test_messages_of_a_broker_are_counted_and_acknowledged() -> None:
    file = io.StringIO()
    broker = MemoryBroker()
    broker.publish(*[str(n).encode() for n in range(5)])

    async def main() -> None:
        async with Source(broker.driver("sums"), decode=int) as source:

            def drain_at_the_last(message: Message[int]) -> None:
                if message.value == 4:
                    source.drain()

            _ = await source.messages().progress(5, file=file).tap(drain_at_the_last).run()
        assert broker.backlog("sums") == 0

    run(main())
    assert counted(file) == ["5/5"]
    assert not open_bars()


def test_what_a_filter_drops_is_counted_before_it_alone() -> None:
    before, after = io.StringIO(), io.StringIO()
    s = ResultStream.of(timed(0, 1, 2, 3)).progress(4, file=before)
    run(s.filter(lambda n: n > 2).progress(file=after).run())
    assert (counted(before), counted(after)) == (["4/4"], ["1/?"])


def test_a_stream_that_is_not_read_shows_nothing_and_each_reading_has_its_bar() -> None:
    file = io.StringIO()
    s = ResultStream.of(from_iterable([1, 2])).progress(2, file=file)
    assert file.getvalue() == ""
    for _ in range(2):
        run(s.run())
    assert counted(file) == ["2/2", "2/2"]


def test_bars_that_are_open_at_once_stand_below_each_other() -> None:
    file = io.StringIO()

    async def main() -> None:
        s = ResultStream.of(timed(1, Wait(9.0), 2))
        slow = s.progress(2, description="[slow]", file=file).run()
        fast = ResultStream.of(timed(3)).progress(1, description="fast", file=file).run()
        _ = await asyncio.gather(slow.awaitable(), fast.awaitable())

    run(main())
    first, second = file.getvalue().splitlines()
    assert re.fullmatch(r"\[slow\] ━+ 100% 2/2 .*", first)
    assert re.fullmatch(r"fast   ━+ 100% 1/1 .*", second)


def test_an_item_draws_nothing() -> None:
    file = Terminal()

    async def main() -> None:
        async with ResultStream.of(from_iterable(range(1000))).progress(file=file).stream() as s:
            _ = await anext(s)
            drawn = file.getvalue()
            for _ in range(900):
                _ = await anext(s)
            assert file.getvalue() == drawn

    run(main())


class Signalling(Terminal):
    """A terminal that tells when something was drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.drawings = threading.Semaphore(0)

    def write(self, text: str, /) -> int:
        self.drawings.release()
        return super().write(text)


def test_a_thread_draws_while_the_stream_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bars, "DRAW_EVERY", 0.001)
    file = Signalling()

    async def source() -> AsyncIterator[int]:
        yield 1
        yield 2
        while "1/7" not in file.getvalue():  # the second is yet to pass
            assert await asyncio.to_thread(file.drawings.acquire, timeout=30.0)

    async def main() -> None:
        s = ResultStream.of(source()).sliding(2, step=2).progress(7, file=file)
        await s.run()

    asyncio.run(main())


class Broken(Terminal):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str, /) -> int:
        raise self.error


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), OSError(5, "gone"), ValueError("closed file")], ids=repr
)
def test_an_output_that_is_broken_harms_nothing(error: Exception) -> None:
    out = sys.stdout
    s = ResultStream.of(timed(1, 2)).progress(2, file=Broken(error))
    assert run(s.collect()) == IOSuccess([1, 2])
    assert sys.stdout is out
    assert not open_bars()


class Blocking(io.StringIO):
    """An output that takes nothing for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.continues = threading.Event()

    def write(self, text: str, /) -> int:
        assert self.continues.wait(30.0)
        return super().write(text)


def test_an_output_that_blocks_does_not_hold_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticker, "GRACE", 0.01)
    file = Blocking()
    assert run(ResultStream.of(timed(1, 2)).progress(2, file=file).collect()) == IOSuccess([1, 2])
    file.continues.set()
    for thread in threading.enumerate():
        if "progress" in thread.name:
            thread.join(30.0)
    assert counted(file) == ["2/2"]


def test_the_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    run(ResultStream.of(timed(1)).progress(1).run())
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "1/1" in shown.err


def test_a_total_that_is_out_of_range_is_refused_at_the_call() -> None:
    with pytest.raises(InvalidArgument, match="total"):
        _ = ResultStream.of(timed(1)).progress(-1)
    run(ResultStream.of(from_iterable(list[int]())).progress(0, file=io.StringIO()).run())


def test_without_rich_it_is_refused_at_the_call_and_all_else_works() -> None:
    program = """
import sys
sys.modules["rich"] = None
from returns_pipeline import ResultStream, pipe, results
from returns_pipeline.errors import MissingExtra
from returns_pipeline.sources import from_iterable
try:
    ResultStream.of(from_iterable([1])).progress(1)
except MissingExtra as error:
    print(error)
"""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == 'rich is missing: pip install "returns-pipeline[live]"\n'
