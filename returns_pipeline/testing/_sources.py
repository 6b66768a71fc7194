"""Sources that play a script, and the recorder that reads one back.

A script says what comes and when, so that a test of a stream needs neither queues nor sleeps::

    assert await timeline(chunks_or_timeout(script("ab--c|"), 10, 3.0)) == [
        (3.0, ["a", "b"]),
        (5.0, ["c"]),
    ]

`timed` is paced by its reader: it waits when it is asked. `script` is paced by the clock: what is
due is given at once to a reader that comes late.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from returns_pipeline._engine.operator import plain_iterator
from returns_pipeline._engine.reader import notify
from returns_pipeline.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping, Sequence

__all__ = ["ScriptError", "Scripted", "Wait", "script", "timed", "timeline"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
X = TypeVar("X", bound=BaseException)


class ScriptError(Exception):
    """What `script` raises at a ``#`` when it was not told what to raise."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A pause in a `timed` source.

    Attributes:
        seconds: How long, at least 0; ``math.inf`` for ever.

    Raises:
        InvalidArgument: At the call, if ``seconds`` is out of range.
    """

    seconds: float

    def __post_init__(self) -> None:
        if not self.seconds >= 0:
            raise InvalidArgument(f"seconds must be at least 0, not {self.seconds!r}")


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
    """An async iterable that plays the same steps to everyone who iterates it.

    Each iteration is an async generator, with all that this means: it belongs to the task that
    steps it, and a read that is cancelled ends it.

    Attributes:
        opened: Iterations begun, that is: asked for their first item.
        reads: Items asked for, in all iterations together.
        given: Items handed out, in all iterations together.
        closed: Iterations over, for whatever reason: read to the end, failed, closed early by
            ``aclose()``, or cancelled. Equal to ``opened`` when none is left open.
        cancelled: Iterations that a cancellation struck while they waited.
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
    # Not a sleep: its delay would have to be computed, and its end could miss the time by a hair.
    if when > loop.time():
        due = loop.create_future()
        timer = loop.call_at(when, notify, due) if when < math.inf else None
        try:
            await due
        finally:
            if timer is not None:
                timer.cancel()


def timed(*steps: T | Wait | BaseException) -> Scripted[T]:
    """Give the items in order, with pauses between them, as fast as they are asked for.

    1. An item is given when it is asked for.
    2. A `Wait` lets its seconds pass first, counted from the moment the next item is asked for:
       a slow reader delays everything behind it.
    3. An exception is raised in its place, and is the last step.
    4. After the last step the source ends.

    It can be iterated again, from the start. See `Scripted` for what it counts.

    Args:
        steps: Items, `Wait`s, and at the end possibly an exception.

    Raises:
        InvalidArgument: At the call, if something stands behind an exception.

    >>> from returns_pipeline.testing import run
    >>> run(timeline(timed("a", Wait(1), "b", Wait(60), "c")))
    [(0.0, 'a'), (1.0, 'b'), (61.0, 'c')]
    """
    played: list[_Step[T]] = []
    for place, step in enumerate(steps, 1):
        if isinstance(step, Wait):
            played.append(step)
        elif isinstance(step, BaseException):
            if place < len(steps):
                raise InvalidArgument(f"nothing can come after {step!r}, it ends the source")
            played.append(_Raise(step))
        else:
            played.append(_Item(step))
    return Scripted(played, f"timed({', '.join(map(repr, steps))})")


@overload
def script(
    marbles: str, *, step: float = 1.0, error: BaseException | None = None
) -> Scripted[str]: ...


@overload
def script(
    marbles: str,
    *,
    step: float = 1.0,
    values: Mapping[str, T],
    error: BaseException | None = None,
) -> Scripted[T]: ...


