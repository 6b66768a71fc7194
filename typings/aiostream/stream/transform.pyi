from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar, overload

from typing_extensions import TypeVarTuple

from ..core import Stream
from .combine import map as map

__all__ = ["chunks", "cycle", "enumerate", "map", "starmap"]

_T = TypeVar("_T")
_U = TypeVar("_U")
_Ts = TypeVarTuple("_Ts")
_X_contra = TypeVar("_X_contra", contravariant=True)
_Y_co = TypeVar("_Y_co", covariant=True)

class AsyncStarmapCallable(Protocol[_X_contra, _Y_co]):
    def __call__(self, arg: _X_contra, /, *args: _X_contra) -> Awaitable[_Y_co]: ...

class SyncStarmapCallable(Protocol[_X_contra, _Y_co]):
    def __call__(self, arg: _X_contra, /, *args: _X_contra) -> _Y_co: ...

class _Enumerate:
    def __call__(
        self, source: AsyncIterable[_T], /, start: int = 0, step: int = 1
    ) -> Stream[tuple[int, _T]]: ...
    @staticmethod
    def raw(
        source: AsyncIterable[_T], /, start: int = 0, step: int = 1
    ) -> AsyncIterator[tuple[int, _T]]: ...
    @staticmethod
    def pipe(
        start: int = 0, step: int = 1
    ) -> Callable[[AsyncIterable[_T]], Stream[tuple[int, _T]]]: ...

enumerate: _Enumerate

class _Starmap:
    @overload
    def __call__(
        self,
        source: AsyncIterable[tuple[*_Ts]],
        /,
        func: Callable[[*_Ts], Coroutine[Any, Any, _U]],
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> Stream[_U]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[tuple[*_Ts]],
        /,
        func: Callable[[*_Ts], _U],
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> Stream[_U]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[tuple[*_Ts]],
        /,
        func: Callable[[*_Ts], Coroutine[Any, Any, _U]],
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[tuple[*_Ts]],
        /,
        func: Callable[[*_Ts], _U],
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[*_Ts], Coroutine[Any, Any, _U]],
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> Callable[[AsyncIterable[tuple[*_Ts]]], Stream[_U]]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[*_Ts], _U], ordered: bool = True, task_limit: int | None = None
    ) -> Callable[[AsyncIterable[tuple[*_Ts]]], Stream[_U]]: ...

starmap: _Starmap

class _Cycle:
    def __call__(self, source: AsyncIterable[_T], /) -> Stream[_T]: ...
    @staticmethod
    def raw(source: AsyncIterable[_T], /) -> AsyncIterator[_T]: ...
    @staticmethod
    def pipe() -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...

cycle: _Cycle

class _Chunks:
    def __call__(self, source: AsyncIterable[_T], /, n: int) -> Stream[list[_T]]: ...
    @staticmethod
    def raw(source: AsyncIterable[_T], /, n: int) -> AsyncIterator[list[_T]]: ...
    @staticmethod
    def pipe(n: int) -> Callable[[AsyncIterable[_T]], Stream[list[_T]]]: ...

chunks: _Chunks
