import builtins
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar, overload

from ..core import Stream

__all__ = ["accumulate", "list", "reduce"]

_A = TypeVar("_A")
_T = TypeVar("_T")

class _Accumulate:
    @overload
    def __call__(self, source: AsyncIterable[_T], /) -> Stream[_T]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T],
        /,
        func: Callable[[_T, _T], Coroutine[Any, Any, _T]],
        initializer: None = None,
    ) -> Stream[_T]: ...
    @overload
    def __call__(
        self, source: AsyncIterable[_T], /, func: Callable[[_T, _T], _T], initializer: None = None
    ) -> Stream[_T]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T],
        /,
        func: Callable[[_A, _T], Coroutine[Any, Any, _A]],
        initializer: _A,
    ) -> Stream[_A]: ...
    @overload
    def __call__(
        self, source: AsyncIterable[_T], /, func: Callable[[_A, _T], _A], initializer: _A
    ) -> Stream[_A]: ...
    @overload
    def __call__(self, source: AsyncIterable[_T], /, *, initializer: _T) -> Stream[_T]: ...
    @staticmethod
    @overload
    def raw(source: AsyncIterable[_T], /) -> AsyncIterator[_T]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T],
        /,
        func: Callable[[_T, _T], Coroutine[Any, Any, _T]],
        initializer: None = None,
    ) -> AsyncIterator[_T]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T], /, func: Callable[[_T, _T], _T], initializer: None = None
    ) -> AsyncIterator[_T]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T],
        /,
        func: Callable[[_A, _T], Coroutine[Any, Any, _A]],
        initializer: _A,
    ) -> AsyncIterator[_A]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T], /, func: Callable[[_A, _T], _A], initializer: _A
    ) -> AsyncIterator[_A]: ...
    @staticmethod
    @overload
    def raw(source: AsyncIterable[_T], /, *, initializer: _T) -> AsyncIterator[_T]: ...
    @staticmethod
    @overload
    def pipe() -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[_T, _T], Coroutine[Any, Any, _T]], initializer: None = None
    ) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[_T, _T], _T], initializer: None = None
    ) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[_A, _T], Coroutine[Any, Any, _A]], initializer: _A
    ) -> Callable[[AsyncIterable[_T]], Stream[_A]]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[_A, _T], _A], initializer: _A
    ) -> Callable[[AsyncIterable[_T]], Stream[_A]]: ...
    @staticmethod
    @overload
    def pipe(*, initializer: _T) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...

accumulate: _Accumulate

class _Reduce:
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T],
        /,
        func: Callable[[_T, _T], Coroutine[Any, Any, _T]],
        initializer: None = None,
    ) -> Stream[_T]: ...
    @overload
    def __call__(
        self, source: AsyncIterable[_T], /, func: Callable[[_T, _T], _T], initializer: None = None
    ) -> Stream[_T]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T],
        /,
        func: Callable[[_A, _T], Coroutine[Any, Any, _A]],
        initializer: _A,
    ) -> Stream[_A]: ...
    @overload
    def __call__(
        self, source: AsyncIterable[_T], /, func: Callable[[_A, _T], _A], initializer: _A
    ) -> Stream[_A]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T],
        /,
        func: Callable[[_T, _T], Coroutine[Any, Any, _T]],
        initializer: None = None,
    ) -> AsyncIterator[_T]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T], /, func: Callable[[_T, _T], _T], initializer: None = None
    ) -> AsyncIterator[_T]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T],
        /,
        func: Callable[[_A, _T], Coroutine[Any, Any, _A]],
        initializer: _A,
    ) -> AsyncIterator[_A]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T], /, func: Callable[[_A, _T], _A], initializer: _A
    ) -> AsyncIterator[_A]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[_T, _T], Coroutine[Any, Any, _T]], initializer: None = None
    ) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[_T, _T], _T], initializer: None = None
    ) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[_A, _T], Coroutine[Any, Any, _A]], initializer: _A
    ) -> Callable[[AsyncIterable[_T]], Stream[_A]]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[_A, _T], _A], initializer: _A
    ) -> Callable[[AsyncIterable[_T]], Stream[_A]]: ...

reduce: _Reduce

class _List:
    def __call__(self, source: AsyncIterable[_T], /) -> Stream[builtins.list[_T]]: ...
    @staticmethod
    def raw(source: AsyncIterable[_T], /) -> AsyncIterator[builtins.list[_T]]: ...
    @staticmethod
    def pipe() -> Callable[[AsyncIterable[_T]], Stream[builtins.list[_T]]]: ...

list: _List
