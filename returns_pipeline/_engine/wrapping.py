"""What a policy makes of a step: a step again, which can be printed, compared and pickled."""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from typing_extensions import ParamSpec

from returns_pipeline._engine.future_results import future_result

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from returns.future import FutureResult
    from returns.result import Result

__all__ = ["Wrapped", "name_of"]

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E")


class Wrapped(Generic[P, T, E]):
    """A step made of others by a policy.

    It is called, and bound as a method, as a function is. Its ``repr()`` is the call that made it;
    two are equal if their policies and steps are, and it can be pickled if these can be.

    Args:
        run: Does the work, given the arguments of a call.
        made_by: Made it of ``args`` and ``kwargs``, and would do so again.
        args: The steps, and what else comes by position.
        kwargs: What was given by name.
        like: The step whose name, documentation and signature it bears; by default it has the
            name of ``made_by``.
    """

    _run: Callable[[tuple[Any, ...], dict[str, Any]], Coroutine[Any, Any, Result[T, E]]]
    _made_by: Callable[..., object]
    _args: tuple[Any, ...]
    _kwargs: dict[str, Any]

    def __init__(
        self,
        run: Callable[[tuple[Any, ...], dict[str, Any]], Coroutine[Any, Any, Result[T, E]]],
        made_by: Callable[..., object],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        like: Callable[..., object] | None = None,
    ) -> None:
        own = self.__dict__  # it is frozen: what `functools.update_wrapper` does is done by hand
        if like is None:
            own["__doc__"] = made_by.__doc__
        else:
            own.update(getattr(like, "__dict__", {}), __wrapped__=like)
            for name in functools.WRAPPER_ASSIGNMENTS:
                if hasattr(like, name):
                    own[name] = getattr(like, name)
        own["__name__"] = name_of(made_by if like is None else like)
        own.setdefault("__qualname__", own["__name__"])
        own.update(_run=run, _made_by=made_by, _args=args, _kwargs=kwargs)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> FutureResult[T, E]:
        """Begin the work when it is awaited."""
        return future_result(self._run(args, kwargs))

    def __get__(self, instance: object, _owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"{self!r} is frozen: {name!r} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self!r} is frozen: {name!r} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wrapped) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash((self._made_by, self._args))

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        return functools.partial(self._made_by, **self._kwargs), self._args

    def _parts(self) -> tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]:
        return self._made_by, self._args, self._kwargs

    def __repr__(self) -> str:
        shown = [_shown(value) for value in self._args]
        shown += [f"{name}={value!r}" for name, value in self._kwargs.items()]
        return f"{_shown(self._made_by)}({', '.join(shown)})"


def _shown(value: object) -> str:
    """Show functions by name, and values as they are."""
    named = isinstance(value, types.FunctionType | types.MethodType | types.BuiltinFunctionType)
    return name_of(value) if named else repr(value)


def name_of(step: object) -> str:
    """Give the name of a step function, for paths and reports."""
    while isinstance(step, functools.partial):
        step = cast("functools.partial[object]", step).func
    name: object = getattr(step, "__name__", None)
    return name if isinstance(name, str) else type(step).__name__
