"""The typed facade over aiostream's operator decorator.

aiostream declares its operators as instances of a generic protocol with a ``ParamSpec``; mypy loses
their type variables there (python/mypy#17191). A class that is generic over the three callables of
an operator keeps them, in mypy and in pyright, without a plugin.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from operator import index
from typing import Any, Concatenate, Final, Generic, TypeVar, cast

from aiostream import Stream, pipable_operator, streamcontext
from aiostream.core import Streamer
from typing_extensions import ParamSpec

from returns_pipeline._engine.task_owner import shielded_clean_up
from returns_pipeline.errors import InvalidArgument

__all__ = [
    "NO_SOURCE",
    "BaseOperator",
    "Combiner",
    "Operator",
    "QuickStreamer",
    "Repeatable",
    "check_at_least",
    "operator",
    "plain_iterator",
]

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")
CallT_co = TypeVar("CallT_co", covariant=True)
PipeT_co = TypeVar("PipeT_co", covariant=True)
RawT_co = TypeVar("RawT_co", covariant=True)
NewPipeT = TypeVar("NewPipeT")


class BaseOperator:
    """An aiostream operator, in its three forms.

    - ``op(source, ...)`` returns an `aiostream.Stream`: repeatable when its source is.
    - ``source | op.pipe(...)`` does the same.
    - ``op.raw(source, ...)`` returns the bare iterator, to be read once and closed by the reader.

    Each operator is the one instance of a class of its own, which spells out the three signatures:
    that is what type checkers and editors read. (aiostream derives them from a function; mypy loses
    the type variables there, python/mypy#17191, and editors show no parameters.) `raw` does the
    work, and checks the arguments; it must do nothing else before the first item is asked for. The
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
        raise NotImplementedError

    def pipe(self, *args: Any, **kwargs: Any) -> Any:
        """Take the operator's own arguments; the source comes through ``|``."""
        raise NotImplementedError

    def raw(self, *args: Any, **kwargs: Any) -> Any:
        """Do as a call, but return the bare iterator, to be read once and closed by the reader."""
        raise NotImplementedError

    def _stream(self, *args: Any, **kwargs: Any) -> Stream[Any]:
        return Repeatable(functools.partial(self.raw, *args, **kwargs))

    def _piped(self, *args: Any, **kwargs: Any) -> Callable[[AsyncIterable[Any]], Stream[Any]]:
        _ = self.raw(NO_SOURCE, *args, **kwargs)  # a bad argument is refused here, too
        return lambda source: self._stream(source, *args, **kwargs)

    def __reduce__(self) -> str:
        return self.__name__  # pickled and copied as the one that is there

    def __repr__(self) -> str:
        return f"<operator {self.__module__}.{self.__name__}>"


class Repeatable(Stream[T]):
    """A stream that makes a new iterator for each reading.

    As an `aiostream.Stream`, which however keeps the first iterator, and refers to itself: streams
    that are dropped would be closed by the garbage collector alone.
    """

    def __init__(self, factory: Callable[[], AsyncIterator[T]]) -> None:
        _ = factory()  # a bad argument is refused at the call
        self._factory = factory

    def __aiter__(self) -> Streamer[T]:
        return QuickStreamer(self._factory())


class Combiner(Generic[CallT_co, RawT_co]):
    """An aiostream operator whose sources do not come first, so that it has no piped form.

    - ``op(...)`` gives a `aiostream.Stream`: repeatable when its sources are.
    - ``op.raw(...)`` gives the bare iterator, to be read once and closed by the reader.
    """

    def __init__(self, call: CallT_co, raw: RawT_co, *, of: object) -> None:
        self._call = call
        self._raw = raw
        self.__doc__ = of.__doc__
        self.__name__: str = getattr(of, "__name__", "operator").removeprefix("_")
        self.__module__: str = of.__module__
        self.__wrapped__ = of

    @property
    def __call__(self) -> CallT_co:
        """Apply to the sources and the operator's own arguments."""
        return self._call

    @property
    def raw(self) -> RawT_co:
        """Apply like a call, but give the bare iterator."""
        return self._raw

    def __repr__(self) -> str:
        return f"<operator {self.__module__}.{self.__name__}>"


class Operator(Generic[CallT_co, PipeT_co, RawT_co]):
    """An aiostream operator, in its three forms.

    - ``op(source, ...)`` gives a `aiostream.Stream`: repeatable when its source is.
    - ``source | op.pipe(...)`` gives the same.
    - ``op.raw(source, ...)`` gives the bare iterator, to be read once and closed by the reader.
    """

    def __init__(self, call: CallT_co, pipe: PipeT_co, raw: RawT_co, *, of: object) -> None:
        self._call = call
        self._pipe = pipe
        self._raw = raw
        self.__doc__ = of.__doc__
        self.__name__: str = getattr(of, "__name__", "operator")
        self.__module__: str = of.__module__
        self.__wrapped__ = of

    @property
    def __call__(self) -> CallT_co:
        """Apply to a source, then the operator's own arguments."""
        return self._call

    @property
    def pipe(self) -> PipeT_co:
        """Take the operator's own arguments; the source comes through ``|``."""
        return self._pipe

    @property
    def raw(self) -> RawT_co:
        """Apply like a call, but give the bare iterator."""
        return self._raw

    def with_pipe(self, pipe: NewPipeT) -> Operator[CallT_co, NewPipeT, RawT_co]:
        """Give the same operator with another piped form: one with overloads.

        Pyright needs them where the item's type stands in an optional argument, a key function
        say: when it is left out, nothing tells that type until the source comes.
        """
        made = Operator(self._call, pipe, self._raw, of=self.__wrapped__)
        made.__name__ = self.__name__.lstrip("_")
        return made

    def __repr__(self) -> str:
        return f"<operator {self.__module__}.{self.__name__}>"


def operator(
    func: Callable[Concatenate[AsyncIterable[T], P], AsyncIterator[U]],
) -> Operator[
    Callable[Concatenate[AsyncIterable[T], P], Stream[U]],
    Callable[P, Callable[[AsyncIterable[T]], Stream[U]]],
    Callable[Concatenate[AsyncIterable[T], P], AsyncIterator[U]],
]:
    """Make an aiostream operator of a function from a source to an iterator, types kept.

    The function checks its arguments and is called once right away, so that a bad argument is
    refused at the call. The iterator must do nothing before its first item is asked for.
    """
    made = pipable_operator(func)

    @functools.wraps(made.pipe)
    def pipe(*args: P.args, **kwargs: P.kwargs) -> Callable[[AsyncIterable[T]], Stream[U]]:
        _ = func(NO_SOURCE, *args, **kwargs)  # a bad argument is refused here, too
        return made.pipe(*args, **kwargs)

    # aiostream types the source parameter as positional-only; it is the same callable.
    return Operator(
        cast("Callable[Concatenate[AsyncIterable[T], P], Stream[U]]", made),
        pipe,
        made.raw,
        of=func,
    )


def check_at_least(name: str, value: int, least: int) -> None:
    """Refuse a number that is not whole, or below its least, at the call."""
    try:
        count = index(value)
    except TypeError:
        raise InvalidArgument(f"{name} must be a whole number, not {value!r}") from None
    if count < least:
        raise InvalidArgument(f"{name} must be at least {least}, not {value!r}")


class _NoSource:
    """What an operator is tried on before its source has come."""

    def __aiter__(self) -> AsyncIterator[Any]:
        raise RuntimeError("it is only there to be looked at")


NO_SOURCE: Final[AsyncIterable[Any]] = _NoSource()


class QuickStreamer(Streamer[T]):
    """An aiostream streamer whose checks cost a third."""

    def __anext__(self) -> Awaitable[T]:
        if self._state == "RUNNING":
            return self._aiterator.__anext__()
        return super().__anext__()


@asynccontextmanager
async def plain_iterator(source: AsyncIterable[T]) -> AsyncGenerator[AsyncIterator[T], None]:
    """Open a source for reading and give its innermost iterator; close it on the way out.

    aiostream wraps each stream in a ``Streamer``, whose checks cost 300 ns an item. They are made
    once, here, by entering its context; the items then come from the iterator it guards.

    The context is left without the reader's exception: aiostream would throw it into the source,
    and a source with ``except Exception`` around its ``yield`` would swallow it.
    """
    streamer = streamcontext(source)
    _ = await streamer.__aenter__()
    try:
        # The attribute is aiostream's own; without it the guarded way is merely slower.
        inner: AsyncIterator[T] = getattr(streamer, "_aiterator", streamer)
        # An iterator with nothing but ``__anext__`` is enough for a source, but not for who loops
        # over it here.
        yield inner if hasattr(inner, "__aiter__") else streamer
    finally:
        await shielded_clean_up(streamer.aclose)
