"""Between the bytes of a message and a value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec
from returns.result import Failure, Result, Success

from returns_pipeline._engine import checks
from returns_pipeline._engine.steps import Failed
from returns_pipeline.connectors._message import DeadLetter, Message
from returns_pipeline.errors import DecodeError, TooManyDeliveries

__all__ = ["is_type", "json_decoder", "json_encoder", "received_all", "receiver"]

T = TypeVar("T")


def json_decoder(wanted: type[T]) -> Callable[[bytes], Result[T, DecodeError]]:
    """Return a function that reads JSON as a type, and fails with a `DecodeError`.

    The type may be anything that msgspec reads: a dataclass, a ``TypedDict``, a ``msgspec.Struct``,
    ``list[int]``, and so on. Values are checked: no text becomes a number.

    Args:
        wanted: The type.

    Raises:
        TypeError: At the call, if msgspec cannot read such a type.

    >>> decode = json_decoder(dict[str, int])
    >>> decode(b'{"seats": 3}').unwrap()
    {'seats': 3}
    >>> print(decode(b'{"seats": "three"}').failure())
    a message cannot be read as dict[str, int]: Expected `int`, got `str` - at `$[...]`
    """
    read = msgspec.json.Decoder(wanted).decode
    name = wanted.__name__ if type(wanted) is type else str(cast("Any", wanted))

    def decode(value: bytes) -> Result[T, DecodeError]:
        try:
            return Success(read(value))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return Failure(DecodeError(name, str(error)))

    return decode


def receiver(
    decode: type[Any] | Callable[[bytes], Result[Any, Any]] | None, max_deliveries: float
) -> Callable[[Message[bytes]], Any] | None:
    """Return a function that makes of a message what is emitted: it, decoded, or a `Failed` letter.

    None if messages are emitted as they are.

    Args:
        decode: See `Source`.
        max_deliveries: See `Source`.
    """
    read = _decoder(decode)
    if read is None and max_deliveries == math.inf:
        return None

    def received(message: Message[bytes]) -> Any:
        if message.deliveries > max_deliveries:
            error = TooManyDeliveries(message.deliveries, int(max_deliveries))
            return Failed(DeadLetter(error, message))
        if read is None:
            return message
        decoded = read(message.value)
        if isinstance(decoded, Success):
            return message.with_value(decoded.unwrap())
        return Failed(DeadLetter(decoded.failure(), message))

    return received


def received_all(
    messages: list[Message[bytes]], received: Callable[[Message[bytes]], Any] | None
) -> list[Any]:
    """Return what a `receiver` makes of messages, up to one for which it raises.

    Raises:
        Exception: It raises for the first of them: what it raises is for the read that begins with
            the message.
    """
    if received is None:
        return messages
    taken: list[Any] = []
    try:
        for message in messages:
            taken.append(received(message))
    except Exception:
        if not taken:
            raise
    return taken


def _decoder(
    decode: type[Any] | Callable[[bytes], Result[Any, Any]] | None,
) -> Callable[[bytes], Result[Any, Any]] | None:
    if decode is None:
        return None
    if is_type(decode):
        return json_decoder(cast("type[Any]", decode))
    checks.function("decode", decode, use="bind_async")
    return decode


def is_type(decode: object) -> bool:
    """Return whether messages are decoded as a type, and not by a function."""
    # `list[int]` is not a class, and can be called.
    return isinstance(decode, type) or hasattr(decode, "__origin__")


def json_encoder(*, bytes_as_they_are: bool) -> Callable[[Any], bytes]:
    """Return a function that writes a value as JSON.

    Args:
        bytes_as_they_are: Whether bytes are returned, and not written as a text.
    """
    write = msgspec.json.Encoder().encode

    def encode(value: Any) -> bytes:
        return value if isinstance(value, bytes) else write(value)

    return encode if bytes_as_they_are else write
