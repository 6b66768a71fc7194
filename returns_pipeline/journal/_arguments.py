"""The arguments of an undo as JSON text, and back: by the type hints of its parameters.

It never uses pickle: a journal contains data, and only data of the hinted types. A value that would
not be equal after a round trip is refused before it is stored. Equal means ``==``, and NaN equals
itself. An aware datetime is read back as the same instant, with an offset in place of its zone. In
the hour that a zone's clocks repeat, or skip, ``==`` is false for every offset (PEP 495), and the
datetime is refused: pass times in UTC.

A parameter that was left to its default is not recorded: the undo has the default of its own time.
A method can be a compensation when it is bound (``registry.compensation("drop")(store.drop)``); the
``self`` of an unbound one has no type hint, and is refused like any other such parameter.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
import reprlib
import typing
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, cast

import msgspec

from returns_pipeline.compensation import Compensation
from returns_pipeline.compensation._internals import HIDDEN, printable
from returns_pipeline.compensation.protocol import Intent
from returns_pipeline.errors import ArgumentsNotRecordable, JournalCorrupt
from returns_pipeline.journal._types import decoder, encoder

__all__ = ["MAX_SIZE", "decode", "encode", "encode_arguments", "shown"]

# What `json.dumps` calls in the end.
_as_json: Final = json.JSONEncoder().encode

# Characters of text. A journal is for what identifies an effect, not for the data of the effect.
MAX_SIZE = 65_536
# Types that JSON has itself: their values need no trial of the round trip.
_PLAIN: Final = frozenset({str, int, float, bool})
# Sensitive arguments are recorded in an object of their own under this name, which no parameter
# has: so a process that shows a record need not know the undo.
_SENSITIVE: Final = ""
_brief: Final = reprlib.Repr()
_brief.maxstring = _brief.maxother = 200


def encode_arguments(intent: Intent, /) -> str:
    """Return the arguments of an action as a journal keeps them, and `StoredAction` has them.

    For journals of your own: if `Journal.record` stores this text, `recover` can read it.

    Raises:
        ArgumentsNotRecordable: They do not fit the parameters, a parameter has no type hint, they
            would not be equal after a round trip, or the text is longer than 65,536 characters.
            `Journal.record` raises it, too.

    >>> from returns_pipeline.compensation import CompensationRegistry
    >>> registry = CompensationRegistry()
    >>> @registry.compensation("delete")
    ... async def delete(path: str, *, days: int) -> None: ...
    >>> where = {"saga": "1", "saga_name": "shop", "position": "0", "path": "shop", "key": "k"}
    >>> encode_arguments(Intent("1", **where, undo=delete, args=("a.txt",), kwargs={"days": 3}))
    '{"path": "a.txt", "days": 3}'
    """
    return encode(intent.undo, intent.args, dict(intent.kwargs))


def encode(undo: Compensation[...], args: tuple[object, ...], kwargs: dict[str, object]) -> str:
    """Return the arguments as JSON text.

    Raises:
        ArgumentsNotRecordable: They do not fit the parameters, a parameter has no type hint, they
            would not be equal after a round trip, or the text is too long.
    """

    def refuse(reason: str) -> ArgumentsNotRecordable:
        return ArgumentsNotRecordable("arguments", f"{undo.name}: {reason}")

    signature, hints, positional = _parameters(undo)
    if positional is not None and not kwargs and len(args) == len(positional):
        # The result of binding, which takes longer than all the rest.
        named = dict(zip(positional, args, strict=True))
    else:
        named = _bound(signature, args, kwargs, refuse)
    plain: dict[str, Any] = {}
    for name, value in named.items():
        if name not in hints:
            raise refuse(f"parameter {name!r} has no type hint")
        is_secret = name in undo.sensitive
        try:
            recorded = _plain(value, hints[name], undo)
        except ValueError as error:
            if is_secret:  # the message and the cause may show it
                raise refuse(f"{name}={HIDDEN} cannot be recorded as it is") from None
            raise refuse(f"{name}={_show(value)} {error}") from error.__cause__
        place = plain.setdefault(_SENSITIVE, {}) if is_secret else plain
        place[name] = recorded
    try:
        text = _as_json(plain)
    except ValueError as error:  # a number of too many digits
        raise refuse(f"cannot be recorded: {error}") from error
    if len(text) > MAX_SIZE:
        raise refuse(f"{len(text)} characters are more than {MAX_SIZE}")
    return text


def _bound(
    signature: inspect.Signature,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    refuse: Callable[[str], ArgumentsNotRecordable],
) -> dict[str, Any]:
    try:
        return signature.bind(*args, **kwargs).arguments
    except TypeError as error:
        raise refuse(str(error)) from error


def shown(text: str) -> str:
    """Return recorded arguments without those that are sensitive, to be shown."""
    try:
        named: object = json.loads(text) if f'"{_SENSITIVE}": {{' in text else None
    except (ValueError, RecursionError):
        named = None
    secret = _secret(named)
    if secret is None:
        return text
    return json.dumps(_merged(cast("dict[str, Any]", named), dict.fromkeys(secret, repr(HIDDEN))))


def _secret(named: object) -> dict[str, Any] | None:
    """Return the sensitive arguments of a record, if it has any."""
    if not isinstance(named, dict):
        return None
    secret = cast("dict[str, object]", named).get(_SENSITIVE)
    return cast("dict[str, Any]", secret) if isinstance(secret, dict) else None


def _merged(named: dict[str, Any], secret: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if name != _SENSITIVE} | dict(secret)


def _plain(value: object, hint: Any, undo: Compensation[...]) -> Any:
    """Return the JSON value for a value.

    Raises:
        ValueError: It would not be equal after a round trip. The message is the end of a sentence.
    """
    if type(value) is hint and hint in _PLAIN:
        return value
    try:
        plain = msgspec.to_builtins(value, str_keys=True, enc_hook=encoder(undo))
        back: object = _convert(json.loads(json.dumps(plain)), hint, undo)
        same = _same(back, value)
    except Exception as error:
        # Also an error of the type's own code, such as its ``==``.
        raise ValueError(f"cannot be recorded: {error}") from error
    if not same:
        raise ValueError(f"would come back as {_show(back)}")
    return plain


def decode(
    undo: Compensation[...], version: int, text: str
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Return the arguments, brought up to the version that this process has.

    Raises:
        JournalCorrupt: The text does not fit the parameters. Nothing was called but ``upcast``.
    """
    secret: dict[str, Any] | None = None
    try:
        named = msgspec.convert(json.loads(text), type=dict[str, Any])
        if (secret := _secret(named)) is not None:
            named = _merged(named, secret)
        while version < undo.version:
            named = undo.upcast[version](named)
            version += 1
        signature, hints, _ = _parameters(undo)
        bound = signature.bind_partial()
        for name, value in named.items():
            bound.arguments[name] = _convert(value, hints[name], undo)
        _ = signature.bind(*bound.args, **bound.kwargs)
    except Exception as error:
        # A person or an upcast may have changed them in any way: do not call the undo.
        where = f"{printable(undo.name)}, version {version}"
        if undo.sensitive or secret is not None:  # the message and the cause may show it
            raise JournalCorrupt("arguments", f"{where}: {type(error).__name__}") from None
        raise JournalCorrupt("arguments", f"{where}: {error!r}") from error
    return bound.args, bound.kwargs


