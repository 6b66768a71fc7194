"""The registries for the command ``recover``: imported by name, and joined into one."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Iterator, Sequence

from returns_pipeline.compensation import Compensation, CompensationRegistry
from returns_pipeline.errors import InvalidArgument

__all__ = ["load_registries"]


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


def load_registries(places: Sequence[str]) -> CompensationRegistry:
    """Import registries, each named as ``module:attribute``, and return them as one.

    Raises:
        InvalidArgument: One cannot be imported or is not a `CompensationRegistry`, or two of them
            have different compensations under one name.
    """
    known: dict[str, Compensation[...]] = {}
    origin: dict[str, str] = {}
    for place in places:
        for name, undo in _load(place).items():
            if known.setdefault(name, undo) is not undo:
                raise InvalidArgument(
                    f"registries {origin[name]} and {place} both have a {name!r}, and not the same"
                )
            _ = origin.setdefault(name, place)
    return _Registries(known)


def _load(place: str) -> CompensationRegistry:
    module, _, attribute = place.partition(":")
    if not module or not attribute:
        raise InvalidArgument(f"registry {place!r} is not of the form module:attribute")
    try:
        found: object = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        # The program's code may raise anything: then there is no registry.
        where = traceback.extract_tb(error.__traceback__)[-1]
        at = "" if "importlib" in where.filename else f" ({where.filename}:{where.lineno})"
        raise InvalidArgument(f"registry {place!r} cannot be imported: {error!r}{at}") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise InvalidArgument(f"registry {place!r}: there is no {name!r}")
        found = getattr(found, name)
    if not isinstance(found, CompensationRegistry):
        kind = type(found).__qualname__
        raise InvalidArgument(
            f"registry {place!r} is not a CompensationRegistry, but of type {kind}"
        )
    return found
