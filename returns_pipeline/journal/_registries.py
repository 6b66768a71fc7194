"""The registries for the command ``recover``: imported by name, made if need be, and joined."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, cast

from returns_pipeline.compensation import Compensation, CompensationRegistry
from returns_pipeline.errors import InvalidArgument

__all__ = ["find_registries", "made_registries"]


class _Registries(CompensationRegistry):
    """Several registries as one."""

    def __init__(self, known: dict[str, Compensation[...]]) -> None:
        super().__init__()
        self._all = known

    def __getitem__(self, name: str) -> Compensation[...]:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


def find_registries(places: Sequence[str]) -> dict[str, object]:
    """Import registries, and factories of registries, each named as ``module:attribute``.

    Nothing is called yet: a factory may need the event loop in which its registry is used.

    Raises:
        InvalidArgument: One cannot be imported, or is of another kind.
    """
    return {place: _find(place) for place in places}


@asynccontextmanager
async def made_registries(found: dict[str, object]) -> AsyncGenerator[CompensationRegistry]:
    """Return what was found as one registry, for as long as the block runs.

    Raises:
        InvalidArgument: A factory raises, or returns something else than a registry, or two
            registries have different compensations under one name.
    """
    known: dict[str, Compensation[...]] = {}
    origin: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        for place, thing in found.items():
            for name, undo in (await _made(place, thing, stack)).items():
                if known.setdefault(name, undo) is not undo:
                    raise InvalidArgument(
                        f"registries {origin[name]} and {place} both have a {name!r}, and not the "
                        "same"
                    )
                _ = origin.setdefault(name, place)
        yield _Registries(known)


def _find(place: str) -> object:
    module, _, attribute = place.partition(":")
    if not module or not attribute:
        raise InvalidArgument(f"registry {place!r} is not of the form module:attribute")
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        # The program's code may raise anything: then there is no registry.
        raise InvalidArgument(
            f"registry {place!r} cannot be imported: {error!r}{_where(error)}"
        ) from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise InvalidArgument(f"registry {place!r}: there is no {name!r}")
        found = getattr(found, name)
    kind = type(found).__qualname__
    if isinstance(found, CompensationRegistry):
        return found
    # An undo action can be called, too: that would undo something.
    if isinstance(found, Compensation) or not callable(found):
        raise _wrong(place, kind)
    try:
        _ = inspect.signature(found).bind()
    except TypeError as error:
        raise InvalidArgument(
            f"registry {place!r} is a function, which is called without arguments: {error}"
        ) from error
    except ValueError:
        pass  # some callables of C have no signature
    return found


async def _made(place: str, found: object, stack: AsyncExitStack) -> CompensationRegistry:
    made: Any = found
    if not isinstance(found, CompensationRegistry):
        try:
            made = made()
            if inspect.isawaitable(made):
                made = await made
            if isinstance(made, AbstractAsyncContextManager):
                entered = cast("AbstractAsyncContextManager[object]", made)
                made = await stack.enter_async_context(entered)
        except (Exception, SystemExit) as error:
            raise InvalidArgument(
                f"registry {place!r} cannot be made: {error!r}{_where(error)}"
            ) from error
    if inspect.isasyncgen(made):
        raise InvalidArgument(
            f"registry {place!r} is a generator: decorate it with contextlib.asynccontextmanager"
        )
    if not isinstance(made, CompensationRegistry):
        raise _wrong(place, type(made).__qualname__)
    return made


def _wrong(place: str, kind: str) -> InvalidArgument:
    return InvalidArgument(
        f"registry {place!r} is not a CompensationRegistry, but of type {kind}; nor a function "
        "that returns one"
    )


def _where(error: BaseException) -> str:
    """Return the line of the program in which it was raised, if it was there."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    ours = "importlib" in last.filename or last.filename == __file__
    return "" if ours else f" ({last.filename}:{last.lineno})"
