"""`LiveView`: what it shows, at which width, and that it harms neither pipeline nor terminal."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, get_args

import pytest

pytest.importorskip("rich", reason="needs the extra live")

from rich.console import Console

from returns_pipeline import ResultStream, StepContext, err, ok, telemetry
from returns_pipeline._engine import ticker
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.telemetry import Event, _board
from returns_pipeline.telemetry._frame import Rates, one_line
from returns_pipeline.telemetry.live import LiveView
from returns_pipeline.testing import Wait, run, timed

if TYPE_CHECKING:
    from returns.result import Result

IN_ORDERS: dict[str, Any] = {"pipeline": "orders", "at": 0.0}
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"  # the cursor


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def window(size: int, **changes: Any) -> telemetry.WindowEmitted:
    facts: dict[str, Any] = {
        **IN_ORDERS, "stage": "chunks_or_timeout", "operator": "chunks_or_timeout",
        "size": size, "reason": "size", "age": 0.4, **changes,
    }  # fmt: skip
    return telemetry.WindowEmitted(**facts)


def begun(number: int | None, stage: str = "persist") -> telemetry.StepBegun:
    return telemetry.StepBegun(**IN_ORDERS, stage=stage, number=number, key="k", run=number or 0)


def ended(number: int | None, error: object = None, stage: str = "persist") -> telemetry.StepEnded:
    return telemetry.StepEnded(
        **IN_ORDERS, stage=stage, number=number, key="k", run=number or 0, duration=0.041,
        outcome="succeeded" if error is None else "failed", error=error,
    )  # fmt: skip


def a_bad_day(clock: Clock) -> LiveView:
    """Return a view to which everything was reported that may go wrong."""
    view = LiveView(clock=clock)
    source: dict[str, Any] = {**IN_ORDERS, "system": "nats", "source": "orders"}
    undo: dict[str, Any] = {**IN_ORDERS, "scope": "persist[1]", "key": "k", "duration": 0.02}
    report = view.on_event
    report(telemetry.WorkerStarted(**IN_ORDERS))
    report(telemetry.Fetched(**source, messages=1500, in_flight=1500, waited=0.1))
    report(telemetry.LagMeasured(**source, partition="0", lag=1000, oldest=0.25))
    report(telemetry.LagMeasured(**source, partition="1", lag=234, oldest=0.5))
    report(telemetry.Redelivered(**source, messages=2))
    for number in range(3):
        report(window(500))
        report(begun(number))
        report(telemetry.UndoRegistered(**IN_ORDERS, scope="persist", undo="delete-batch", key="k"))
        clock.now += 1.0
        if number == 0:
            report(telemetry.ScopeCommitted(**IN_ORDERS, scope="persist[0]", key="k", actions=1))
            report(ended(0))
            report(telemetry.Acknowledged(**source, messages=500, duration=0.01))
        if number == 1:
            report(telemetry.UndoDone(**undo, undo="delete-batch", attempt=1))
            report(ended(1, OSError("disk full\n\x1b[31m")))
    report(
        telemetry.Backpressure(
            **IN_ORDERS,
            stage="chunks_or_timeout",
            operator="chunks_or_timeout",
            waited=0.3,
            waits=2,
            in_flight=500,
        )
    )
    request: dict[str, Any] = {"kind": "record", "size": 5, "duration": 0.002, "queued": 1}
    report(telemetry.JournalRequest(**IN_ORDERS, journal="SqliteJournal", **request, failed=False))
    down = OSError("the bank is down")
    report(telemetry.UndoFailed(**undo, undo="refund", attempt=4, error=down))
    report(telemetry.UndoStuck(**undo, undo="refund", attempt=5, error=down))
    report(telemetry.BreakerChanged(**IN_ORDERS, breaker="bank", before="closed", state="open"))
    report(telemetry.Disconnected(**source, error=OSError("reset")))
    return view


def shown(view: LiveView, width: int, **options: Any) -> str:
    """Return what a console records that prints the view."""
    console = Console(file=io.StringIO(), record=True, width=width, **options)
    console.print(view)
    return console.export_text()


TOP = """\
0:03  orders reads
1 undo action is stuck: a person must act
nats orders has no connection: OSError: reset
the breaker bank is open
"""
BOTTOM = """\

