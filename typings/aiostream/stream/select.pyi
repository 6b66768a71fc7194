import builtins
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar, overload

from typing_extensions import TypeIs

from ..core import Stream

__all__ = [
    "dropwhile",
    "filter",
    "getitem",
    "skip",
    "skiplast",
    "take",
    "takelast",
    "takewhile",
    "until",
]

_T = TypeVar("_T")
_U = TypeVar("_U")

class _ByCount:
    def __call__(self, source: AsyncIterable[_T], /, n: int) -> Stream[_T]: ...
    @staticmethod
    def raw(source: AsyncIterable[_T], /, n: int) -> AsyncIterator[_T]: ...
    @staticmethod
    def pipe(n: int) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...

take: _ByCount
takelast: _ByCount
skip: _ByCount
skiplast: _ByCount

class _Filterindex:
    def __call__(self, source: AsyncIterable[_T], /, func: Callable[[int], bool]) -> Stream[_T]: ...
    @staticmethod
    def raw(source: AsyncIterable[_T], /, func: Callable[[int], bool]) -> AsyncIterator[_T]: ...
    @staticmethod
    def pipe(func: Callable[[int], bool]) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...

filterindex: _Filterindex

class _Slice:
    @overload
    def __call__(self, source: AsyncIterable[_T], stop: int | None, /) -> Stream[_T]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T],
        start: int | None,
        stop: int | None,
        step: int | None = None,
        /,
    ) -> Stream[_T]: ...
    @staticmethod
    @overload
    def raw(source: AsyncIterable[_T], stop: int | None, /) -> AsyncIterator[_T]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T], start: int | None, stop: int | None, step: int | None = None, /
    ) -> AsyncIterator[_T]: ...
    @staticmethod
    @overload
    def pipe(stop: int | None, /) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...
    @staticmethod
    @overload
    def pipe(
        start: int | None, stop: int | None, step: int | None = None, /
    ) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...

slice: _Slice

class _Item:
    def __call__(self, source: AsyncIterable[_T], /, index: int) -> Stream[_T]: ...
    @staticmethod
    def raw(source: AsyncIterable[_T], /, index: int) -> AsyncIterator[_T]: ...
    @staticmethod
    def pipe(index: int) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...

item: _Item

class _Getitem:
    def __call__(self, source: AsyncIterable[_T], /, index: int | builtins.slice) -> Stream[_T]: ...
    @staticmethod
    def raw(source: AsyncIterable[_T], /, index: int | builtins.slice) -> AsyncIterator[_T]: ...
    @staticmethod
    def pipe(index: int | builtins.slice) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...

getitem: _Getitem

class _Filter:
    @overload
    def __call__(
        self, source: AsyncIterable[_T], /, func: Callable[[_T], TypeIs[_U]]
    ) -> Stream[_U]: ...
    @overload
    def __call__(
        self, source: AsyncIterable[_T], /, func: Callable[[_T], bool | Coroutine[Any, Any, bool]]
    ) -> Stream[_T]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T], /, func: Callable[[_T], TypeIs[_U]]
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T], /, func: Callable[[_T], bool | Coroutine[Any, Any, bool]]
    ) -> AsyncIterator[_T]: ...
    @staticmethod
    @overload
    def pipe(func: Callable[[_T], TypeIs[_U]]) -> Callable[[AsyncIterable[_T]], Stream[_U]]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[_T], bool | Coroutine[Any, Any, bool]],
    ) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...

filter: _Filter

class _ByPredicate:
    def __call__(
        self, source: AsyncIterable[_T], /, func: Callable[[_T], bool | Coroutine[Any, Any, bool]]
    ) -> Stream[_T]: ...
    @staticmethod
    def raw(
        source: AsyncIterable[_T], /, func: Callable[[_T], bool | Coroutine[Any, Any, bool]]
    ) -> AsyncIterator[_T]: ...
    @staticmethod
    def pipe(
        func: Callable[[_T], bool | Coroutine[Any, Any, bool]],
    ) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...

until: _ByPredicate
takewhile: _ByPredicate
dropwhile: _ByPredicate
