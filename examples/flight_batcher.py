"""Write departures to a database in windows of 500 or 2 seconds, each completely or not at all.

This is the main job of `returns_pipeline`, on real data: the 336,776 flights that left New York
City in 2013. `flight_records` reads and validates them, `flight_stores` stores them, `flight_tally`
counts them, `flight_windows` groups them, `flight_chart` draws. This file has the pipeline,
`run_batches`, and the command line.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final, NoReturn, get_args

from returns.future import future_safe
from returns.result import Failure, Result, Success
from rich.console import Console

from flight_chart import show_departures
from flight_records import Source, SourceError, departures, json_lines
from flight_stores import Batch, KeptJournal, Store, StoreError, open_journal, open_store
from flight_tally import Tally, Window, show_progress, summary
from flight_windows import By, Windows, windowed
from returns_pipeline import (
    CompensationRegistry,
    ResultStream,
    RetryPolicy,
    StepContext,
    to_result,
)
from returns_pipeline.compensation import Compensation, Journal
from returns_pipeline.errors import JournalError
from returns_pipeline.journal import RecoverableJournal, recover
from returns_pipeline.telemetry import LiveView

DONE: Final = 0
FAILED: Final = 1
REFUSED: Final = 2
INTERRUPTED: Final = 128  # and the number of the signal

MAX_DURATION: Final = 366 * 24 * 3600

NONSENSE: Final = ("malformed line", "invalid record")


@dataclass(frozen=True, slots=True)
class Options(Windows):
    """The command line."""

    input: str | None = None
    database: str = "flights.db"
    journal: str | None = None
    rate: float = math.inf
    limit: float = math.inf
    fail_at: int | None = None
    crash_at: int | None = None
    live: bool = False


class WriteFailed(Exception):
    """A window could not be written."""

    def __init__(self, window: Window, cause: StoreError) -> None:
        super().__init__(window, cause)
        self.window = window
        self.cause = cause

    def __str__(self) -> str:
        return f"window {self.window.number}: {self.cause}"


def compensations(store: Store) -> tuple[CompensationRegistry, Compensation[[str]]]:
    """Return the undo actions of a database, under a name that is valid for this database alone.

    A journal may have undo actions for another database: these are unknown here, and so deferred.
    """
    registry = CompensationRegistry()

    @registry.compensation(f"delete-batch from {store.place}", retry=RetryPolicy(attempts=3))
    async def delete_batch(batch_id: str) -> None:
        await store.delete(batch_id)

    return registry, delete_batch


async def recovered(
    journal: RecoverableJournal, store: Store, say: Callable[[str], None]
) -> list[str]:
    """Delete the windows that were being written when a run was killed; return the problems.

    Raises:
        JournalError: The journal cannot be read or written.
    """
    registry, _ = compensations(store)
    reports = await recover(journal, registry)
    if done := sum(len(report.done) for report in reports):
        say(f"{journal}: windows of a killed run that were not complete, now deleted: {done}")
    if deferred := sum(len(report.deferred) for report in reports):
        say(f"{journal}: windows of other databases, left alone: {deferred}")
    stuck = [entry for report in reports for entry in report.stuck]
    return [f"a window of a killed run is not undone: {entry.error}" for entry in stuck]


async def run_batches(
    source: Source,
    store: Store,
    tally: Tally,
    options: Options,
    stop: asyncio.Event,
    say: Callable[[str], None],
    journal: Journal | None = None,
    view: LiveView | None = None,
) -> Result[int, StoreError]:
    """Read, validate, and write in windows, to the end of the input or until ``stop`` is set.

    A window that cannot be written is rolled back and becomes dead letters, so that every line is
    in one of the two tables. If that fails, the run ends. With a journal, the undo of each window
    is recorded before the window is written, for the next run in case this one is killed.
    """
    _, delete_batch = compensations(store)

    @future_safe(exceptions=(WriteFailed,))
    async def persist(window: Window, step: StepContext) -> Window:
        await step.register(delete_batch, window.batch_id)  # on record before the effect
        batch = window.written(tally.run_id)
        if window.number == options.fail_at:
            batch = spoilt(batch)
        try:
            await store.write(batch)
        except StoreError as error:
            raise WriteFailed(window, error) from error
        if window.number == options.crash_at:
            os.kill(os.getpid(), signal.SIGKILL)  # it is written, and not committed
        return window

    async def set_aside(failed: WriteFailed) -> Result[Window, StoreError]:
        # It has been rolled back by now.
        if ctx.report.failures:
            return Failure(StoreError(f"{failed.cause}; and the batch could not be deleted"))
        window = failed.window
        try:
            await store.write(window.set_aside(tally.run_id, "write failed", str(failed.cause)))
        except StoreError as error:
            return Failure(error)
        tally.rolled_back(window)
        say(f"window {window.number}: {failed.cause}: rolled back, {len(window)} dead letters")
        return Success(window)

    lines = ResultStream.from_batches(source).drain_on(stop)
    records = lines.tap(tally.saw).bind(source.parse)
    async with StepContext("flight-batcher", journal=journal) as ctx:
        batches = (
            windowed(records, source, tally, options)
            .tap(lambda window: tell_nonsense(window, tally, say))
            .bind_step(persist, ctx)
            .tap(tally.wrote)
            .lash_async(set_aside)
        )
        if view is not None:
            batches = view.watch(batches)
        return await to_result(ctx.run(batches.run()))


def tell_nonsense(window: Window, tally: Tally, say: Callable[[str], None]) -> None:
    """Print the first twenty invalid lines. The table has all of them."""
    for letter in window.rejected:
        if letter.reason in NONSENSE and tally.printed < 20:
            tally.printed += 1
            say(f"line {letter.line}: {letter.reason}: {letter.detail}")


def spoilt(batch: Batch) -> Batch:
    """Return a batch that repeats its first row halfway, where the database refuses it."""
    rows = list(batch.flights or batch.dead_letters)
    rows.insert(len(rows) // 2 + 1, rows[0])
    return batch._replace(flights=rows) if batch.flights else batch._replace(dead_letters=rows)


async def abandon(source: Source, store: Store, tally: Tally) -> None:
    """Make dead letters of lines that were read and not written: the run was stopped at once."""
    if tally.under_way is not None:  # its outcome is not known
        await store.delete(tally.under_way.batch_id)
    if tally.unsettled:
        window = tally.open(
            [source.parse(line) for line in tally.unsettled.values()], 0, ended=True
        )
        await store.write(window.set_aside(tally.run_id, "interrupted", "the run was stopped"))
        tally.rolled_back(window)


async def run(options: Options) -> int:
    """Carry out the command line, and return the exit status.

    Raises:
        SourceError: The input cannot be opened.
        StoreError: The database cannot be opened.
        JournalError: The journal cannot be opened.
    """
    if options.input is None:
        source = departures(by_calendar=options.event_time is not None)
    else:
        source = json_lines(options.input)
    source.rate, source.limit = options.rate, options.limit
    out, err = Console(), Console(stderr=True)

    def say(text: str) -> None:
        with suppress(OSError):
            err.print(text, markup=False, highlight=False, soft_wrap=True)

    view = LiveView(err) if options.live else None
    async with AsyncExitStack() as opened:
        if view is not None:
            opened.enter_context(view)
        keeping = open_store(options.database, durable=options.journal is not None)
        store = await opened.enter_async_context(keeping)
        journal: KeptJournal | None = None
        left: list[str] = []
        if options.journal is not None:
            journal = await opened.enter_async_context(open_journal(options.journal))
            left = await recovered(journal, store, say)
        tally = Tally()
        stop = asyncio.Event()
        work = asyncio.create_task(
            run_batches(source, store, tally, options, stop, say, journal, view)
        )
        screen = None if view else asyncio.create_task(show_progress(err, source, tally))
        with interrupts(stop, work, say) as received:
            await asyncio.wait({work})
        if screen is not None:
            screen.cancel()
            await asyncio.wait({screen})
        problems = left + await settle_accounts(work, source, store, tally)
    tell(options, tally, problems, out, say)
    if problems:
        return FAILED
    return INTERRUPTED + received[0] if received else DONE


def tell(
    options: Options, tally: Tally, problems: list[str], out: Console, say: Callable[[str], None]
) -> None:
    """Print what there is to say at the end: problems, a chart, the summary."""
    if options.fail_at is not None and tally.windows.total() < options.fail_at:
        say(f"window {options.fail_at} was never reached: nothing failed")
    if options.crash_at is not None:
        say(f"window {options.crash_at} was never reached: nothing crashed")
    for problem in problems:
        say(f"flight_batcher.py: {problem}")
    show_departures(out, tally.by_hour)
    out.print(summary(tally, plain=not out.is_terminal))
    for line in () if problems else queries(options.database, tally):
        # The terminal wraps it: a line that rich has broken cannot be pasted.
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def queries(database: str, tally: Tally) -> list[str]:
    """Return commands that count what this run has written, each after the answer to expect."""
    _, is_server, server = database.partition("://")
    shown = f"postgresql://{server.rpartition('@')[2].partition('?')[0]}"  # without a password
    at = shlex.quote(shown if is_server else database)
    answers = {"flights": tally.written, "dead_letters": tally.dead_letters}
    of_run = f"batch_id LIKE '{tally.run_id}/%'"
    command = f"psql {at} -tc" if is_server else f"sqlite3 {at}"
    lines: list[str] = []
    for table, answer in answers.items():
        lines.append(f"rows of this run in {table}: {answer}")
        lines.append(f'{command} "SELECT count(*) FROM {table} WHERE {of_run}"')
    return lines


async def settle_accounts(
    work: asyncio.Task[Result[int, StoreError]], source: Source, store: Store, tally: Tally
) -> list[str]:
    """Account for every line at the end of the work, and print what went wrong."""
    problems: list[str] = []
    try:
        if work.cancelled():
            async with asyncio.timeout(10):
                await abandon(source, store, tally)
        elif isinstance(result := work.result(), Failure):
            problems.append(f"the database failed: {result.failure()}")
    except JournalError as error:
        problems.append(f"the journal failed: {error}")
    except StoreError as error:
        problems.append(f"the database failed: {error}")
    except TimeoutError:
        problems.append("the database does not answer")
        return problems
    try:
        if source.error is not None:
            problems.append(f"the input failed: {source.error.strerror}")
        flights, dead_letters = await store.count(tally.run_id)
        if flights + dead_letters != tally.read:
            problems.append(
                f"{flights} flights and {dead_letters} dead letters are not {tally.read} lines read"
            )
    except StoreError as error:
        problems.append(f"the database failed: {error}")
    return problems


@contextmanager
def interrupts(
    stop: asyncio.Event, work: asyncio.Task[object], say: Callable[[str], None]
) -> Generator[list[int], None, None]:
    """Make Ctrl-C, or a termination, end the work: gently at first, the second time at once."""
    loop = asyncio.get_running_loop()
    received: list[int] = []

    def restore() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    def on_signal(number: int) -> None:
        received.append(number)
        if len(received) == 1:
            stop.set()
            say("stopping: what was read is written; again, and it is abandoned")
        else:
            say("stopping at once: the window under way is rolled back")
            work.cancel()
            restore()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield received
    finally:
        restore()


DESCRIPTION = """\
Write the 336,776 flights that left New York City in 2013, or lines of your own, to a database:
in windows of 500 records or 2 seconds, each of them completely or not at all.
"""

EPILOG = """\
Every line that is read becomes a row: of the table "flights" if it is a valid record, otherwise of
"dead_letters", with its number, the reason, and its text. A window that cannot be written is rolled
back, and its records become dead letters. The table "batches" has a row for each window. If the
database exists, rows are added under the id of a new run, with which each batch_id begins.