last failures
0:02  persist  OSError: disk full ?[31m

last undo actions
0:02  delete-batch  undone
0:03  refund  failed, to be tried again: OSError: the bank is down
0:03  refund  stuck: OSError: the bank is down
"""
NARROW = """
                            total   rate  now
source   nats orders        1,500  500/s  1,000 in flight
         lag 1,234, the oldest is 500 ms old, 2 redelivered
window   chunks_or_timeout  1,500  500/s
         3 windows of 500, last by size
         waited 300 ms for its reader
step     persist                2  0.7/s  1 running
         1 failed, 41 ms each
undo     delete-batch           3         1 undone
undo     refund                 0         0 undone
         1 stuck, 1 failed, to be tried again
journal  SqliteJournal          5  1.7/s  1 queued
         2 ms a batch
"""
WIDE = """
                            total   rate  now
source   nats orders        1,500  500/s  1,000 in flight  lag 1,234, the oldest is 500 ms old, 2 redelivered
window   chunks_or_timeout  1,500  500/s                   3 windows of 500, last by size, waited 300 ms for its reader
step     persist                2  0.7/s  1 running        1 failed, 41 ms each
undo     delete-batch           3         1 undone
undo     refund                 0         0 undone         1 stuck, 1 failed, to be tried again
journal  SqliteJournal          5  1.7/s  1 queued         2 ms a batch
"""  # noqa: E501  # it is as wide as that


def test_all_of_it_at_60_columns_with_details_below() -> None:
    narrow = BOTTOM.replace("again: OSError: the bank is down", "again: OSError: the bank …")
    assert shown(a_bad_day(Clock()), 60) == TOP + NARROW + narrow


def test_all_of_it_at_80_columns() -> None:
    together = NARROW.replace("last by size\n         waited", "last by size, waited")
    assert shown(a_bad_day(Clock()), 80) == TOP + together + BOTTOM


def test_all_of_it_at_130_columns_with_details_beside() -> None:
    assert shown(a_bad_day(Clock()), 130) == TOP + WIDE + BOTTOM


def test_no_line_is_wider_than_the_terminal() -> None:
    view = a_bad_day(Clock())
    for width in range(1, 150):
        assert max(map(len, shown(view, width).splitlines())) <= width


def test_all_of_it_in_one_line() -> None:
    view = a_bad_day(Clock())
    assert one_line(view._board, Rates()) == (  # pyright: ignore[reportPrivateUsage]
        "0:03  orders reads; 1 undo action is stuck: a person must act; "
        "nats orders has no connection: OSError: reset; the breaker bank is open; "
        "nats orders 1,500 (500/s), lag 1,234, the oldest is 500 ms old; "
        "chunks_or_timeout 1,500 (500/s); persist 2 (0.7/s), 1 failed; delete-batch 3; "
        "refund 0, 1 stuck; SqliteJournal 5 (1.7/s)"
    )


def test_colours_tell_what_is_urgent_and_no_markup_is_read_from_names() -> None:
    view = LiveView(clock=Clock())
    view.on_event(ended(0, ValueError("[bold]no[/bold]"), stage="[red]pay[/red]"))
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system="standard")
    console.print(view)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]pay[/red]" in text
    assert "ValueError: [bold]no[/bold]" in text
    assert "\x1b[31m[red]pay" in text  # red


def test_a_rate_is_that_of_the_last_five_seconds() -> None:
    clock = Clock()
    view = LiveView(clock=clock)
    rates: list[str] = []
    for size in [100] * 8 + [0] * 6:
        clock.now += 1.0
        if size:
            view.on_event(window(size))
        rates.append(shown(view, 100).splitlines()[3].split()[3])
    assert rates == ["100/s"] * 8 + ["80/s", "60/s", "40/s", "20/s", "0/s", "0/s"]


def test_a_second_drawing_at_the_same_time_shows_the_same_rates() -> None:
    clock = Clock()
    view = LiveView(clock=clock)
    clock.now += 2.0
    view.on_event(window(100))
    assert shown(view, 100) == shown(view, 100)
    assert "50/s" in shown(view, 100)
    assert len(view._rates._seen) == 2  # pyright: ignore[reportPrivateUsage]


def test_the_failure_of_a_step_that_its_context_returns_is_shown_once() -> None:
    view = LiveView(clock=Clock())
    error = OSError("disk full")
    for event in (begun(None, "orders"), begun(0), ended(0, error), ended(None, error, "orders")):
        view.on_event(event)
    text = shown(view, 100)
    assert text.count("OSError: disk full") == 1
    view.on_event(ended(None, OSError("another one"), "orders"))
    assert "orders  OSError: another one" in shown(view, 100)


def test_several_pipelines_are_named_in_each_row() -> None:
    view = LiveView(clock=Clock())
    view.on_event(window(1))
    view.on_event(window(2, pipeline="returns"))
    text = shown(view, 100)
    assert text.startswith("0:00  orders  returns\n")
    assert "orders/chunks_or_timeout" in text
    assert "returns/chunks_or_timeout" in text


def test_rows_and_what_is_kept_are_bounded_however_many_names_there_are() -> None:
    view = LiveView(clock=Clock())
    for number in range(1000):
        view.on_event(window(1, pipeline=f"p{number}", stage=f"s{number}"))
        view.on_event(ended(None, OSError(str(number)), f"step {number}"))
    board = view._board  # pyright: ignore[reportPrivateUsage]
    assert len(board.stages) == len(board.steps) == _board.MAX_ROWS + 1
    assert board.stages["", "other"].items == 1000 - _board.MAX_ROWS
    lines = shown(view, 100).splitlines()
    assert len(lines) < 60
    assert "and 178 more" in "\n".join(lines)
    assert len(one_line(board, Rates())) < 1000


def test_an_error_that_cannot_be_shown_has_its_name_and_a_long_one_is_cut() -> None:
    class Unreadable(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert _board.error_text(Unreadable()) == "Unreadable"
    assert _board.error_text("no stock") == "no stock"
    assert len(_board.error_text(OSError("x" * 10_000))) < 400


def test_each_kind_of_event_is_known() -> None:
    kinds = {
        kind
        for name in telemetry.__all__
        if isinstance(kind := getattr(telemetry, name), type) and "at" in kind.__annotations__
    }
    handlers = set(LiveView()._board._handlers)  # pyright: ignore[reportPrivateUsage]
    assert handlers == kinds
    assert len(kinds) == len(get_args(Event))
    view = LiveView()
    view.on_event(object())  # type: ignore[arg-type]  # a later kind
    assert "nothing was reported yet" in shown(view, 80)


# The block.


def terminal(file: io.StringIO | None = None) -> Console:
    file = io.StringIO() if file is None else file
    return Console(file=file, force_terminal=True, width=80, height=30, color_system=None)


def written(console: Console) -> str:
    file: Any = console.file
    text: str = file.getvalue()
    return text


async def fail_at_three(item: int, _: StepContext) -> Result[int, str]:
    return err("it was three") if item == 3 else ok(item)


async def three() -> None:
    ctx = StepContext("orders")
    await ResultStream.of(timed(1, 2, 3, 4)).bind_step(fail_at_three, ctx).run_all()


def test_what_is_opened_inside_the_block_is_shown_and_stays_at_its_end() -> None:
    console = terminal()
    with LiveView(console, clock=Clock(), redraw_every=1000.0) as view:
        assert view.console is console
        run(three())
        print("printed by the program")  # noqa: T201  # as programs do
    text = written(console)
    assert text.startswith(HIDE)
    assert text.endswith(SHOW)
    last = text.rpartition("printed by the program")[2]
    assert "step  fail_at_three      4        0 running" in last
    assert "fail_at_three  it was three" in last


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, asyncio.CancelledError])
def test_the_terminal_is_restored_after_an_exception(error: type[BaseException]) -> None:
    console = terminal()
    out, to_errors = sys.stdout, sys.stderr
    with pytest.raises(error), LiveView(console, redraw_every=1000.0):
        assert sys.stdout is not out
        raise error
    assert written(console).endswith(SHOW)
    assert (sys.stdout, sys.stderr) == (out, to_errors)
    assert not [each for each in threading.enumerate() if "live view" in each.name]


def test_nothing_is_observed_after_the_block() -> None:
    with LiveView(terminal(), clock=Clock(), redraw_every=1000.0) as view:
        pass
    run(three())
    assert "nothing was reported yet" in shown(view, 80)


def test_where_there_is_no_terminal_one_plain_line_is_printed_at_the_end() -> None:
    console = Console(file=io.StringIO(), width=40)
    with LiveView(console, clock=Clock(), line_every=1000.0):
        run(three())
    assert written(console) == "0:00  orders; fail_at_three 4, 1 failed\n"


class Signalling(io.StringIO):
    """A file that tells when something was written."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = threading.Semaphore(0)

    def write(self, text: str, /) -> int:
        count = super().write(text)
        if "0:00" in text:
            self.lines.release()
        return count


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_view_is_drawn_again_and_again_while_nothing_happens(*, is_terminal: bool) -> None:
    file = Signalling()
    console = Console(file=file, force_terminal=is_terminal, width=80)
    with LiveView(console, clock=Clock(), line_every=0.001, redraw_every=0.001):
        assert all(file.lines.acquire(timeout=30.0) for _ in range(3))


class Broken(io.StringIO):
    """A file that takes nothing any more."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str, /) -> int:
        raise self.error


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (BrokenPipeError(), "no program reads the output of the live view"),
        (OSError(5, "the terminal has gone"), "cannot be shown"),
        (ValueError("I/O operation on closed file"), "cannot be shown"),
    ],
)
def test_an_output_that_is_broken_ends_the_view_alone(
    is_terminal: bool, error: Exception, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    out = sys.stdout
    console = Console(file=Broken(error), force_terminal=is_terminal, width=80)
    with LiveView(console, line_every=1000.0, redraw_every=1000.0) as view:
        run(three())
    assert sys.stdout is out
    assert logged in caplog.text
    assert "fail_at_three" in shown(view, 80)
    assert not console.quiet
    assert "on_broken_pipe" not in vars(console)


class Blocking(io.StringIO):
    """A terminal whose user has stopped its output."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = threading.Event()
        self.continues = threading.Event()

    def write(self, text: str, /) -> int:
        self.blocks.set()
        assert self.continues.wait(30.0)
        return super().write(text)


def test_a_terminal_that_blocks_delays_neither_the_pipeline_nor_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ticker, "GRACE", 0.01)
    file = Blocking()
    with LiveView(Console(file=file, width=80), line_every=0.001) as view:
        assert file.blocks.wait(30.0)
        run(three())
    assert "fail_at_three" in shown(view, 80)
    file.continues.set()
    for thread in threading.enumerate():
        if "live view" in thread.name:
            thread.join(30.0)
    # What was blocked, and, as soon as the terminal takes it, the end.
    assert file.getvalue().count("\n") == 2


