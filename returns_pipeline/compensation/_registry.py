"""`CompensationRegistry`: undo actions under names that other processes know, too."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, Generic, TypeAlias

from typing_extensions import ParamSpec, TypeVar

from returns_pipeline._engine import checks
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.retry import RetryPolicy

__all__ = ["Compensation", "CompensationRegistry", "Upcast", "hidden"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True, default=object)


Upcast: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]

# Turns a value that JSON has no form for into one that it has.
Encode: TypeAlias = Callable[[Any], Any]
# Turns what ``Encode`` returned into a value of the type.
Decode: TypeAlias = Callable[[type, Any], Any]

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
        sensitive: The parameters whose arguments are never shown.
        encode: Encodes values of types that JSON has no form for; ``None`` if there are none.
        decode: Decodes them.

    >>> registry = CompensationRegistry()
    >>> @registry.compensation("delete")
    ... async def delete(name: str) -> None: ...
    >>> delete
    <compensation 'delete'>
    """

    def __init__(
        self,
        name: str,
        func: Callable[P, Awaitable[R_co]],
        retry: RetryPolicy,
        timeout: checks.Seconds | None,
        version: int = 1,
        upcast: Mapping[int, Upcast] | None = None,
        *,
        sensitive: Collection[str] = (),
        encode: Encode | None = None,
        decode: Decode | None = None,
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
        self.sensitive: frozenset[str] = frozenset(sensitive)
        self.encode: Encode | None = encode
        self.decode: Decode | None = decode
        if self.sensitive:
            unknown = self.sensitive - inspect.signature(func).parameters.keys()
            if isinstance(sensitive, str) or unknown:
                raise InvalidArgument(f"sensitive must be names of parameters, not {sensitive!r}")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R_co]:
        """Call the function itself, at once and without any retry."""
        return self.func(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<compensation {self.name!r}>"


def hidden(
    undo: Compensation[...], count: int, names: Iterable[str], *, before: int = 0
) -> frozenset[int | str]:
    """Return which arguments of a call are sensitive: their positions and names.

    Those that fit no parameter are, too: a mistake may have put any argument there.

    Args:
        undo: What is called.
        count: How many positional arguments there are.
        names: The names of the others.
        before: How many positional arguments a `functools.partial` passes before them.
    """
    if not undo.sensitive:
        return frozenset()
    parameters = inspect.signature(undo.func).parameters
    kinds = [parameter.kind for parameter in parameters.values()]
    found: set[int | str] = set()
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        fit = sum(kind is not inspect.Parameter.KEYWORD_ONLY for kind in kinds)
        fit -= inspect.Parameter.VAR_KEYWORD in kinds
        found.update(range(max(0, fit - before), count))
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        found.update(set(names) - parameters.keys())
    for place, (name, parameter) in enumerate(parameters.items()):
        if name not in undo.sensitive:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            found.update(range(max(0, place - before), count))
        elif parameter.kind is parameter.VAR_KEYWORD:
            found.update(set(names) - parameters.keys())
        else:
            found.update({place - before, name})
    return frozenset(found)


def _check_name(name: object) -> None:
    """Refuse a name that is not a text, or is empty.

    Raises:
        TypeError: It is another object: the function, if the decorator has no arguments.
        InvalidArgument: It is empty.
    """
    # A function that is decorated so would be called as a decorator later, and undo nothing.
    if not isinstance(name, str):
        named = getattr(name, "__name__", "name")
        raise TypeError(f"compensation() takes a name: @registry.compensation({named!r})")
    if not name:
        raise InvalidArgument("a compensation needs a name")


class CompensationRegistry(Mapping[str, Compensation[...]]):
    """The undo actions of a program, by name.

    >>> registry = CompensationRegistry()
    >>> @registry.compensation("delete-batch", retry=RetryPolicy(attempts=5))
    ... async def delete_batch(batch_id: str) -> None: ...
    >>> registry["delete-batch"] is delete_batch
    True

    A journal keeps arguments as JSON, by the type hints of the function. It knows dataclasses,
    `msgspec` structs, dates, UUIDs, decimals, enums, paths, IP addresses and pydantic models. For
    other types there are ``encode`` and ``decode``, which work as the ``enc_hook`` and ``dec_hook``
    of msgspec do; for a type that they do not know they raise `NotImplementedError`.

    >>> def encode(value: object) -> object:
    ...     if isinstance(value, complex):
    ...         return [value.real, value.imag]
    ...     raise NotImplementedError
    >>> def decode(type_: type, value: object) -> object:
    ...     if type_ is complex and isinstance(value, list):
    ...         return complex(*value)
    ...     raise NotImplementedError
    >>> known = CompensationRegistry(encode=encode, decode=decode)

    Args:
        encode: Takes a value of a type that is not known, and returns one that is.
        decode: Takes a type and what ``encode`` returned, and returns the value.
    """

    def __init__(self, *, encode: Encode | None = None, decode: Decode | None = None) -> None:
        self._encode = encode
        self._decode = decode
        self._known: dict[str, Compensation[...]] = {}

    def compensation(
        self,
        name: str,
        *,
        retry: RetryPolicy | None = None,
        timeout: checks.Seconds | None = None,
        version: int = 1,
        upcast: Mapping[int, Upcast] | None = None,
        sensitive: Collection[str] = (),
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
            sensitive: Parameters whose arguments are shown nowhere: not in logs, notes, reports or
                warnings, and not by the command line. A journal stores them in the clear all the
                same, and what the function raises is shown: see ``docs/sagas.md``.

        Raises:
            InvalidArgument: At the call, if the name is empty or taken, or ``timeout`` or
                ``version`` is out of range; when the function is decorated, if ``sensitive`` names
                what is not a parameter.
            TypeError: At the call, if there is no name: ``@registry.compensation`` alone.
        """
        version = checks.count("version", version)
        _check_name(name)
        limit = None if timeout is None else checks.seconds("timeout", timeout)

        def register(func: Callable[P, Awaitable[R]]) -> Compensation[P, R]:
            if name in self._known:
                raise InvalidArgument(f"a compensation {name!r} is registered already")
            made = Compensation(
                name,
                func,
                retry or ONCE,
                limit,
                version,
                upcast,
                sensitive=sensitive,
                encode=self._encode,
                decode=self._decode,
            )
            self._known[name] = made
            return made

        return register

    def __getitem__(self, name: str) -> Compensation[...]:
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)
