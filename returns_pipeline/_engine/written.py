"""A chain as its user wrote it: for ``repr()``, and for messages that name a step."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from types import AsyncGeneratorType, CoroutineType
from typing import Any, TypeVar, cast

from returns_pipeline._engine.calls import Call
from returns_pipeline._engine.chain import Chain, Source
from returns_pipeline._engine.future_results import FUTURE_RESULTS, no_result, refuse_stream
from returns_pipeline._engine.marks import MarksRefused
from returns_pipeline._engine.names import name_of, shown

__all__ = ["Place", "chain_text", "written"]

M = TypeVar("M", bound=Callable[..., Any])


def written(method: M) -> M:
    """Decorate a method that adds a link to a chain: it records the call."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            made = method(self, *args, **kwargs)
        except MarksRefused as refused:
            if refused.operator:
                raise
            raise MarksRefused(f"{method.__name__}()") from None
        made._chain.written = Call(method, args, kwargs, is_method=True)
        return made

    return cast("M", call)


@dataclass(slots=True, eq=False, repr=False)
class Place:
    """The place of a step in its chain, for messages about what it returned.

    Attributes:
        before: The chain before the step.
        operator: The method that added it.
        func: The user's function.
    """

    before: Chain
    operator: str
    func: object

    def __str__(self) -> str:
        return f"{self.operator}({name_of(self.func)})"

    def awaitable(
        self, func: Callable[[Any], Any], *, for_result: bool
    ) -> Callable[[Any], Awaitable[Any]]:
        """Return the function, with a check that what it returns can be awaited.

        With ``for_result``, a `FutureResult` is awaited to its Result, without the ``IOResult``
        around it, which costs more than all the rest.
        """

        def call(item: Any) -> Any:
            returned = func(item)
            kind = returned.__class__
            if kind is CoroutineType:
                return returned
            if for_result and kind in FUTURE_RESULTS:
                return returned._inner_value
            if hasattr(returned, "__await__"):
                refuse_stream(returned, f"{self} returned")
                return returned
            use = self.operator.removesuffix("_async")
            raise TypeError(
                f"{self._numbered} returned {returned!r}, which is not awaited: use {use}()"
            )

        return call

    @property
    def _numbered(self) -> str:
        return f"{self}, step {1 + len(list(_calls(self.before)))} of the chain,"

    def wrong(self, returned: object) -> TypeError:
        """Return an error for a step that returned no Result."""
        return no_result(self._numbered, returned)


def chain_text(chain: Chain) -> str:
    """Return the calls that made a chain, as its user wrote them."""
    calls = list(_calls(chain))
    at = chain
    while at.before is not None:
        at = at.before
    source = at.link
    assert isinstance(source, Source)
    made_by = "from_batches" if source.batched else "from_results" if source.packed else "of"
    text = f"ResultStream.{made_by}({_shown(source.items)})"
    if source.folded:
        text += f".or_failure({', '.join([error.__name__ for error in source.folded])})"
    return text + "".join(map(_call_text, reversed(calls)))


def _calls(chain: Chain) -> Iterator[Call | None]:
    """Yield the calls that added links, the last one first."""
    at: Chain | None = chain
    while at is not None:
        if at.before is not None:
            yield at.written
        at = at.before


def _call_text(call: Call | None) -> str:
    if call is None:
        return "....()"
    if call.name:
        return call.name
    by_name = [f"{name}={_shown(value)}" for name, value in (call.kwargs or {}).items()]
    return f".{call.func.__name__}({', '.join([*map(_shown, call.args), *by_name])})"


def _shown(value: object) -> str:
    """Show a function and a class by name, a generator as a call, and no address in memory."""
    if isinstance(value, AsyncGeneratorType):
        return f"{cast('Any', value).__name__}()"
    if isinstance(value, type):
        return value.__name__
    if type(value).__repr__ is object.__repr__:
        return f"<{type(value).__name__}>"
    return shown(value)