def script(
    marbles: str,
    *,
    step: float = 1.0,
    values: Mapping[str, object] | None = None,
    error: BaseException | None = None,
) -> Scripted[str] | Scripted[object]:
    """Give items at the times their places in a marble diagram say.

    Each character stands for one step of time. The first one's time is 0, the moment the source is
    asked for its first item; the next one's is ``step`` seconds later, and so on.

    ======  =====================================================================================
    letter  at its time the item comes: the letter (or digit) itself, or what ``values`` has for it
    ``-``   nothing comes
    ``(ab)``  all that is in the brackets comes at one time, and takes one step together
    ``|``   the source ends
    ``#``   the source raises ``error``
    space   nothing, and it takes no time: for lining diagrams up
    ======  =====================================================================================

    So in ``"ab--c|"`` the letters come at 0, 1 and 4 seconds and the end at 5. Without ``|`` or
    ``#`` the source stays silent after its last character, for ever.

    The times are fixed when the source is opened: a reader that asks late gets at once what was
    due, and the following items come at their own times. It can be iterated again, from the start.
    See `Scripted` for what it counts.

    Args:
        marbles: The diagram.
        step: Seconds that each character takes, above 0.
        values: The items by their characters; every character that is not a sign must be there.
        error: What ``#`` raises; a `ScriptError` if not given.

    Raises:
        InvalidArgument: At the call, if the diagram cannot be read or ``step`` is out of range.

    >>> from returns_pipeline.testing import run
    >>> run(timeline(script("ab--c|", step=0.5)))
    [(0.0, 'a'), (0.5, 'b'), (2.0, 'c')]
    >>> run(timeline(script("--(ab)a|", values={"a": 1, "b": 2})))
    [(2.0, 1), (2.0, 2), (3.0, 1)]
    """
    if not 0 < step < math.inf:
        raise InvalidArgument(f"step must be above 0 seconds and finite, not {step!r}")
    failure = ScriptError(marbles) if error is None else error
    steps: list[_Step[object]] = []
    ended = False
    for place, signs in enumerate(_instants(marbles)):
        if ended:
            raise InvalidArgument(f"{marbles!r} goes on after its end")
        if signs == "-":
            continue
        steps.append(_Until(place * step))
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
        raise InvalidArgument(f"{marbles!r} has a {sign!r} that stands for nothing there")
    return values[sign]


def _instants(marbles: str) -> Iterator[str]:
    """Give the signs that share one time: one by one, or the content of a bracket."""
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
            raise InvalidArgument(f"{marbles!r} has a {sign!r} that does not belong there")
        elif group is None:
            yield sign
        else:
            group += sign
    if group is not None:
        raise InvalidArgument(f"{marbles!r} has a '(' that is not closed")


@overload
async def timeline(
    source: AsyncIterable[T], *, limit: int | None = None, pause: float = 0.0
) -> list[tuple[float, T]]: ...


@overload
async def timeline(
    source: AsyncIterable[T],
    *,
    limit: int | None = None,
    pause: float = 0.0,
    error: type[X],
) -> list[tuple[float, T | X]]: ...


async def timeline(
    source: AsyncIterable[object],
    *,
    limit: int | None = None,
    pause: float = 0.0,
    error: type[BaseException] | None = None,
) -> list[tuple[float, Any]]:  # exact in the overloads; a list of a union fits neither
    """Read a source to its end, and give each item with the time it came at.

    Times are in seconds since the call, on the running loop's clock. The source is closed before
    this returns.

    Args:
        source: Read one item at a time.
        limit: Stop after this many items.
        pause: Seconds that the reader takes for each item before it asks for the next: a slow one.
        error: An exception of this class is not raised but is the last entry, with its time.

    Raises:
        InvalidArgument: If ``limit`` or ``pause`` is out of range.
        BaseException: What the source raised, unless it is an ``error``.

    >>> from returns_pipeline.testing import run
    >>> run(timeline(script("a-b#"), error=ScriptError))
    [(0.0, 'a'), (2.0, 'b'), (3.0, ScriptError('a-b#'))]
    """
    if limit is not None and limit < 1:
        raise InvalidArgument(f"limit must be at least 1, not {limit!r}")
    if not 0 <= pause < math.inf:
        raise InvalidArgument(f"pause must be at least 0 seconds and finite, not {pause!r}")
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
