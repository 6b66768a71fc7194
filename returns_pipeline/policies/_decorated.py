"""The step that a policy makes of others: a frozen value that can be printed and pickled."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeAlias, TypeVar

from returns.future import FutureResult
from returns.result import Result
from typing_extensions import ParamSpec

from returns_pipeline._engine.calls import Call
from returns_pipeline._engine.future_results import future_result
from returns_pipeline._engine.names import name_of, shown

__all__ = ["DecoratedStep", "Run", "check_step"]

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E")

# What a policy does in one call of its step: it is given the arguments of the call.
Run: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], Coroutine[Any, Any, Result[T, E]]]


class DecoratedStep(Generic[P, T, E]):
    """A step made of others by a policy.

    It is called, and bound as a method, like a function. Its ``repr()`` is the call that made it.
    Two are equal if their policies and steps are, and one can be pickled if these can be.

    Args:
        run: Does the work of one call.
        policy: The function that made this of ``args`` and ``kwargs``, and would do so again.
        args: The steps, and what else was given by position.
        kwargs: What was given by name.
        wraps: The step whose name, documentation and signature this has; by default it has the
            name and documentation of ``policy``, and the parameters of its steps, if these have
            the same.
    """

    _run: Run[T, E]
    _policy: Callable[..., object]
    _args: tuple[Any, ...]
    _kwargs: dict[str, Any]

    def __init__(
        self,
        run: Run[T, E],
        policy: Callable[..., object],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        wraps: Callable[..., object] | None = None,
    ) -> None:
        for step in args if wraps is None else (wraps,):
            check_step(step, shown(policy))
        own = self.__dict__  # it is frozen, so `functools.update_wrapper` is done by hand
        if wraps is None:
            own["__doc__"] = policy.__doc__
        else:
            own.update(getattr(wraps, "__dict__", {}), __wrapped__=wraps)
            for name in functools.WRAPPER_ASSIGNMENTS:
                if hasattr(wraps, name):
                    own[name] = getattr(wraps, name)
        own["__name__"] = name_of(policy if wraps is None else wraps)
        own.setdefault("__qualname__", own["__name__"])
        own.update(_run=run, _policy=policy, _args=args, _kwargs=kwargs)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> FutureResult[T, E]:
        """Return what does the work when it is awaited."""
        return future_result(self._run(args, kwargs))

    def __getattr__(self, name: str) -> Any:
        # Only what is not set comes here; a step that wraps another has the signature of that.
        if name == "__signature__" and "__wrapped__" not in self.__dict__:
            return _common_signature(self._args)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __get__(self, instance: object, _owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"{self!r} is frozen: {name!r} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self!r} is frozen: {name!r} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DecoratedStep) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash((self._policy, self._args))

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        return functools.partial(self._policy, **self._kwargs), self._args

    @property
    def _call(self) -> Call:
        """The call that has made it: its signature says which errors are added."""
        return Call(self._policy, self._args, self._kwargs)

    def _parts(self) -> tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]:
        return self._policy, self._args, self._kwargs

    def __repr__(self) -> str:
        arguments = [shown(value) for value in self._args]
        arguments += [f"{name}={value!r}" for name, value in self._kwargs.items()]
        return f"{shown(self._policy)}({', '.join(arguments)})"


def _common_signature(steps: tuple[Any, ...]) -> inspect.Signature:
    """Return the parameters that all steps have.

    If they differ, these are the positional ones that one of them needs and all of them take; if
    there is no such number, those of any function. A saga sees in it whether to pass a context.
    """
    flat = [part for step in steps for part in getattr(step, "strategies", (step,))]
    try:
        first, *others = [list(inspect.signature(step).parameters.values()) for step in flat]
    except (TypeError, ValueError):  # a function in C that does not say
        return inspect.signature(_any_step)
    if all(other == first for other in others):
        return inspect.Signature(first)
    needed = max((_needed(each) for each in (first, *others)), key=len)
    try:
        for each in (first, *others):
            _ = inspect.Signature(each).bind(*needed)
    except TypeError:
        return inspect.signature(_any_step)
    return inspect.Signature(needed)


def _needed(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """Return the parameters without a default that can be passed by position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [each for each in parameters if each.kind in kinds and each.default is each.empty]
    return [each.replace(kind=inspect.Parameter.POSITIONAL_ONLY) for each in needed]


def _any_step(*args: Any, **kwargs: Any) -> None:
    """A function with the parameters of a step that says nothing about them."""


def check_step(step: object, policy: str) -> None:
    """Refuse what cannot be run as a step.

    Raises:
        TypeError: It is not a function, or is what a call of one returned.
    """
    if inspect.isawaitable(step):
        raise TypeError(
            f"{policy}() takes a step, a function, not {step!r}, which is a step that was called"
        )
    if not callable(step) and not hasattr(step, "strategies"):  # a Tier has checked its own
        raise TypeError(f"{policy}() takes a step, a function, not {step!r}")
