"""`from_iterable`: a stream of a list, a generator or any other plain iterable."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable, Iterator
from typing import Generic, TypeVar, cast

from aiostream import Stream

from returns_pipeline._engine.budget import Budget
from returns_pipeline._engine.calls import recorded
from returns_pipeline._engine.operator import Repeatable

__all__ = ["check_iterable", "close_generator", "from_iterable"]

T = TypeVar("T")


@recorded
def from_iterable(iterable: Iterable[T]) -> Stream[T]:
    """Emit the items of a plain iterable, such as a list, a range or a generator.

    1. An item is emitted when it is requested; nothing is read ahead.
    2. The stream ends, or fails, when the iterable does.

    The iterable runs in the event loop: one whose ``next()`` blocks belongs in `from_thread`. Other
    tasks get a turn now and then, even if the reader never waits.

    The stream can be read again if the iterable can. A generator continues where it is; when the
    stream is closed, or its reading has ended, so is the generator.

    Cancel safety: a cancelled read loses nothing; the next read continues where it was.

    Known elsewhere as: ``iterate`` (aiostream), ``Stream.emits`` (fs2), ``from`` (Rx),
    ``Source(iterable)`` (Akka and Pekko).

    Args:
        iterable: Iterated again for each reading.

    Returns:
        A stream of its items.

    Raises:
        TypeError: At the call, if ``iterable`` is not iterable, or is an async iterable.
        Exception: Any exception of the iterable.

    >>> from returns_pipeline import ResultStream
    >>> from returns_pipeline.testing import run
    >>> run(ResultStream.of(from_iterable([1, 2])).map(lambda n: n + 1).collect())
    <IOResult: <Success: [2, 3]>>
    """
    check_iterable(iterable)
    return Repeatable(lambda: _IterableReader(iterable))


def check_iterable(iterable: object) -> None:
    """Refuse what is not iterable.

    Raises:
        TypeError: It is not, or it is an async iterable.
    """
    if hasattr(iterable, "__aiter__"):
        raise TypeError(f"{type(iterable).__name__!r} is an async iterable: use it as it is")
    # A class with nothing but ``__getitem__`` is iterable, too.
    if not (hasattr(iterable, "__iter__") or hasattr(iterable, "__getitem__")):
        raise TypeError(f"expected an iterable, not {type(iterable).__name__!r}")


def close_generator(iterator: Iterator[object] | None) -> None:
    """Close an iterator that has a clean-up: a generator. A file stays open: it is its owner's."""
    if isinstance(iterator, Generator):
        cast("Generator[object]", iterator).close()


def _begin(iterable: Iterable[T]) -> Iterator[T]:
    try:
        return iter(iterable)
    except StopIteration as error:  # it would look like a clean end
        raise RuntimeError("the iterable raised StopIteration") from error


class _IterableReader(Generic[T]):
    """Not an async generator: one that is cancelled once has ended for good."""

    __slots__ = ("_budget", "_iterable", "_iterator")

    def __init__(self, iterable: Iterable[T]) -> None:
        self._iterable: Iterable[T] | None = iterable  # None: it was closed, or has ended
        self._iterator: Iterator[T] | None = None
        self._budget: Budget | None = None

    def __aiter__(self) -> _IterableReader[T]:
        return self

    async def __anext__(self) -> T:
        if self._iterable is None:
            raise StopAsyncIteration
        if self._budget is None:
            self._budget = Budget(asyncio.get_running_loop())
        elif self._budget.spend():
            await self._budget.renew()
        try:
            if self._iterator is None:
                self._iterator = _begin(self._iterable)
            return next(self._iterator)
        except StopIteration:
            self._iterable = None
            raise StopAsyncIteration from None
        except StopAsyncIteration as error:  # it would look like a clean end
            self._iterable = None
            raise RuntimeError("the iterable raised StopAsyncIteration") from error
        except BaseException:
            self._iterable = None
            raise

    async def aclose(self) -> None:
        """Close the generator, if it is one."""
        self._iterable = None
        close_generator(self._iterator)