def test_what_fails_while_it_is_drawn_is_logged_once_and_ends_the_view(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = threading.Semaphore(0)

    def fail() -> None:
        called.release()
        raise ValueError("no")

    def at_end() -> None:
        ends.append(threading.current_thread())

    ends: list[threading.Thread] = []
    ticks = ticker.Ticker(fail, 0.001, "the test", at_end)
    ticks.start()
    assert called.acquire(timeout=30.0)
    ticks._thread.join(5.0)  # pyright: ignore[reportPrivateUsage]
    ticks.stop()
    assert len(ends) == 1
    assert ends[0] is not threading.current_thread()
    assert not called.acquire(blocking=False)
    assert caplog.text.count("the test cannot be shown any more") == 1


def test_a_ticker_that_was_never_started_stops() -> None:
    ticker.Ticker(print, 1e300, "the test", print).stop()


def test_a_view_is_entered_once() -> None:
    with LiveView(terminal(), redraw_every=1000.0) as view:
        pass
    with pytest.raises(InvalidArgument), view:
        pass


@pytest.mark.parametrize(
    "facts", [{"redraw_every": 0.0}, {"line_every": -1.0}, {"line_every": float("inf")}]
)
def test_an_interval_that_is_out_of_range_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        LiveView(**facts)


# What streams hold.


def test_a_stream_that_is_watched_shows_how_full_its_window_is() -> None:
    view = LiveView(clock=Clock())

    async def main() -> list[str]:
        numbers = timed(1, 2, 3, 4, Wait(1.0), 5, Wait(5.0), 6)
        s = ResultStream.of(numbers).chunks_or_timeout(4, 60.0).observed(view, name="shop")
        texts: list[str] = []
        async with view.watch(s).stream() as windows:
            texts.append(shown(view, 80))
            _ = await anext(windows)
            await asyncio.sleep(2.0)
            texts.append(shown(view, 80))
            texts.append(shown(view, 80, safe_box=True))
        return texts

    first, second, _ = run(main())
    assert "nothing was reported yet" in first
    assert "chunks_or_timeout      4        ██░░░░░░ 1 held" in second


def test_streams_are_read_in_the_thread_of_their_loop() -> None:
    view = LiveView(clock=Clock())
    threads: set[threading.Thread] = set()

    class Statistics:
        operators = ()

    class Stream:
        def statistics(self) -> Statistics:
            threads.add(threading.current_thread())
            return Statistics()

    async def main() -> None:
        view.watch(Stream())
        view.on_event(window(1))
        await asyncio.to_thread(shown, view, 80)
        assert threads == {threading.main_thread()}

    asyncio.run(main())
    threads.clear()
    assert shown(view, 80)  # the loop does not run any more: nothing can change
    assert threads == {threading.current_thread()}


def test_where_only_ascii_is_understood_the_bar_is_of_ascii() -> None:
    view = LiveView(clock=Clock())
    view.on_event(window(4))
    view._board.hold("orders", {"chunks_or_timeout": 2})  # pyright: ignore[reportPrivateUsage]
    buffer = io.BytesIO()
    file = io.TextIOWrapper(buffer, encoding="ascii")
    Console(file=file, width=80).print(view)
    file.flush()
    assert b"####---- 2 held" in buffer.getvalue()


def test_without_rich_the_command_that_installs_it_is_named() -> None:
    program = """
import sys
sys.modules["rich"] = None
from returns_pipeline.errors import MissingExtra
try:
    import returns_pipeline.telemetry.live
except MissingExtra as error:
    print(error)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == 'rich is missing: pip install "returns-pipeline[live]"\n'
