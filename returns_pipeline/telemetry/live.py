"""A live view in the terminal. Needs the extra ``live``."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar

from returns_pipeline._engine import checks
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.ticker import Ticker
from returns_pipeline.errors import InvalidArgument, MissingExtra
from returns_pipeline.telemetry import Event, use
from returns_pipeline.telemetry._board import Board
from returns_pipeline.telemetry._frame import Line, Rates, frame, one_line

try:
    from rich.console import Console, ConsoleOptions
    from rich.live import Live
    from rich.text import Text
except ImportError as _error:
    raise MissingExtra("live", "rich") from _error

__all__ = ["LiveView"]

_log = logging.getLogger("returns_pipeline.telemetry")

# How many streams are watched: the latest.
_MOST_WATCHED: Final = 100


class _OperatorStatistics(Protocol):
    @property
    def pipeline(self) -> str: ...
    @property
    def stage(self) -> str: ...
    @property
    def buffered(self) -> int: ...


class _StreamStatistics(Protocol):
    @property
    def operators(self) -> Sequence[_OperatorStatistics]: ...


class _Stream(Protocol):
    def statistics(self) -> _StreamStatistics: ...


S = TypeVar("S", bound=_Stream)


class LiveView:
    """An observer that shows in the terminal what happens, while its ``with`` block runs.

    It observes everything that is opened, or first read, inside the block, as `telemetry.use` does:

    1. Sources: messages, messages in flight, lag, redeliveries; whether they are connected.
    2. Stages: items and windows, why the last window was emitted, how long they have waited for
       their reader. With `watch`, how many items they hold, as a bar of the largest window so far.
    3. Steps: how many run, how many have ended and failed, and their mean duration.
    4. Undo actions: registered, undone, failed. Those that are stuck are said first.
    5. Journals, open circuit breakers, and what workers do.
    6. The last five failures, and the last five undo actions that were run.

    Rates are those of the last five seconds. Of each kind, 12 rows are shown, and 100 are kept.

    In a terminal the view is redrawn below what the program prints, and stays there at the end. If
    the output is not a terminal, one line is printed now and then, and at the end. A thread of its
    own writes, so a terminal that blocks does not delay the pipeline. What fails in the view is
    logged, and ends the view alone. The cursor of the terminal is shown again at the end of the
    block, also after an exception.

    What the program prints by ``print`` appears above the view, as does what it writes to
    ``view.console``. A handler of `logging` should write there, too (``RichHandler``).

    A view is entered once. It may be printed by a console of rich at any time.

    Args:
        console: Where it writes; by default the standard error.
        redraw_every: Seconds between two drawings in a terminal, above 0.
        line_every: Seconds between two lines where there is no terminal, above 0.
        clock: Returns the time in seconds, for rates and ages.

    Raises:
        InvalidArgument: At the call, if an interval is out of range.

    >>> from returns_pipeline import ResultStream
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> view = LiveView(clock=lambda: 0.0)
    >>> s = ResultStream.of(from_iterable(range(7))).chunks_or_timeout(3, 9.0)
    >>> run(s.observed(view, name="shop").run())
    <IOResult: <Success: 3>>
    >>> Console(width=80).print(view)
    0:00  shop
    <BLANKLINE>
                               total  rate  now
    window  chunks_or_timeout      7             3 windows of 2, last by end
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        redraw_every: Seconds = 0.25,
        line_every: Seconds = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redraw_every = checks.seconds("redraw_every", redraw_every, finite=True)
        self._line_every = checks.seconds("line_every", line_every, finite=True)
        self._console = Console(stderr=True) if console is None else console
        self._board = Board(clock)
        self._rates = Rates()
        self._streams: deque[_Stream] = deque(maxlen=_MOST_WATCHED)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._was_entered = False
        self._opened = ExitStack()
        self._ticker: Ticker | None = None

    @property
    def console(self) -> Console:
        """Where the view is shown. What is printed by it appears above the view."""
        return self._console

    def watch(self, stream: S, /) -> S:
        """Show how many items the stages of a stream hold, besides what is reported of it.

        That is read from its ``statistics()`` at each drawing, in the thread of the event loop. Of
        many streams the latest 100 are watched.

        Args:
            stream: A stream that this view observes. Streams made of it have stages of their own:
                watch the last one.

        Returns:
            The same stream.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import ticks
        >>> from returns_pipeline.testing import run
        >>> import asyncio
        >>> view = LiveView(clock=lambda: 0.0)
        >>> async def main():
        ...     s = ResultStream.of(ticks(1.0)).chunks_or_timeout(5, 60.0).observed(view)
        ...     async with view.watch(s).stream() as windows:
        ...         await anext(windows)
        ...         await asyncio.sleep(2.5)
        ...         Console(width=90).print(view)
        >>> run(main())
        0:00
        <BLANKLINE>
                                   total  rate  now
        window  chunks_or_timeout      5        ███░░░░░ 2 held  1 window of 5, last by size
        """
        self._streams.append(stream)
        return stream

    def on_event(self, event: Event, /) -> None:
        """Count an event."""
        if self._loop is None:
            self._find_loop()
        self._board.on_event(event)

    def __enter__(self) -> Self:
        if self._was_entered:
            raise InvalidArgument("a LiveView is entered once: make another one")
        self._was_entered = True
        self._find_loop()
        with self._opened:  # closed again if anything below raises
            self._begin()
            self._opened.callback(self._end)
            self._opened.enter_context(use(self))
            self._opened = self._opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened.close()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Text]:
        self._sample()
        width = options.max_width
        for line in frame(self._board, self._rates, width, ascii_only=options.ascii_only):
            yield _text(line, width)

    def _begin(self) -> None:
        self._opened.enter_context(_survives_broken_pipe(self._console))
        show, every, end = self._print_line, self._line_every, self._print_line
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            live = Live(get_renderable=lambda: self, console=self._console, auto_refresh=False)
            show, every, end = live.refresh, self._redraw_every, live.stop
            try:
                live.start(refresh=True)
            except (OSError, ValueError):  # the output is closed, or the terminal has gone
                _log.exception("the live view cannot be shown; the pipeline continues")
                with suppress(Exception):
                    live.stop()
                return
        self._ticker = Ticker(show, every, "the live view", end)
        self._ticker.start()

    def _end(self) -> None:
        if self._ticker is not None:
            self._ticker.stop()

    def _print_line(self) -> None:
        self._sample()
        text = _printable(one_line(self._board, self._rates))
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    # Statistics are read in the thread of the loop alone.

    def _find_loop(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    def _sample(self) -> None:
        """Read what the streams hold; from another thread, have it read for the next drawing."""
        loop = self._loop
        if not self._streams or loop is None:
            return
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here or not loop.is_running():
            self._read_statistics()
            return
        with suppress(RuntimeError):  # it was closed just now
            _ = loop.call_soon_threadsafe(self._read_statistics)

    def _read_statistics(self) -> None:
        held: dict[str, dict[str, int]] = {}
        for stream in self._streams:
            for each in stream.statistics().operators:
                if each.stage:
                    held.setdefault(each.pipeline, {})[each.stage] = each.buffered
        for pipeline, stages in held.items():
            self._board.hold(pipeline, stages)


@contextmanager
def _survives_broken_pipe(console: Console) -> Generator[None, None, None]:
    """Write nothing more if no program reads the output; rich would end this program."""

    def on_broken_pipe() -> None:
        console.quiet = True
        _log.warning("no program reads the output of the live view any more")

    was_quiet = console.quiet
    vars(console)["on_broken_pipe"] = on_broken_pipe
    try:
        yield
    finally:
        console.quiet = was_quiet
        del vars(console)["on_broken_pipe"]


def _text(line: Line, width: int) -> Text:
    text = Text(no_wrap=True)
    for part, style in line:
        _ = text.append(_printable(part), style or None)
    text.rstrip()
    text.truncate(width, overflow="ellipsis")
    return text


def _printable(text: str) -> str:
    """Replace characters that a terminal would obey: names and errors may have any."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
