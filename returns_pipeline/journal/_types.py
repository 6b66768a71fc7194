"""Types of arguments that JSON lacks: paths, addresses, models, and a program's own.

They are the ``enc_hook`` and ``dec_hook`` of msgspec, which calls them for types that it does not
know.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any, Final

from returns_pipeline.compensation import Compensation

__all__ = ["decoder", "encoder"]

# Their values are recorded as text, which the class reads.
_BY_TEXT: Final[tuple[type[Any], ...]] = (
    pathlib.PurePath,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
)


@functools.lru_cache(maxsize=1024)
def encoder(undo: Compensation[...]) -> Callable[[Any], Any]:
    """Return the encoder of an undo's arguments; it tries the registry's own function first."""

    def encode(value: Any) -> Any:
        if undo.encode is not None:
            with contextlib.suppress(NotImplementedError):
                return undo.encode(value)
        if isinstance(value, _BY_TEXT):
            return str(value)
        if _is_model(type(value)):
            return value.model_dump(mode="json")
        raise NotImplementedError(f"type {type(value).__qualname__} is not known")

    return encode


@functools.lru_cache(maxsize=1024)
def decoder(undo: Compensation[...]) -> Callable[[Any, Any], Any]:
    """Return the decoder of an undo's arguments."""

    def decode(type_: Any, value: Any) -> Any:
        if undo.decode is not None:
            with contextlib.suppress(NotImplementedError):
                return undo.decode(type_, value)
        if _is_one(type_, _BY_TEXT) and isinstance(value, str):
            return type_(value)
        if _is_model(type_):
            return type_.model_validate_json(json.dumps(value))
        raise NotImplementedError(f"type {type_!r} is not known")

    return decode


def _is_model(type_: Any) -> bool:
    """Whether this is a model of pydantic. If that is not imported, there is none."""
    pydantic: Any = sys.modules.get("pydantic")
    return pydantic is not None and _is_one(type_, pydantic.BaseModel)


def _is_one(type_: Any, classes: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, classes)