With --by, each carrier or airport has a window of its own, and so have the invalid records.

With --event-time, an airport's flights are counted by the time for which they were scheduled, in
whatever order they arrive. The count of an hour is final, and becomes a row of the table
"departures", once a flight arrives that is --out-of-order later than the end of that hour. A flight
of that hour that arrives afterwards is a dead letter, "late". The hours of a window are written
with their flights, completely or not at all: the sum of departures.flights is the number of
flights. A chart is shown at the end. The months of 2013 are then read in calendar order; in the
file they are in the order of their names.

With --journal, the undo of a window is recorded there before the window is written. If the program
is killed, or the machine fails, the next run with the same journal and database deletes the
incomplete window, and says so. Its lines have to be read again. --crash-at shows it: the program
kills itself when a window is written and not yet committed.

A line of --input is a JSON object like this one; its other fields are ignored:
  {"year": 2013, "month": 1, "day": 1, "carrier": "UA", "flight": 1545, "tailnum": "N14228",
   "origin": "EWR", "dest": "IAH", "distance": 1400, "hour": 5, "minute": 15,
   "time_hour": "2013-01-01T10:00:00Z", "sched_dep_time": 515, "sched_arr_time": 819,
   "dep_time": 517, "dep_delay": 2, "arr_time": 830, "arr_delay": 11, "air_time": 227}
