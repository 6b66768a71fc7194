from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar, overload

from ..core import Stream
from .combine import SmapCallable

__all__ = ["concat", "concatmap", "flatmap", "flatten", "switch", "switchmap"]

_T = TypeVar("_T")
_T1 = TypeVar("_T1")
_T2 = TypeVar("_T2")
_U = TypeVar("_U")

class _BaseCombine:
    def __call__(
        self,
        source: AsyncIterable[AsyncIterable[_T]],
        /,
        switch: bool = False,
        ordered: bool = False,
        task_limit: int | None = None,
    ) -> Stream[_T]: ...
    @staticmethod
    def raw(
        source: AsyncIterable[AsyncIterable[_T]],
        /,
        switch: bool = False,
        ordered: bool = False,
        task_limit: int | None = None,
    ) -> AsyncIterator[_T]: ...
    @staticmethod
    def pipe(
        switch: bool = False, ordered: bool = False, task_limit: int | None = None
    ) -> Callable[[AsyncIterable[AsyncIterable[_T]]], Stream[_T]]: ...

base_combine: _BaseCombine

class _Flatten:
    def __call__(
        self, source: AsyncIterable[AsyncIterable[_T]], /, task_limit: int | None = None
    ) -> Stream[_T]: ...
    @staticmethod
    def raw(
        source: AsyncIterable[AsyncIterable[_T]], /, task_limit: int | None = None
    ) -> AsyncIterator[_T]: ...
    @staticmethod
    def pipe(
        task_limit: int | None = None,
    ) -> Callable[[AsyncIterable[AsyncIterable[_T]]], Stream[_T]]: ...

concat: _Flatten
flatten: _Flatten

class _Switch:
    def __call__(self, source: AsyncIterable[AsyncIterable[_T]], /) -> Stream[_T]: ...
    @staticmethod
    def raw(source: AsyncIterable[AsyncIterable[_T]], /) -> AsyncIterator[_T]: ...
    @staticmethod
    def pipe() -> Callable[[AsyncIterable[AsyncIterable[_T]]], Stream[_T]]: ...

switch: _Switch

class _Flatmap:
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T],
        /,
        func: Callable[[_T], AsyncIterable[_U] | Coroutine[Any, Any, AsyncIterable[_U]]],
        *,
        task_limit: int | None = None,
    ) -> Stream[_U]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T1],
        func: Callable[[_T1, _T2], AsyncIterable[_U] | Coroutine[Any, Any, AsyncIterable[_U]]],
        source2: AsyncIterable[_T2],
        /,
        *,
        task_limit: int | None = None,
    ) -> Stream[_U]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T],
        func: SmapCallable[_T, AsyncIterable[_U] | Coroutine[Any, Any, AsyncIterable[_U]]],
        source2: AsyncIterable[_T],
        source3: AsyncIterable[_T],
        /,
        *more_sources: AsyncIterable[_T],
        task_limit: int | None = None,
    ) -> Stream[_U]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T],
        /,
        func: Callable[[_T], AsyncIterable[_U] | Coroutine[Any, Any, AsyncIterable[_U]]],
        *,
        task_limit: int | None = None,
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T1],
        func: Callable[[_T1, _T2], AsyncIterable[_U] | Coroutine[Any, Any, AsyncIterable[_U]]],
        source2: AsyncIterable[_T2],
        /,
        *,
        task_limit: int | None = None,
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T],
        func: SmapCallable[_T, AsyncIterable[_U] | Coroutine[Any, Any, AsyncIterable[_U]]],
        source2: AsyncIterable[_T],
        source3: AsyncIterable[_T],
        /,
        *more_sources: AsyncIterable[_T],
        task_limit: int | None = None,
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[_T], AsyncIterable[_U] | Coroutine[Any, Any, AsyncIterable[_U]]],
        *,
        task_limit: int | None = None,
    ) -> Callable[[AsyncIterable[_T]], Stream[_U]]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[_T1, _T2], AsyncIterable[_U] | Coroutine[Any, Any, AsyncIterable[_U]]],
        source2: AsyncIterable[_T2],
        /,
        *,
        task_limit: int | None = None,
    ) -> Callable[[AsyncIterable[_T1]], Stream[_U]]: ...
    @staticmethod
    @overload
    def pipe(
        func: SmapCallable[_T, AsyncIterable[_U] | Coroutine[Any, Any, AsyncIterable[_U]]],
        source2: AsyncIterable[_T],
        source3: AsyncIterable[_T],
        /,
        *more_sources: AsyncIterable[_T],
        task_limit: int | None = None,
    ) -> Callable[[AsyncIterable[_T]], Stream[_U]]: ...

concatmap: _Flatmap
flatmap: _Flatmap

class _Switchmap:
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T],
        /,
        func: Callable[[_T], AsyncIterable[_U] | Coroutine[Any, Any, AsyncIterable[_U]]],
    ) -> Stream[_U]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T1],
        func: Callable[[_T1, _T2], AsyncIterable[_U] | Coroutine[Any, Any, AsyncIterable[_U]]],
        source2: AsyncIterable[_T2],
        /,
    ) -> Stream[_U]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T],
        func: SmapCallable[_T, AsyncIterable[_U] | Coroutine[Any, Any, AsyncIterable[_U]]],
        source2: AsyncIterable[_T],
        source3: AsyncIterable[_T],
        /,
        *more_sources: AsyncIterable[_T],
    ) -> Stream[_U]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T],
        /,
        func: Callable[[_T], AsyncIterable[_U] | Coroutine[Any, Any, AsyncIterable[_U]]],
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T1],
        func: Callable[[_T1, _T2], AsyncIterable[_U] | Coroutine[Any, Any, AsyncIterable[_U]]],
        source2: AsyncIterable[_T2],
        /,
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T],
        func: SmapCallable[_T, AsyncIterable[_U] | Coroutine[Any, Any, AsyncIterable[_U]]],
        source2: AsyncIterable[_T],
        source3: AsyncIterable[_T],
        /,
        *more_sources: AsyncIterable[_T],
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[_T], AsyncIterable[_U] | Coroutine[Any, Any, AsyncIterable[_U]]],
    ) -> Callable[[AsyncIterable[_T]], Stream[_U]]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[_T1, _T2], AsyncIterable[_U] | Coroutine[Any, Any, AsyncIterable[_U]]],
        source2: AsyncIterable[_T2],
        /,
    ) -> Callable[[AsyncIterable[_T1]], Stream[_U]]: ...
    @staticmethod
    @overload
    def pipe(
        func: SmapCallable[_T, AsyncIterable[_U] | Coroutine[Any, Any, AsyncIterable[_U]]],
        source2: AsyncIterable[_T],
        source3: AsyncIterable[_T],
        /,
        *more_sources: AsyncIterable[_T],
    ) -> Callable[[AsyncIterable[_T]], Stream[_U]]: ...

switchmap: _Switchmap
