"""Messages and dead letters: values that keep where they come from."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import Any

import pytest
from returns.result import Failure, Success

from returns_pipeline import err, ok
from returns_pipeline.connectors import DeadLetter, Message, json_decoder
from returns_pipeline.connectors._message import messages_in
from returns_pipeline.errors import DecodeError
from returns_pipeline.windows import EventWindow


@dataclass
class Order:
    number: int
    seats: list[str]


def test_another_value_keeps_everything_else() -> None:
    message = Message(b"1", "p", (4,), 2, {"origin": "web"}, b"key", 17.5, "receipt")
    other = message.with_value(1)
    assert other == Message(1, "p", (4,), 2, {"origin": "web"}, b"key", 17.5)
    assert other.receipt == "receipt"
    assert message.value == b"1"


def test_a_function_makes_another_value_or_a_dead_letter() -> None:
    message = Message("17", "p", (4,))
    assert message.bind(lambda text: ok(int(text))) == Success(Message(17, "p", (4,)))
    assert message.bind(lambda _: err("no")) == Failure(DeadLetter("no", message))


def test_the_messages_in_a_value_come_in_their_order() -> None:
    """Then what a commit of them covers is one stretch, and not one for each message."""
    a, b, c, d = [Message(n, "p", (n,)) for n in range(4)]
    window = EventWindow("key", 0.0, 60.0, [b, c])
    assert [*messages_in([a, ("key", [window, d]), "no message"])] == [a, b, c, d]


def test_messages_are_values() -> None:
    message = Message("a", "p", (1,), headers={"x": "y"})
    assert message == Message("a", "p", (1,), headers={"x": "y"}, receipt=object())
    assert message != Message("a", "p", (2,), headers={"x": "y"})
    assert message != "a"
    assert len({message, message.with_value("a")}) == 1
    assert pickle.loads(pickle.dumps(message)) == copy.copy(message) == message
    assert "position=(1,)" in repr(message)
    frozen: Any = message
    with pytest.raises(AttributeError):
        frozen.value = "b"
    assert Message("a", "p", (1,)).headers is not Message("a", "p", (1,)).headers


def test_json_is_read_as_a_type_and_checked() -> None:
    decode = json_decoder(Order)
    assert decode(b'{"number": 3, "seats": ["1A"]}') == Success(Order(3, ["1A"]))
    for value in (b"", b"\xff", b'{"number": "3", "seats": []}', b'{"number": 3}', b"[]"):
        error = decode(value).failure()
        assert isinstance(error, DecodeError)
        assert error.wanted == "Order"
        assert error.reason
    assert json_decoder(dict[str, int])(b"1").failure().wanted == "dict[str, int]"


def test_a_type_that_no_json_has_is_refused_at_the_call() -> None:
    two_kinds: Any = list[int] | set[int]
    with pytest.raises(TypeError, match="array-like"):
        json_decoder(two_kinds)
