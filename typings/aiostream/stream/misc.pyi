from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import TypeVar

from _typeshed import SupportsWrite

from ..core import Stream

__all__ = ["action", "print"]

_T = TypeVar("_T")

class _Action:
    def __call__(
        self,
        source: AsyncIterable[_T],
        /,
        func: Callable[[_T], object],
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> Stream[_T]: ...
    @staticmethod
    def raw(
        source: AsyncIterable[_T],
        /,
        func: Callable[[_T], object],
        ordered: bool = True,
        task_limit: int | None = None,
    ) -> AsyncIterator[_T]: ...
    @staticmethod
    def pipe(
        func: Callable[[_T], object], ordered: bool = True, task_limit: int | None = None
    ) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...

action: _Action

class _Print:
    def __call__(
        self,
        source: AsyncIterable[_T],
        /,
        template: str = "{}",
        sep: str = " ",
        end: str = "\n",
        file: SupportsWrite[str] | None = None,
        flush: bool = False,
    ) -> Stream[_T]: ...
    @staticmethod
    def raw(
        source: AsyncIterable[_T],
        /,
        template: str = "{}",
        sep: str = " ",
        end: str = "\n",
        file: SupportsWrite[str] | None = None,
        flush: bool = False,
    ) -> AsyncIterator[_T]: ...
    @staticmethod
    def pipe(
        template: str = "{}",
        sep: str = " ",
        end: str = "\n",
        file: SupportsWrite[str] | None = None,
        flush: bool = False,
    ) -> Callable[[AsyncIterable[_T]], Stream[_T]]: ...

print: _Print
