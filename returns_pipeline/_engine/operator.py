"""The base class of operators, the streams they return, and how they open a source."""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from types import AsyncGeneratorType
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar

from aiostream import Stream
from aiostream.core import Streamer

from returns_pipeline._engine.calls import Call, record_call
from returns_pipeline._engine.leaving import Composite, Subscription, leave_unread
from returns_pipeline._engine.marks import MarksRefused
from returns_pipeline._engine.task_owner import shielded_clean_up

__all__ = [
    "NO_SOURCE",
    "ClosableStream",
    "Deferred",
    "OpenIterator",
    "Operator",
    "QuickStreamer",
    "ReadOnce",
    "Repeatable",
    "open_iterator",
    "plain_iterator",
    "refuse_marked",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Sources: TypeAlias = "Callable[[], Iterable[AsyncIterable[Any]]]"


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
        refuse_marked(f"{self.__name__}()", args)
        made: Repeatable[Any] = Repeatable(functools.partial(self.raw, *args, **kwargs))
        record_call([made], self, *args, **kwargs)
        return made

    def _piped(self, *args: Any, **kwargs: Any) -> Callable[[AsyncIterable[Any]], Stream[Any]]:
        _ = self.raw(NO_SOURCE, *args, **kwargs)  # a bad argument is refused here, too
        return lambda source: self._stream(source, *args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        """Return the operator itself, as an attribute of a class, too.

        With this method it is a routine to `inspect`. So `help()`, Sphinx and other tools show it
        as a function, with its signature.
        """
        return self

    def __reduce__(self) -> str:
        return self.__name__  # pickled and copied as the one that is there

    def __repr__(self) -> str:
        return f"<operator {self.__module__}.{self.__name__}>"


class ClosableStream(Stream[T_co], Composite):
    """A stream that makes a new iterator for each reading, and can be closed itself.

    It behaves like an async generator: its last iterator is closed when the stream is dropped, or
    by `aclose`, so `contextlib.aclosing` works. aiostream's own `Stream` keeps its first iterator
    and refers to itself: only the garbage collector would close it.
    """

    _reading: QuickStreamer[T_co] | None = None
    _call: Call | None = None  # that has made it

    def _is_marked(self) -> bool:
        """Return whether a source of it is acknowledged to (see `marks`)."""
        return False

    def _peek(self) -> object:
        """Return what reads it, or what would read it, for drawings; it is not opened."""
        return None

    def _latest(self) -> object:
        """Return what reads it, or has read it last, for statistics; None if it was not read."""
        return None if self._reading is None else self._reading.inner

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
        """Close the iterator that was made last, if it is open.

        Branches of a `broadcast` that the stream would read, and has not opened, then leave. Any
        other source that was not opened is not changed.
        """
        try:
            if self._reading is not None:
                await self._reading.aclose()
        finally:
            await leave_unread(self._sources())


def refuse_marked(operator: str, args: Iterable[Any]) -> None:
    """Refuse to read a marked stream as a loop of the user's would: it sees no marks.

    Args:
        operator: How it is called in the message.
        args: Its arguments: streams, dictionaries or tuples of streams, and others.

    Raises:
        MarksRefused: One of them is marked.
    """
    for arg in args:
        kind = arg.__class__  # isinstance would take the type `Any` away from what is in it
        if kind is dict or kind is tuple:
            refuse_marked(operator, arg.values() if kind is dict else arg)
        elif isinstance(arg, ClosableStream) and arg._is_marked():  # pyright: ignore[reportPrivateUsage]
            reason = "it is not told what was handled; use the method of ResultStream"
            raise MarksRefused(operator, reason)


class ReadOnce(ClosableStream[T_co], Subscription):
    """A stream that can be read once, and that is left if it is dropped unread."""

    def _sources(self) -> tuple[()]:
        """Return nothing: its source is read for others, too."""
        return ()


class Repeatable(ClosableStream[T_co]):
    """The stream of a function that makes iterators."""

    def __init__(self, factory: Callable[[], AsyncIterator[T_co]]) -> None:
        self._factory = factory
        # Made here, so that a bad argument is refused at the call; for the first reading.
        self._first: AsyncIterator[T_co] | None = factory()

    def _peek(self) -> AsyncIterator[T_co]:
        return self._factory() if self._first is None else self._first

    def _sources(self) -> Iterable[AsyncIterable[Any]]:
        return (self._peek(),)

    def _open(self) -> QuickStreamer[T_co]:
        made = self._peek()
        self._first = None
        return made if isinstance(made, QuickStreamer) else QuickStreamer(made)


class Deferred(Composite, Generic[T]):
    """A source that is made of other sources when it is opened.

    Args:
        make: Makes the iterator.
        sources: Returns the sources that it will read.
        call: The call that makes it, if it is that of a user.
    """

    __slots__ = ("_call", "_get_sources", "_make")

    def __init__(
        self, make: Callable[[], AsyncIterator[T]], sources: Sources, call: Call | None = None
    ) -> None:
        self._make = make
        self._get_sources = sources
        self._call = call

    def _sources(self) -> Iterable[AsyncIterable[Any]]:
        return self._get_sources()

    def __aiter__(self) -> AsyncIterator[T]:
        return self._make()


class _NoSource:
    """A stand-in for a source: an operator is applied to it, to check its arguments early."""

    def __aiter__(self) -> AsyncIterator[Any]:
        raise RuntimeError("this is a stand-in for a source, and cannot be read")


NO_SOURCE: Final[AsyncIterable[Any]] = _NoSource()


class QuickStreamer(Streamer[T_co], Composite):
    """An aiostream streamer that costs next to nothing.

    The reader's exceptions are not thrown into the iterator. It may be iterated without its
    context, like an async generator: a ``break`` then starts the clean-up of the dropped iterator.

    Its ``__anext__`` is that of the iterator, in a slot: to call it takes no frame of Python's.

    Args:
        iterator: The iterator that it reads.
        close: Closes the iterator; by default its own ``aclose``, if it has one.
        sources: Returns the sources of the iterator, unless it knows them.
    """

    __slots__ = ("__anext__",)

    def __init__(
        self,
        iterator: AsyncIterator[T_co],
        close: Callable[[], Awaitable[None]] | None = None,
        sources: Sources | None = None,
    ) -> None:
        super().__init__(iterator)
        _set_anext(self, iterator.__anext__)
        self._close = close
        self._get_sources = sources

    @property
    def inner(self) -> AsyncIterator[T_co]:
        """The iterator."""
        return self._aiterator

    def _sources(self) -> Iterable[AsyncIterable[Any]]:
        return (self._aiterator,) if self._get_sources is None else self._get_sources()

    def __aiter__(self) -> Any:
        """Return a generator that is open for reading itself: the loop needs nothing else."""
        items: object = self._aiterator
        is_open = self._state == "RUNNING" and inspect.isasyncgen(items)
        return items if is_open else self

    async def __aexit__(self, *_: object) -> bool:
        if self._state != "FINISHED":
            # A generator that another task runs will emit its item and then end, for that task.
            is_read = getattr(self._aiterator, "ag_running", False)
            close = self._close or getattr(self._aiterator, "aclose", None)
            try:
                if close is not None:
                    await close()
            finally:
                if self._get_sources is not None:
                    await leave_unread(self._get_sources())
            self._state = "FINISHED"
            if not is_read:
                _set_anext(self, _refuse_to_read)
        return False


_set_anext: Final[Callable[[object, object], None]] = vars(QuickStreamer)["__anext__"].__set__


def _refuse_to_read() -> Awaitable[Any]:
    raise RuntimeError("QuickStreamer is closed and cannot be iterated")


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
