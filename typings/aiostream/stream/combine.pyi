from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Literal, Protocol, TypeVar, overload

from ..core import Stream

__all__ = ["amap", "chain", "map", "merge", "smap", "zip", "ziplatest"]

_D = TypeVar("_D")
_T = TypeVar("_T")
_T1 = TypeVar("_T1")
_T2 = TypeVar("_T2")
_T3 = TypeVar("_T3")
_T4 = TypeVar("_T4")

_U = TypeVar("_U")
_X_contra = TypeVar("_X_contra", contravariant=True)
_Y_co = TypeVar("_Y_co", covariant=True)

class SmapCallable(Protocol[_X_contra, _Y_co]):
    def __call__(self, arg: _X_contra, /, *args: _X_contra) -> _Y_co: ...

class AmapCallable(Protocol[_X_contra, _Y_co]):
    async def __call__(self, arg: _X_contra, /, *args: _X_contra) -> _Y_co: ...

class MapCallable(Protocol[_X_contra, _Y_co]):
    def __call__(self, arg: _X_contra, /, *args: _X_contra) -> Awaitable[_Y_co] | _Y_co: ...

class _Together:
    @overload
    def __call__(
        self, source1: AsyncIterable[_T1], source2: AsyncIterable[_T2], /
    ) -> Stream[_T1 | _T2]: ...
    @overload
    def __call__(
        self,
        source1: AsyncIterable[_T1],
        source2: AsyncIterable[_T2],
        source3: AsyncIterable[_T3],
        /,
    ) -> Stream[_T1 | _T2 | _T3]: ...
    @overload
    def __call__(self, *sources: AsyncIterable[_T]) -> Stream[_T]: ...
    @staticmethod
    @overload
    def raw(
        source1: AsyncIterable[_T1], source2: AsyncIterable[_T2], /
    ) -> AsyncIterator[_T1 | _T2]: ...
    @staticmethod
    @overload
    def raw(
        source1: AsyncIterable[_T1], source2: AsyncIterable[_T2], source3: AsyncIterable[_T3], /
    ) -> AsyncIterator[_T1 | _T2 | _T3]: ...
    @staticmethod
    @overload
    def raw(*sources: AsyncIterable[_T]) -> AsyncIterator[_T]: ...
    @staticmethod
    @overload
    def pipe(
        source2: AsyncIterable[_T2], /
    ) -> Callable[[AsyncIterable[_T1]], Stream[_T1 | _T2]]: ...
    @staticmethod
    @overload
    def pipe(
        source2: AsyncIterable[_T2], source3: AsyncIterable[_T3], /
    ) -> Callable[[AsyncIterable[_T1]], Stream[_T1 | _T2 | _T3]]: ...
    @staticmethod
    @overload
    def pipe(*sources: AsyncIterable[_T]) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...

chain: _Together
merge: _Together

