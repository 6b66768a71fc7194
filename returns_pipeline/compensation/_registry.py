"""`CompensationRegistry`: undo actions under names that other processes know, too."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, Generic, TypeAlias

from typing_extensions import ParamSpec, TypeVar

from returns_pipeline._engine import checks
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.retry import RetryPolicy

__all__ = ["Compensation", "CompensationRegistry", "Upcast"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True, default=object)


# Turns the arguments of one version, by name, into those of the next version.
Upcast: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]


ONCE: Final = RetryPolicy(attempts=1)


class Compensation(Generic[P, R_co]):
    """An undo action under a name that another process knows, too.

    `CompensationRegistry.compensation` makes it from a function, and it can be called like that
    function.

    Attributes:
        name: The name it is registered under.
        retry: How often it is tried.
        timeout: Seconds that it may take, retries included; ``None`` to use the scope's.
        version: The version of its parameters, which a journal records.
        upcast: Functions that turn the recorded arguments of an older version into those of the
            next version.
        func: The function itself.
    """

    def __init__(
        self,
        name: str,
        func: Callable[P, Awaitable[R_co]],
        retry: RetryPolicy,
        timeout: checks.Seconds | None,
        version: int = 1,
        upcast: Mapping[int, Upcast] | None = None,
    ) -> None:
        # First, because it copies the function's attributes, and tenacity sets a `retry` there.
        _ = functools.update_wrapper(self, func)
        self.name: str = name
        self.retry: RetryPolicy = retry
        seconds = None if timeout is None else checks.seconds("timeout", timeout)
        self.timeout: float | None = seconds
        self.version: int = checks.count("version", version)
        self.upcast: Mapping[int, Upcast] = upcast or {}
        self.func: Callable[P, Awaitable[R_co]] = func

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R_co]:
        """Call the function itself, at once and without any retry."""
        return self.func(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<compensation {self.name!r}>"


class CompensationRegistry(Mapping[str, Compensation[...]]):
    """The undo actions of a program, by name.

    >>> registry = CompensationRegistry()
    >>> @registry.compensation("delete-batch", retry=RetryPolicy(attempts=5))
    ... async def delete_batch(batch_id: str) -> None: ...
    >>> registry["delete-batch"] is delete_batch
    True
    """

    def __init__(self) -> None:
        self._known: dict[str, Compensation[...]] = {}

    def compensation(
        self,
        name: str,
        *,
        retry: RetryPolicy | None = None,
        timeout: checks.Seconds | None = None,
        version: int = 1,
        upcast: Mapping[int, Upcast] | None = None,
    ) -> Callable[[Callable[P, Awaitable[R]]], Compensation[P, R]]:
        """Register a function as the undo action of this name; to be used as a decorator.

        The function fails when it raises or returns a `Failure`. Otherwise it succeeds.

        Args:
            name: Unique in this registry.
            retry: How often it is tried; by default once.
            timeout: Seconds that it may take, retries included, above 0; by default the scope's.
            version: Raise it when the parameters change. A journal records it with the arguments.
            upcast: For each older version that a journal may hold, a function that takes its
                arguments, by name, and returns those of the next version.

        Raises:
            InvalidArgument: At the call, if the name is empty or taken, or ``timeout`` or
                ``version`` is out of range.
        """
        version = checks.count("version", version)
        if not name:
            raise InvalidArgument("a compensation needs a name")
        limit = None if timeout is None else checks.seconds("timeout", timeout)

        def register(func: Callable[P, Awaitable[R]]) -> Compensation[P, R]:
            if name in self._known:
                raise InvalidArgument(f"a compensation {name!r} is registered already")
            made = Compensation(name, func, retry or ONCE, limit, version, upcast)
            self._known[name] = made
            return made

        return register

    def __getitem__(self, name: str) -> Compensation[...]:
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)
