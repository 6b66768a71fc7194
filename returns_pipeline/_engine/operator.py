"""The base class of operators, the streams they return, and how they open a source."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from types import AsyncGeneratorType
from typing import Any, Final, Generic, TypeVar

from aiostream import Stream
from aiostream.core import Streamer

from returns_pipeline._engine.reader import Reader
from returns_pipeline._engine.task_owner import shielded_clean_up

__all__ = [
    "NO_SOURCE",
    "ClosableStream",
    "OpenIterator",
    "Operator",
    "QuickStreamer",
    "ReadOnce",
    "Repeatable",
    "leave_unread",
    "open_iterator",
    "plain_iterator",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Operator(ABC):
    """An aiostream operator, in its three forms.

    - ``op(source, ...)`` returns an `aiostream.Stream`: repeatable when its source is.
    - ``source | op.pipe(...)`` does the same.
    - ``op.raw(source, ...)`` returns the bare iterator, to be read once and closed by the reader.

    Each operator is the one instance of a class of its own, which spells out the three signatures:
    that is what type checkers and editors read. (aiostream derives them from a function; mypy loses
    the type variables there, python/mypy#17191, and editors show no parameters.) `raw` does the
    work, and checks the arguments; it must do nothing else before the first item is requested. The
    other two are derived by `_stream` and `_piped`.

    Args:
        path: The dotted name under which users import it.
    """

    __name__: str

    def __init__(self, path: str) -> None:
        functools.update_wrapper(self, self.__call__)
        self.__module__, _, self.__name__ = path.rpartition(".")
        self.__qualname__ = self.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Apply the operator to a source."""
        return self._stream(*args, **kwargs)

    def pipe(self, *args: Any, **kwargs: Any) -> Any:
        """Take the operator's own arguments; the source comes through ``|``."""
        return self._piped(*args, **kwargs)

    @abstractmethod
    def raw(self, *args: Any, **kwargs: Any) -> Any:
        """Do as a call, but return the bare iterator, to be read once and closed by the reader."""

    def _stream(self, *args: Any, **kwargs: Any) -> Stream[Any]:
        return Repeatable(functools.partial(self.raw, *args, **kwargs))

    def _piped(self, *args: Any, **kwargs: Any) -> Callable[[AsyncIterable[Any]], Stream[Any]]:
        _ = self.raw(NO_SOURCE, *args, **kwargs)  # a bad argument is refused here, too
        return lambda source: self._stream(source, *args, **kwargs)

    def __reduce__(self) -> str:
        return self.__name__  # pickled and copied as the one that is there

    def __repr__(self) -> str:
        return f"<operator {self.__module__}.{self.__name__}>"


class ClosableStream(Stream[T_co]):
    """A stream that makes a new iterator for each reading, and can be closed itself.

    It behaves like an async generator: its last iterator is closed when the stream is dropped, or
    by `aclose`, so `contextlib.aclosing` works. aiostream's own `Stream` keeps its first iterator
    and refers to itself: only the garbage collector would close it.
    """

    _reading: QuickStreamer[T_co] | None = None

    @abstractmethod
    def _open(self) -> QuickStreamer[T_co]:
        """Make an iterator."""

    def __aiter__(self) -> Streamer[T_co]:
        self._reading = self._open()
        return self._reading

    def stream(self) -> Streamer[T_co]:
        """Open the stream for reading: ``async with s.stream() as items``.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> async def main():
        ...     async with ResultStream.of(from_iterable([1, 2, 3])).stream() as items:
        ...         return [item async for item in items]
        >>> run(main())
        [<Success: 1>, <Success: 2>, <Success: 3>]
        """
        return self.__aiter__()

    async def aclose(self) -> None:
        """Close the iterator that was made last, if it is open."""
        if self._reading is not None:
            await self._reading.aclose()


class ReadOnce(ClosableStream[T_co]):
    """A stream that can be read once, and that is left if it is dropped unread."""

    _unread: Reader[T_co] | None  # its reader; `None` once it was opened


async def leave_unread(source: AsyncIterable[Any]) -> None:
    """Close a `ReadOnce` that was not opened: if it was, what reads it does that."""
    if isinstance(source, ReadOnce):
        stream: ReadOnce[Any] = source
        reader = stream._unread  # pyright: ignore[reportPrivateUsage]
        if reader is not None:
            await stream.aclose()


class Repeatable(ClosableStream[T_co]):
    """The stream of a function that makes iterators."""

    def __init__(self, factory: Callable[[], AsyncIterator[T_co]]) -> None:
        _ = factory()  # a bad argument is refused at the call
        self._factory = factory

    def _open(self) -> QuickStreamer[T_co]:
        made = self._factory()
        return made if isinstance(made, QuickStreamer) else QuickStreamer(made)


class _NoSource:
    """A stand-in for a source: an operator is applied to it, to check its arguments early."""

    def __aiter__(self) -> AsyncIterator[Any]:
        raise RuntimeError("this is a stand-in for a source, and cannot be read")


NO_SOURCE: Final[AsyncIterable[Any]] = _NoSource()


class QuickStreamer(Streamer[T_co]):
    """An aiostream streamer whose checks cost a third.

    The reader's exceptions are not thrown into the iterator. It may be iterated without its
    context, like an async generator: a ``break`` then starts the clean-up of the dropped iterator.

    Args:
        iterator: The iterator that it reads.
        close: Closes the iterator; by default its own ``aclose``, if it has one.
    """

    def __init__(
        self, iterator: AsyncIterator[T_co], close: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        super().__init__(iterator)
        self._close = close

    def __anext__(self) -> Awaitable[T_co]:
        if self._state != "FINISHED":
            return self._aiterator.__anext__()
        return super().__anext__()  # an error

    async def __aexit__(self, *_: object) -> bool:
        if self._state != "FINISHED":
            close = self._close or getattr(self._aiterator, "aclose", None)
            if close is not None:
                await close()
            self._state = "FINISHED"
        return False


class OpenIterator(Generic[T]):
    """The innermost iterator of a source, open for reading.

    aiostream wraps each stream in a ``Streamer``, whose checks cost 300 ns an item. They are made
    once, here, by entering its context; the items then come from the iterator it guards.

    Attributes:
        items: The iterator.
    """

    __slots__ = ("_close", "items")

    def __init__(
        self, items: AsyncIterator[T], close: Callable[[], Awaitable[object]] | None
    ) -> None:
        self.items: AsyncIterator[T] = items
        self._close = close

    async def aclose(self) -> None:
        """Close the iterator, once; the owner of the current task does not stop it meanwhile."""
        items = self.items
        # A generator that has ended has cleaned up.
        if self._close is not None and not (
            isinstance(items, AsyncGeneratorType) and items.ag_frame is None
        ):
            await shielded_clean_up(self._close)


async def open_iterator(source: AsyncIterable[T]) -> OpenIterator[T]:
    """Open a source for reading."""
    iterator = aiter(source)
    if not isinstance(iterator, Streamer):
        if hasattr(iterator, "__aiter__"):
            return OpenIterator(iterator, getattr(iterator, "aclose", None))
        # An iterator with nothing but ``__anext__`` is enough for a source, but not for a loop.
        iterator = Streamer(iterator)
    streamer: Streamer[T] = iterator
    _ = await streamer.__aenter__()
    # The attribute is aiostream's own; without it the guarded way is merely slower.
    inner: AsyncIterator[T] = getattr(streamer, "_aiterator", streamer)
    return OpenIterator(inner if hasattr(inner, "__aiter__") else streamer, streamer.aclose)


class plain_iterator(Generic[T]):  # noqa: N801  # read as a function
    """Open a source for reading and yield its innermost iterator; close it on the way out.

    The context is left without the reader's exception: aiostream would throw it into the source,
    and a source with ``except Exception`` around its ``yield`` would swallow it.
    """

    __slots__ = ("_opened", "_source")

    def __init__(self, source: AsyncIterable[T]) -> None:
        self._source = source

    async def __aenter__(self) -> AsyncIterator[T]:
        self._opened = await open_iterator(self._source)
        return self._opened.items

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()