@functools.lru_cache(maxsize=1024)
def _parameters(
    undo: Compensation[...],
) -> tuple[inspect.Signature, dict[str, Any], tuple[str, ...] | None]:
    """Return the signature, the type hints, and the names, if all may be passed by position."""
    signature = inspect.signature(undo.func)
    try:
        hints = typing.get_type_hints(undo.func)
    except Exception as error:
        raise ArgumentsNotRecordable(
            "arguments", f"{undo.name}: its type hints cannot be read: {error!r}"
        ) from error
    for name, parameter in signature.parameters.items():
        if name in hints and parameter.kind is parameter.VAR_POSITIONAL:
            hints[name] = tuple.__class_getitem__((hints[name], ...))
        elif name in hints and parameter.kind is parameter.VAR_KEYWORD:
            # Built at run time, which a type checker cannot follow.
            hints[name] = dict.__class_getitem__((str, hints[name]))
    plain = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    only_plain = all(parameter.kind in plain for parameter in signature.parameters.values())
    return signature, hints, tuple(signature.parameters) if only_plain else None


def _convert(plain: object, hint: Any, undo: Compensation[...]) -> object:
    return msgspec.convert(plain, type=hint, str_keys=True, dec_hook=decoder(undo))


def _same(back: object, value: object) -> bool:
    """Return whether two values are equal, where NaN equals itself."""
    if isinstance(value, float) and isinstance(back, float) and math.isnan(value):
        return math.isnan(back)
    if isinstance(value, Decimal) and value.is_nan():  # a signalling NaN cannot be compared
        return isinstance(back, Decimal) and str(back) == str(value)
    if back == value:
        return True
    if type(back) is not type(value):
        return False
    one, other = _parts(value), _parts(back)
    return one is not None and other is not None and _equal(one, other)


def _equal(one: list[object], other: list[object]) -> bool:
    return len(one) == len(other) and all(map(_same, other, one))


def _show(value: object) -> str:
    try:
        return _brief.repr(value)
    except Exception:  # noqa: BLE001  # its own ``repr()``
        return object.__repr__(value)


def _parts(value: Any) -> list[object] | None:
    """Return the parts of a value that may have a NaN somewhere inside."""
    if isinstance(value, list | tuple):
        return list(value)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, dict):
        return [part for item in sorted(value.items(), key=repr) for part in item]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, msgspec.Struct):
        return [getattr(value, name) for name in value.__struct_fields__]
    return None