class _Zip:
    @overload
    def __call__(
        self, source1: AsyncIterable[_T1], source2: AsyncIterable[_T2], /, *, strict: bool = False
    ) -> Stream[tuple[_T1, _T2]]: ...
    @overload
    def __call__(
        self,
        source1: AsyncIterable[_T1],
        source2: AsyncIterable[_T2],
        source3: AsyncIterable[_T3],
        /,
        *,
        strict: bool = False,
    ) -> Stream[tuple[_T1, _T2, _T3]]: ...
    @overload
    def __call__(
        self,
        source1: AsyncIterable[_T1],
        source2: AsyncIterable[_T2],
        source3: AsyncIterable[_T3],
        source4: AsyncIterable[_T4],
        /,
        *,
        strict: bool = False,
    ) -> Stream[tuple[_T1, _T2, _T3, _T4]]: ...
    @overload
    def __call__(
        self, *sources: AsyncIterable[_T], strict: bool = False
    ) -> Stream[tuple[_T, ...]]: ...
    @staticmethod
    @overload
    def raw(
        source1: AsyncIterable[_T1], source2: AsyncIterable[_T2], /, *, strict: bool = False
    ) -> AsyncIterator[tuple[_T1, _T2]]: ...
    @staticmethod
    @overload
    def raw(
        source1: AsyncIterable[_T1],
        source2: AsyncIterable[_T2],
        source3: AsyncIterable[_T3],
        /,
        *,
        strict: bool = False,
    ) -> AsyncIterator[tuple[_T1, _T2, _T3]]: ...
    @staticmethod
    @overload
    def raw(
        source1: AsyncIterable[_T1],
        source2: AsyncIterable[_T2],
        source3: AsyncIterable[_T3],
        source4: AsyncIterable[_T4],
        /,
        *,
        strict: bool = False,
    ) -> AsyncIterator[tuple[_T1, _T2, _T3, _T4]]: ...
    @staticmethod
    @overload
    def raw(*sources: AsyncIterable[_T], strict: bool = False) -> AsyncIterator[tuple[_T, ...]]: ...
    @staticmethod
    @overload
    def pipe(
        source2: AsyncIterable[_T2], /, *, strict: bool = False
    ) -> Callable[[AsyncIterable[_T1]], Stream[tuple[_T1, _T2]]]: ...
    @staticmethod
    @overload
    def pipe(
        source2: AsyncIterable[_T2], source3: AsyncIterable[_T3], /, *, strict: bool = False
    ) -> Callable[[AsyncIterable[_T1]], Stream[tuple[_T1, _T2, _T3]]]: ...
    @staticmethod
    @overload
    def pipe(
        source2: AsyncIterable[_T2],
        source3: AsyncIterable[_T3],
        source4: AsyncIterable[_T4],
        /,
        *,
        strict: bool = False,
    ) -> Callable[[AsyncIterable[_T1]], Stream[tuple[_T1, _T2, _T3, _T4]]]: ...
    @staticmethod
    @overload
    def pipe(
        *sources: AsyncIterable[_T], strict: bool = False
    ) -> Callable[[AsyncIterable[_T]], Stream[tuple[_T, ...]]]: ...

zip: _Zip

class _Smap:
    @overload
    def __call__(self, source: AsyncIterable[_T], /, func: Callable[[_T], _U]) -> Stream[_U]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T1],
        func: Callable[[_T1, _T2], _U],
        source2: AsyncIterable[_T2],
        /,
    ) -> Stream[_U]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T],
        func: SmapCallable[_T, _U],
        source2: AsyncIterable[_T],
        source3: AsyncIterable[_T],
        /,
        *more_sources: AsyncIterable[_T],
    ) -> Stream[_U]: ...
    @staticmethod
    @overload
    def raw(source: AsyncIterable[_T], /, func: Callable[[_T], _U]) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T1], func: Callable[[_T1, _T2], _U], source2: AsyncIterable[_T2], /
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T],
        func: SmapCallable[_T, _U],
        source2: AsyncIterable[_T],
        source3: AsyncIterable[_T],
        /,
        *more_sources: AsyncIterable[_T],
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def pipe(func: Callable[[_T], _U]) -> Callable[[AsyncIterable[_T]], Stream[_U]]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[_T1, _T2], _U], source2: AsyncIterable[_T2], /
    ) -> Callable[[AsyncIterable[_T1]], Stream[_U]]: ...
    @staticmethod
    @overload
    def pipe(
        func: SmapCallable[_T, _U],
        source2: AsyncIterable[_T],
        source3: AsyncIterable[_T],
        /,
        *more_sources: AsyncIterable[_T],
    ) -> Callable[[AsyncIterable[_T]], Stream[_U]]: ...

smap: _Smap

