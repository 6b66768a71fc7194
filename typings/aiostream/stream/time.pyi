from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import TypeVar

from ..core import Stream

__all__ = ["delay", "spaceout", "timeout"]

_T = TypeVar("_T")

class _Spaceout:
    def __call__(self, source: AsyncIterable[_T], /, interval: float) -> Stream[_T]: ...
    @staticmethod
    def raw(source: AsyncIterable[_T], /, interval: float) -> AsyncIterator[_T]: ...
    @staticmethod
    def pipe(interval: float) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...

spaceout: _Spaceout

class _Timeout:
    def __call__(self, source: AsyncIterable[_T], /, timeout: float) -> Stream[_T]: ...
    @staticmethod
    def raw(source: AsyncIterable[_T], /, timeout: float) -> AsyncIterator[_T]: ...
    @staticmethod
    def pipe(timeout: float) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...

timeout: _Timeout

class _Delay:
    def __call__(self, source: AsyncIterable[_T], /, delay: float) -> Stream[_T]: ...
    @staticmethod
    def raw(source: AsyncIterable[_T], /, delay: float) -> AsyncIterator[_T]: ...
    @staticmethod
    def pipe(delay: float) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...

delay: _Delay