(on one line). A flight without a departure time was cancelled: that is a dead letter, too. The
payload of a dead letter that is not a malformed line can be corrected and read again.

Ctrl-C ends the reading: what was read is written, the summary printed. A second Ctrl-C rolls back
the window that is being written, and makes dead letters of the other lines that were read.

exit status:
  0    everything was read, and each line is in one of the two tables (the summary says in which)
  1    the input, database or journal failed on the way; the summary says what is in no table
  2    wrong arguments, or one of the three cannot be opened: nothing was done
  130  ended by Ctrl-C (143: by a termination); like 0 for the lines that were read

examples:
  flight_batcher.py                                        into flights.db, as fast as possible
  flight_batcher.py --rate 100                             so that windows are closed by time
  flight_batcher.py --live                                 watch it: rates, windows, failures
  flight_batcher.py --limit 5000 --fail-at 3               see the third window rolled back
  flight_batcher.py --by carrier --seconds 5               windows of one carrier each
  flight_batcher.py --event-time 1h                        departures by hour, and a chart
  flight_batcher.py --event-time 1h --out-of-order 6h      many of them arrive too late
  flight_batcher.py --journal flights.journal --crash-at 3 die in a window; then start it again
  flight_batcher.py --database postgresql://localhost/test
  tail -f events.jsonl | flight_batcher.py --input -
