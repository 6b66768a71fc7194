"""Sources that play a script, and the recorder that reads one back.

A script lists items and times, so that a test of a stream needs neither queues nor sleeps::

    assert await timeline(chunks_or_timeout(script("ab--c|"), 10, 3.0)) == [
        (3.0, ["a", "b"]),
        (5.0, ["c"]),
    ]

`timed` is paced by its reader: a pause begins when the next item is requested. `script` is paced by
the clock: a late reader gets all items that were due at once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

from returns_pipeline._engine import checks
from returns_pipeline._engine.operator import plain_iterator
from returns_pipeline._engine.reader import notify
from returns_pipeline.errors import InvalidArgument

__all__ = ["ScriptError", "Scripted", "Wait", "script", "timed", "timeline"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
X = TypeVar("X", bound=BaseException)


class ScriptError(Exception):
    """Raised by `script` at a ``#`` if no other error was passed.

    >>> from returns_pipeline.testing import run
    >>> try:
    ...     run(timeline(script("a#")))
    ... except ScriptError:
    ...     print("failed, as scripted")
    failed, as scripted
    """


@dataclass(frozen=True, slots=True, init=False)
class Wait:
    """A pause in a `timed` source.

    Attributes:
        seconds: How long, at least 0; ``math.inf`` forever.

    Raises:
        InvalidArgument: At the call, if ``seconds`` is out of range.

    >>> from returns_pipeline.testing import run, timed, timeline
    >>> run(timeline(timed("a", Wait(60.0), "b")))
    [(0.0, 'a'), (60.0, 'b')]
    """

    seconds: float

    def __init__(self, seconds: checks.Seconds) -> None:
        object.__setattr__(self, "seconds", checks.seconds("seconds", seconds, zero=True))


@dataclass(frozen=True, slots=True)
class _Until:
    """A pause up to a time, in seconds since the source was opened."""

    seconds: float


@dataclass(frozen=True, slots=True)
class _Item(Generic[T_co]):
    value: T_co


@dataclass(frozen=True, slots=True)
class _Raise:
    error: BaseException


_Step = Wait | _Until | _Item[T] | _Raise


class Scripted(Generic[T_co]):
    """An async iterable that plays the same steps in every iteration.

    Each iteration is an async generator: it belongs to the task that steps it, and a read that is
    cancelled ends it.

    Attributes:
        opened: Iterations that were begun, that is, whose first item was requested.
        reads: Items that were requested, in all iterations together.
        given: Items that were emitted, in all iterations together.
        closed: Iterations that ended, in any way: read to the end, failed, closed early by
            ``aclose()``, or cancelled. Equal to ``opened`` when none is left open.
        cancelled: Iterations that were cancelled while they waited.

    >>> from returns_pipeline.testing import run
    >>> source = script("ab|")
    >>> run(timeline(source))
    [(0.0, 'a'), (1.0, 'b')]
    >>> source.opened, source.given, source.closed
    (1, 2, 1)
    """

    def __init__(self, steps: Sequence[_Step[T_co]], text: str) -> None:
        self._steps = steps
        self._text = text
        self.opened: int = 0
        self.reads: int = 0
        self.given: int = 0
        self.closed: int = 0
        self.cancelled: int = 0

    def __repr__(self) -> str:
        return self._text

    def __aiter__(self) -> AsyncGenerator[T_co, None]:  # noqa: PYI058  # readers want aclose()
        return self._play()

    async def _play(self) -> AsyncGenerator[T_co, None]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        self.opened += 1
        self.reads += 1
        try:
            for step in self._steps:
                match step:
                    case Wait(seconds):
                        await _until(loop, loop.time() + seconds)
                    case _Until(seconds):
                        await _until(loop, started + seconds)
                    case _Raise(error):
                        raise error
                    case _Item(value):
                        self.given += 1
                        yield value
                        self.reads += 1
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.closed += 1


async def _until(loop: asyncio.AbstractEventLoop, when: float) -> None:
    # Not a sleep: its delay would have to be computed, and rounding could miss the exact time.
    if when > loop.time():
        due = loop.create_future()
        timer = loop.call_at(when, notify, due) if when < math.inf else None
        try:
            await due
        finally:
            if timer is not None:
                timer.cancel()


def timed(*steps: T | Wait | BaseException) -> Scripted[T]:
    """Emit the items in order, as soon as each is requested, with pauses between them.

    1. An item is emitted when it is requested.
    2. A `Wait` delays the next item by its seconds, counted from the moment that item is requested.
       So a slow reader delays everything that follows.
    3. An exception is raised in its place, and is the last step.
    4. After the last step the source ends.

    It can be iterated again, from the start. See `Scripted` for what it counts.

    Args:
        steps: Items, `Wait` objects, and at the end possibly an exception.

    Raises:
        InvalidArgument: At the call, if anything follows an exception.

    >>> from returns_pipeline.testing import run
    >>> run(timeline(timed("a", Wait(1), "b", Wait(60), "c")))
    [(0.0, 'a'), (1.0, 'b'), (61.0, 'c')]
    """
    played: list[_Step[T]] = []
    for number, step in enumerate(steps, 1):
        if isinstance(step, Wait):
            played.append(step)
        elif isinstance(step, BaseException):
            if number < len(steps):
                raise InvalidArgument(f"nothing can follow {step!r}: it ends the source")
            played.append(_Raise(step))
        else:
            played.append(_Item(step))
    return Scripted(played, f"timed({', '.join(map(repr, steps))})")


@overload
def script(
    marbles: str, *, step: checks.Seconds = 1.0, error: BaseException | None = None
) -> Scripted[str]: ...


@overload
def script(
    marbles: str,
    *,
    step: checks.Seconds = 1.0,
    values: Mapping[str, T],
    error: BaseException | None = None,
) -> Scripted[T]: ...


def script(
    marbles: str,
    *,
    step: checks.Seconds = 1.0,
    values: Mapping[str, object] | None = None,
    error: BaseException | None = None,
) -> Scripted[str] | Scripted[object]:
    """Emit items at the times that their positions in a marble diagram stand for.

    Each character stands for one step of time. The first one's time is 0, the moment at which the
    first item is requested; the next one's is ``step`` seconds later, and so on.

    ========  ===================================================================================
    letter    an item is emitted: the letter (or digit) itself, or its value in ``values``
    ``-``     nothing happens
    ``(ab)``  all items in the brackets are emitted at one time, and take one step together
    ``|``     the source ends
    ``#``     the source raises ``error``
    space     nothing, and it takes no time: for aligning diagrams
    ========  ===================================================================================

    So in ``"ab--c|"`` the letters are emitted at 0, 1 and 4 seconds, and the source ends at 5.
    Without ``|`` or ``#`` the source stays silent after its last character, forever.

    The times are fixed when the source is opened: a late reader gets all items that were due at
    once, and the later items at their own times. The source can be iterated again, from the start.
    `Scripted` counts items and iterations.

    Args:
        marbles: The diagram.
        step: Seconds that each character takes, above 0.
        values: The items by their characters. Every character that has no meaning of its own must
            be in it.
        error: The exception that ``#`` raises; by default a `ScriptError`.

    Raises:
        InvalidArgument: At the call, if the diagram cannot be read or ``step`` is out of range.

    >>> from returns_pipeline.testing import run
    >>> run(timeline(script("ab--c|", step=0.5)))
    [(0.0, 'a'), (0.5, 'b'), (2.0, 'c')]
    >>> run(timeline(script("--(ab)a|", values={"a": 1, "b": 2})))
    [(2.0, 1), (2.0, 2), (3.0, 1)]
    """
    step = checks.seconds("step", step, finite=True)
    failure = ScriptError(marbles) if error is None else error
    steps: list[_Step[object]] = []
    ended = False
    for position, signs in enumerate(_instants(marbles)):
        if ended:
            raise InvalidArgument(f"{marbles!r} continues after its end")
        if signs == "-":
            continue
        steps.append(_Until(position * step))
        ended = signs[-1] in "|#"
        for sign in signs[:-1] if ended else signs:
            steps.append(_Item(_item(marbles, sign, values)))
        if signs[-1] == "#":
            steps.append(_Raise(failure))
    if not ended:
        steps.append(Wait(math.inf))
    return Scripted(steps, f"script({marbles!r})")


def _item(marbles: str, sign: str, values: Mapping[str, object] | None) -> object:
    if values is None and sign.isalnum():
        return sign
    if values is None or sign not in values or sign in "|#":
        raise InvalidArgument(f"{marbles!r} has a {sign!r} without a meaning there")
    return values[sign]


def _instants(marbles: str) -> Iterator[str]:
    """Yield the signs that share one time: a single one, or the content of a pair of brackets."""
    group: str | None = None
    for sign in marbles:
        if sign == " ":
            continue
        if sign == "(" and group is None:
            group = ""
        elif sign == ")" and group:
            yield group
            group = None
        elif sign in "()" or (sign == "-" and group is not None):
            raise InvalidArgument(f"{marbles!r} has a misplaced {sign!r}")
        elif group is None:
            yield sign
        else:
            group += sign
    if group is not None:
        raise InvalidArgument(f"{marbles!r} has a '(' that is not closed")


@overload
async def timeline(
    source: AsyncIterable[T], *, limit: int | None = None, pause: checks.Seconds = 0.0
) -> list[tuple[float, T]]: ...


@overload
async def timeline(
    source: AsyncIterable[T],
    *,
    limit: int | None = None,
    pause: checks.Seconds = 0.0,
    error: type[X],
) -> list[tuple[float, T | X]]: ...


async def timeline(
    source: AsyncIterable[object],
    *,
    limit: int | None = None,
    pause: checks.Seconds = 0.0,
    error: type[BaseException] | None = None,
) -> list[tuple[float, Any]]:  # the overloads are exact; a list of a union fits neither
    """Read a source to its end, and return each item with the time at which it arrived.

    Times are in seconds since the call, on the running loop's clock. The source is closed before
    this returns.

    Args:
        source: Read one item at a time.
        limit: Stop after this many items.
        pause: Seconds to wait after each item before the next is requested, as a slow reader does.
        error: An exception of this class is not raised but becomes the last entry, with its time.

    Raises:
        InvalidArgument: If ``limit`` or ``pause`` is out of range.
        BaseException: Any exception of the source, unless it is an ``error``.

    >>> from returns_pipeline.testing import run
    >>> run(timeline(script("a-b#"), error=ScriptError))
    [(0.0, 'a'), (2.0, 'b'), (3.0, ScriptError('a-b#'))]
    """
    limit = None if limit is None else checks.count("limit", limit)
    pause = checks.seconds("pause", pause, zero=True, finite=True)
    loop = asyncio.get_running_loop()
    started = loop.time()
    seen: list[tuple[float, object]] = []
    try:
        async with plain_iterator(source) as items:
            async for item in items:
                seen.append((loop.time() - started, item))
                if len(seen) == limit:
                    break
                if pause:
                    await asyncio.sleep(pause)
    except BaseException as raised:
        if error is None or not isinstance(raised, error):
            raise
        seen.append((loop.time() - started, raised))
    return seen
