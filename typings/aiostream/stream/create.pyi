from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, Never, Protocol, TypeVar, overload

from typing_extensions import ParamSpec

from ..core import Stream

__all__ = [
    "call",
    "count",
    "empty",
    "iterate",
    "just",
    "never",
    "preserve",
    "range",
    "repeat",
    "throw",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Y_co = TypeVar("_Y_co", covariant=True)

class SyncCallable(Protocol[_P, _Y_co]):
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _Y_co: ...

class AsyncCallable(Protocol[_P, _Y_co]):
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> Awaitable[_Y_co]: ...

class _FromIterable:
    def __call__(self, it: Iterable[_T]) -> Stream[_T]: ...
    @staticmethod
    def raw(it: Iterable[_T]) -> AsyncIterator[_T]: ...

from_iterable: _FromIterable

class _FromAsyncIterable:
    def __call__(self, ait: AsyncIterable[_T]) -> Stream[_T]: ...
    @staticmethod
    def raw(ait: AsyncIterable[_T]) -> AsyncIterator[_T]: ...

from_async_iterable: _FromAsyncIterable
preserve: _FromAsyncIterable

class _Iterate:
    def __call__(self, it: AsyncIterable[_T] | Iterable[_T]) -> Stream[_T]: ...
    @staticmethod
    def raw(it: AsyncIterable[_T] | Iterable[_T]) -> AsyncIterator[_T]: ...

iterate: _Iterate

class _Just:
    @overload
    def __call__(self, value: Awaitable[_T]) -> Stream[_T]: ...
    @overload
    def __call__(self, value: _T) -> Stream[_T]: ...
    @staticmethod
    @overload
    def raw(value: Awaitable[_T]) -> AsyncIterator[_T]: ...
    @staticmethod
    @overload
    def raw(value: _T) -> AsyncIterator[_T]: ...

just: _Just

class _Call:
    @overload
    def __call__(
        self, func: Callable[_P, Coroutine[Any, Any, _T]], *args: _P.args, **kwargs: _P.kwargs
    ) -> Stream[_T]: ...
    @overload
    def __call__(
        self, func: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> Stream[_T]: ...
    @staticmethod
    @overload
    def raw(
        func: Callable[_P, Coroutine[Any, Any, _T]], *args: _P.args, **kwargs: _P.kwargs
    ) -> AsyncIterator[_T]: ...
    @staticmethod
    @overload
    def raw(func: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> AsyncIterator[_T]: ...

call: _Call

class _Throw:
    def __call__(self, exc: Exception | type[Exception]) -> Stream[Never]: ...
    @staticmethod
    def raw(exc: Exception | type[Exception]) -> AsyncIterator[Never]: ...

throw: _Throw

class _Nothing:
    def __call__(self) -> Stream[Never]: ...
    @staticmethod
    def raw() -> AsyncIterator[Never]: ...

empty: _Nothing
never: _Nothing

class _Repeat:
    def __call__(
        self, value: _T, times: int | None = None, *, interval: float = 0.0
    ) -> Stream[_T]: ...
    @staticmethod
    def raw(value: _T, times: int | None = None, *, interval: float = 0.0) -> AsyncIterator[_T]: ...

repeat: _Repeat

class _Range:
    @overload
    def __call__(self, stop: int, /, *, interval: float = 0.0) -> Stream[int]: ...
    @overload
    def __call__(
        self, start: int, stop: int, step: int = 1, /, *, interval: float = 0.0
    ) -> Stream[int]: ...
    @staticmethod
    @overload
    def raw(stop: int, /, *, interval: float = 0.0) -> AsyncIterator[int]: ...
    @staticmethod
    @overload
    def raw(
        start: int, stop: int, step: int = 1, /, *, interval: float = 0.0
    ) -> AsyncIterator[int]: ...

range: _Range

class _Count:
    def __call__(self, start: int = 0, step: int = 1, *, interval: float = 0.0) -> Stream[int]: ...
    @staticmethod
    def raw(start: int = 0, step: int = 1, *, interval: float = 0.0) -> AsyncIterator[int]: ...

count: _Count