class _Amap:
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T],
        /,
        corofn: Callable[[_T], Awaitable[_U]],
        *,
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> Stream[_U]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T1],
        corofn: Callable[[_T1, _T2], Awaitable[_U]],
        source2: AsyncIterable[_T2],
        /,
        *,
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> Stream[_U]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T],
        corofn: SmapCallable[_T, Awaitable[_U]],
        source2: AsyncIterable[_T],
        source3: AsyncIterable[_T],
        /,
        *more_sources: AsyncIterable[_T],
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> Stream[_U]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T],
        /,
        corofn: Callable[[_T], Awaitable[_U]],
        *,
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T1],
        corofn: Callable[[_T1, _T2], Awaitable[_U]],
        source2: AsyncIterable[_T2],
        /,
        *,
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T],
        corofn: SmapCallable[_T, Awaitable[_U]],
        source2: AsyncIterable[_T],
        source3: AsyncIterable[_T],
        /,
        *more_sources: AsyncIterable[_T],
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def pipe(
        corofn: Callable[[_T], Awaitable[_U]],
        *,
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> Callable[[AsyncIterable[_T]], Stream[_U]]: ...
    @staticmethod
    @overload
    def pipe(
        corofn: Callable[[_T1, _T2], Awaitable[_U]],
        source2: AsyncIterable[_T2],
        /,
        *,
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> Callable[[AsyncIterable[_T1]], Stream[_U]]: ...
    @staticmethod
    @overload
    def pipe(
        corofn: SmapCallable[_T, Awaitable[_U]],
        source2: AsyncIterable[_T],
        source3: AsyncIterable[_T],
        /,
        *more_sources: AsyncIterable[_T],
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> Callable[[AsyncIterable[_T]], Stream[_U]]: ...

amap: _Amap

class _Map:
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T],
        /,
        func: Callable[[_T], Coroutine[Any, Any, _U]],
        *,
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> Stream[_U]: ...
    @overload
    def __call__(self, source: AsyncIterable[_T], /, func: Callable[[_T], _U]) -> Stream[_U]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T1],
        func: Callable[[_T1, _T2], Coroutine[Any, Any, _U]],
        source2: AsyncIterable[_T2],
        /,
        *,
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> Stream[_U]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T1],
        func: Callable[[_T1, _T2], _U],
        source2: AsyncIterable[_T2],
        /,
    ) -> Stream[_U]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T],
        func: SmapCallable[_T, Coroutine[Any, Any, _U]],
        source2: AsyncIterable[_T],
        source3: AsyncIterable[_T],
        /,
        *more_sources: AsyncIterable[_T],
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> Stream[_U]: ...
    @overload
    def __call__(
        self,
        source: AsyncIterable[_T],
        func: SmapCallable[_T, _U],
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
        func: Callable[[_T], Coroutine[Any, Any, _U]],
        *,
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def raw(source: AsyncIterable[_T], /, func: Callable[[_T], _U]) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T1],
        func: Callable[[_T1, _T2], Coroutine[Any, Any, _U]],
        source2: AsyncIterable[_T2],
        /,
        *,
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T1], func: Callable[[_T1, _T2], _U], source2: AsyncIterable[_T2], /
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T],
        func: SmapCallable[_T, Coroutine[Any, Any, _U]],
        source2: AsyncIterable[_T],
        source3: AsyncIterable[_T],
        /,
        *more_sources: AsyncIterable[_T],
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def raw(
        source: AsyncIterable[_T],
        func: SmapCallable[_T, _U],
        source2: AsyncIterable[_T],
        source3: AsyncIterable[_T],
        /,
        *more_sources: AsyncIterable[_T],
    ) -> AsyncIterator[_U]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[_T], Coroutine[Any, Any, _U]],
        *,
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> Callable[[AsyncIterable[_T]], Stream[_U]]: ...
    @staticmethod
    @overload
    def pipe(func: Callable[[_T], _U]) -> Callable[[AsyncIterable[_T]], Stream[_U]]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[_T1, _T2], Coroutine[Any, Any, _U]],
        source2: AsyncIterable[_T2],
        /,
        *,
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> Callable[[AsyncIterable[_T1]], Stream[_U]]: ...
    @staticmethod
    @overload
    def pipe(
        func: Callable[[_T1, _T2], _U], source2: AsyncIterable[_T2], /
    ) -> Callable[[AsyncIterable[_T1]], Stream[_U]]: ...
    @staticmethod
    @overload
    def pipe(
        func: SmapCallable[_T, Coroutine[Any, Any, _U]],
        source2: AsyncIterable[_T],
        source3: AsyncIterable[_T],
        /,
        *more_sources: AsyncIterable[_T],
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> Callable[[AsyncIterable[_T]], Stream[_U]]: ...
    @staticmethod
    @overload
    def pipe(
        func: SmapCallable[_T, _U],
        source2: AsyncIterable[_T],
        source3: AsyncIterable[_T],
        /,
        *more_sources: AsyncIterable[_T],
    ) -> Callable[[AsyncIterable[_T]], Stream[_U]]: ...

map: _Map

class _Ziplatest:
    @overload
    def __call__(
        self,
        source1: AsyncIterable[_T1],
        source2: AsyncIterable[_T2],
        /,
        *,
        partial: Literal[False],
        default: object = None,
    ) -> Stream[tuple[_T1, _T2]]: ...
    @overload
    def __call__(
        self,
        source1: AsyncIterable[_T1],
        source2: AsyncIterable[_T2],
        source3: AsyncIterable[_T3],
        /,
        *,
        partial: Literal[False],
        default: object = None,
    ) -> Stream[tuple[_T1, _T2, _T3]]: ...
    @overload
    def __call__(
        self,
        source1: AsyncIterable[_T1],
        source2: AsyncIterable[_T2],
        /,
        *,
        partial: bool = True,
        default: None = None,
    ) -> Stream[tuple[_T1 | None, _T2 | None]]: ...
    @overload
    def __call__(
        self,
        source1: AsyncIterable[_T1],
        source2: AsyncIterable[_T2],
        source3: AsyncIterable[_T3],
        /,
        *,
        partial: bool = True,
        default: None = None,
    ) -> Stream[tuple[_T1 | None, _T2 | None, _T3 | None]]: ...
    @overload
    def __call__(
        self,
        source1: AsyncIterable[_T1],
        source2: AsyncIterable[_T2],
        /,
        *,
        partial: bool = True,
        default: _D,
    ) -> Stream[tuple[_T1 | _D, _T2 | _D]]: ...
    @overload
    def __call__(
        self,
        source1: AsyncIterable[_T1],
        source2: AsyncIterable[_T2],
        source3: AsyncIterable[_T3],
        /,
        *,
        partial: bool = True,
        default: _D,
    ) -> Stream[tuple[_T1 | _D, _T2 | _D, _T3 | _D]]: ...
    @overload
    def __call__(
        self, *sources: AsyncIterable[_T], partial: Literal[False], default: object = None
    ) -> Stream[tuple[_T, ...]]: ...
    @overload
    def __call__(
        self, *sources: AsyncIterable[_T], partial: bool = True, default: None = None
    ) -> Stream[tuple[_T | None, ...]]: ...
    @overload
    def __call__(
        self, *sources: AsyncIterable[_T], partial: bool = True, default: _D
    ) -> Stream[tuple[_T | _D, ...]]: ...
    @staticmethod
    @overload
    def raw(
        source1: AsyncIterable[_T1],
        source2: AsyncIterable[_T2],
        /,
        *,
        partial: Literal[False],
        default: object = None,
    ) -> AsyncIterator[tuple[_T1, _T2]]: ...
    @staticmethod
    @overload
    def raw(
        source1: AsyncIterable[_T1],
        source2: AsyncIterable[_T2],
        source3: AsyncIterable[_T3],
        /,
        *,
        partial: Literal[False],
        default: object = None,
    ) -> AsyncIterator[tuple[_T1, _T2, _T3]]: ...
    @staticmethod
    @overload
    def raw(
        source1: AsyncIterable[_T1],
        source2: AsyncIterable[_T2],
        /,
        *,
        partial: bool = True,
        default: None = None,
    ) -> AsyncIterator[tuple[_T1 | None, _T2 | None]]: ...
    @staticmethod
    @overload
    def raw(
        source1: AsyncIterable[_T1],
        source2: AsyncIterable[_T2],
        source3: AsyncIterable[_T3],
        /,
        *,
        partial: bool = True,
        default: None = None,
    ) -> AsyncIterator[tuple[_T1 | None, _T2 | None, _T3 | None]]: ...
    @staticmethod
    @overload
    def raw(
        source1: AsyncIterable[_T1],
        source2: AsyncIterable[_T2],
        /,
        *,
        partial: bool = True,
        default: _D,
    ) -> AsyncIterator[tuple[_T1 | _D, _T2 | _D]]: ...
    @staticmethod
    @overload
    def raw(
        source1: AsyncIterable[_T1],
        source2: AsyncIterable[_T2],
        source3: AsyncIterable[_T3],
        /,
        *,
        partial: bool = True,
        default: _D,
    ) -> AsyncIterator[tuple[_T1 | _D, _T2 | _D, _T3 | _D]]: ...
    @staticmethod
    @overload
    def raw(
        *sources: AsyncIterable[_T], partial: Literal[False], default: object = None
    ) -> AsyncIterator[tuple[_T, ...]]: ...
    @staticmethod
    @overload
    def raw(
        *sources: AsyncIterable[_T], partial: bool = True, default: None = None
    ) -> AsyncIterator[tuple[_T | None, ...]]: ...
    @staticmethod
    @overload
    def raw(
        *sources: AsyncIterable[_T], partial: bool = True, default: _D
    ) -> AsyncIterator[tuple[_T | _D, ...]]: ...
    @staticmethod
    @overload
    def pipe(
        source2: AsyncIterable[_T2], /, *, partial: Literal[False], default: object = None
    ) -> Callable[[AsyncIterable[_T1]], Stream[tuple[_T1, _T2]]]: ...
    @staticmethod
    @overload
    def pipe(
        source2: AsyncIterable[_T2],
        source3: AsyncIterable[_T3],
        /,
        *,
        partial: Literal[False],
        default: object = None,
    ) -> Callable[[AsyncIterable[_T1]], Stream[tuple[_T1, _T2, _T3]]]: ...
    @staticmethod
    @overload
    def pipe(
        source2: AsyncIterable[_T2], /, *, partial: bool = True, default: None = None
    ) -> Callable[[AsyncIterable[_T1]], Stream[tuple[_T1 | None, _T2 | None]]]: ...
    @staticmethod
    @overload
    def pipe(
        source2: AsyncIterable[_T2],
        source3: AsyncIterable[_T3],
        /,
        *,
        partial: bool = True,
        default: None = None,
    ) -> Callable[[AsyncIterable[_T1]], Stream[tuple[_T1 | None, _T2 | None, _T3 | None]]]: ...
    @staticmethod
    @overload
    def pipe(
        source2: AsyncIterable[_T2], /, *, partial: bool = True, default: _D
    ) -> Callable[[AsyncIterable[_T1]], Stream[tuple[_T1 | _D, _T2 | _D]]]: ...
    @staticmethod
    @overload
    def pipe(
        source2: AsyncIterable[_T2],
        source3: AsyncIterable[_T3],
        /,
        *,
        partial: bool = True,
        default: _D,
    ) -> Callable[[AsyncIterable[_T1]], Stream[tuple[_T1 | _D, _T2 | _D, _T3 | _D]]]: ...
    @staticmethod
    @overload
    def pipe(
        *sources: AsyncIterable[_T], partial: Literal[False], default: object = None
    ) -> Callable[[AsyncIterable[_T]], Stream[tuple[_T, ...]]]: ...
    @staticmethod
    @overload
    def pipe(
        *sources: AsyncIterable[_T], partial: bool = True, default: None = None
    ) -> Callable[[AsyncIterable[_T]], Stream[tuple[_T | None, ...]]]: ...
    @staticmethod
    @overload
    def pipe(
        *sources: AsyncIterable[_T], partial: bool = True, default: _D
    ) -> Callable[[AsyncIterable[_T]], Stream[tuple[_T | _D, ...]]]: ...

ziplatest: _Ziplatest