"""


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line."""

    def error(self, message: str) -> NoReturn:
        """Leave with status 2."""
        self.exit(REFUSED, f"{self.prog}: {message} (--help says more)\n")


def whole_number(text: str) -> int:
    """Read a count."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number


def positive_number(text: str) -> float:
    """Read a rate or a time."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def duration(text: str) -> int:
    """Read a time such as 1h, 30m, 90s or 1h30m, in seconds."""
    parts = re.fullmatch(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?", text)
    if not text or parts is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 1h, 30m or 90s")
    hours, minutes, seconds = [int(part or 0) for part in parts.groups()]
    total = 3600 * hours + 60 * minutes + seconds
    if total > MAX_DURATION:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than a year")
    return total


def window_of_time(text: str) -> int:
    """Read the size of windows of event time."""
    if not (seconds := duration(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration")
    return seconds


def parse_options(arguments: Sequence[str] | None) -> Options:
    """Read the command line; leave with status 2 if it is wrong."""
    parser = Parser(
        prog="flight_batcher.py",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--database", metavar="FILE|URL", help="a file for SQLite, or postgresql://... (flights.db)"
    )
    add("--input", metavar="FILE.jsonl", help="read this file, or - for the standard input")
    add("--journal", metavar="FILE|URL", help="keep on record there what to undo if it is killed")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        "--by", choices=get_args(By), help="a window for each carrier or airport at a time"
    )
    kinds.add_argument(
        "--event-time",
        type=window_of_time,
        metavar="TIME",
        help="count each airport's departures by scheduled time, per 1h, 30m, 90s, ...",
    )
    add(
        "--out-of-order",
        type=duration,
        metavar="TIME",
        help="how much later than newer flights one may arrive before it counts as late (19h)",
    )
    add("--rate", type=positive_number, metavar="N", help="read at most N lines a second")
    add("--limit", type=whole_number, metavar="N", help="stop after N lines")
    add("--live", action="store_true", help="show a live view of the pipeline, not a bar")
    add("--fail-at", type=whole_number, metavar="N", help="make the N-th window fail half-way")
    add("--crash-at", type=whole_number, metavar="N", help="die in the N-th window, as by kill -9")
    add("--size", type=whole_number, metavar="N", help="records in a full window (500)")
    add("--seconds", type=positive_number, metavar="S", help="a window's longest time (2)")
    given = vars(parser.parse_args(arguments))
    if given["out_of_order"] is not None and given["event_time"] is None:
        parser.error("--out-of-order says something of --event-time only")
    if given["crash_at"] is not None and given["journal"] is None:
        parser.error("--crash-at shows what --journal is for: give both")
    return Options(**{name: value for name, value in given.items() if value is not None})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program, and return the exit status."""
    options = parse_options(arguments)
    try:
        return asyncio.run(run(options))
    except (SourceError, StoreError, JournalError) as error:
        print(f"flight_batcher.py: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED + signal.SIGINT
    except BrokenPipeError:  # no reader is left; Python must not try again at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
